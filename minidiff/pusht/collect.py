"""Make a file of demonstrations by the scripted demonstrator (expert.py), on all cores.

    python -m minidiff.pusht.collect --episodes 400 --out demos.npz        half a minute on two cores

The file holds what minidiff/demos.py reads (state, action, episode_ends); for each episode its `seed`; `noise` (N, 2),
so that any episode can be lived again by `env.reset(seed=seed)` and `env.step(action + noise)`, to the last bit; and
`recipe`, a JSON text of all that decides the file: with it the same machine makes the same bytes, on one core or many.
"""
import argparse
import concurrent.futures
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pymunk

from .. import __version__, checkpoint
from ..progress import Progress
from .expert import Demonstration, demonstrate

SEED_LIMIT = 10_000  # episodes from 10,000 on are for scoring policies; nobody trains on them
KEEP_EVERY = 100  # episodes between two writings of what is done so far


def make(seeds, executor, part=None, noise_every_other=0.0, **options):
    """Demonstrations from all seeds, on any concurrent.futures.Executor. Returns the arrays of a file, by name.

    part     a file that keeps what is done if this gets interrupted; the next call with the same recipe goes on there.
    options  as for `demonstrate`; odd seeds have `noise_every_other` as their noise. Unsolved episodes are left out.
    """
    if not seeds or min(seeds) < 0 or max(seeds) >= SEED_LIMIT:
        raise ValueError(f"demonstrations are made from seeds 0 to {SEED_LIMIT - 1}; the others are kept for scoring")
    recipe = {"seeds": str(seeds), "noise_every_other": noise_every_other, **options, "versions": {
        "minidiff": __version__, "numpy": np.__version__, "pymunk": pymunk.version}}
    made = []
    if part and Path(part).exists():
        arrays, meta = checkpoint.load(part, ("state", "action", "noise", "episode_ends", "solved"))
        if meta["recipe"] != recipe:
            raise ValueError(f"{part} was begun with another recipe: give the same arguments again, or delete it")
        made = unpack(arrays)

    def keep():
        if part and made:
            checkpoint.save(part, pack(made) | {"solved": np.array([d.solved for d in made])}, {"recipe": recipe})

    progress = Progress("demonstrations", len(seeds), len(made))
    futures = [executor.submit(demonstrate, seed, noise=noise_every_other * (seed % 2), **options)
               for seed in seeds[len(made):]]
    try:
        for future in futures:
            made.append(future.result())
            if len(made) % KEEP_EVERY == 0:
                keep()
            progress.show(len(made), f"{sum(d.solved for d in made)} solved")
    except BaseException:
        keep()
        raise
    finally:
        for future in futures:
            future.cancel()
    solved = [(seed, d) for seed, d in zip(seeds, made) if d.solved]
    if not solved:
        raise ValueError(f"none of the {len(seeds)} episodes was solved; more samples may help")
    return pack([d for _, d in solved]) | {"seed": np.array([seed for seed, _ in solved]),
                                           "recipe": np.array(json.dumps(recipe))}


def pack(demonstrations):
    columns = dict(zip(("state", "action", "noise"), map(np.concatenate, zip(*[d[:3] for d in demonstrations]))))
    return columns | {"episode_ends": np.cumsum([len(d.states) for d in demonstrations])}


def unpack(arrays):
    columns = [np.split(arrays[name], arrays["episode_ends"][:-1]) for name in ("state", "action", "noise")]
    return [Demonstration(*row) for row in zip(*columns, arrays["solved"])]


def main():
    parser = argparse.ArgumentParser(prog="python -m minidiff.pusht.collect", description="Make demonstrations.")
    parser.add_argument("--out", required=True, help="the .npz file to write; what is done so far stands in OUT.part")
    knobs = (("episodes", 400, 1, SEED_LIMIT, "how many to make"),
             ("seed", 0, 0, SEED_LIMIT - 1, "of the first episode; the others follow"),
             ("stream", 0, 0, 2**32, "another number makes other choices from the same starts"),
             ("samples", 24, 1, 1000, "contacts drawn for each push: more make episodes shorter and more alike"),
             ("refine", 2, 1, 1000, "how many of them are simulated exactly"),
             ("stop-coverage", 0.97, 0.0, 0.999, "an episode ends above this"),
             ("noise-every-other", 0.0, 0.0, 20.0, "px: added to what odd seeds' episodes do, not to what they record"),
             ("max-steps", 300, 1, 10_000, "longer episodes are left out, as unsolved"),
             ("workers", os.cpu_count(), 1, 1000, "processes; their number does not change the file"))
    for name, default, low, high, help in knobs:
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{help} (default: {default})")
    args = vars(parser.parse_args())
    for name, _, low, high, _ in knobs:
        if not low <= args[name.replace("-", "_")] <= high:
            parser.error(f"--{name} must lie between {low} and {high}")
    out, workers, episodes, seed = (args.pop(name) for name in ("out", "workers", "episodes", "seed"))
    part = Path(f"{out}.part")
    if not out.endswith(".npz") or Path(out).exists():
        parser.error(f"--out {out}: " + ("it exists already" if Path(out).exists() else "the name must end in .npz"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # let it be like Ctrl-C
    ignore_ctrl_c = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}  # in the workers
    try:
        with concurrent.futures.ProcessPoolExecutor(workers, **ignore_ctrl_c) as executor:
            arrays = make(range(seed, seed + episodes), executor, part, **args)
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; the episodes so far are kept in {part}, and the same command goes on from there")
    except ValueError as error:
        sys.exit(f"collect.py: {error}")
    checkpoint.write_atomically(out, lambda file: np.savez_compressed(file, **arrays))
    part.unlink(missing_ok=True)
    solved, steps, size = len(arrays["seed"]), len(arrays["state"]), Path(out).stat().st_size / 1e6
    print(f"{solved} demonstrations, {steps:,} steps (mean {steps / solved:.0f}), {size:.2f} MB in {out}; "
          f"unsolved and left out: {episodes - solved}")


if __name__ == "__main__":
    main()
