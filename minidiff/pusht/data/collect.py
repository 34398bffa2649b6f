"""Make a file of demonstrations by the scripted demonstrator (expert.py), on all cores.

    python -m minidiff.pusht.data.collect --episodes 400 --out demos.npz        half a minute on two cores
    python -m minidiff.pusht.data.collect --add-to demos.npz --visited runs/mine/policy.npz --seed 2000 --episodes 200 --out more.npz
    python -m minidiff.pusht.data.collect --again more.npz --out same.npz       the same bytes once more

A policy ends up where no demonstration has been. `--visited` asks the demonstrator what to do there: the policy is run
from each seed, and from a state of the second half of its episode the demonstrator goes on (Ross, Gordon & Bagnell 2011).

The file holds what minidiff/demos.py reads (state, action, episode_ends); for each episode its `seed` and its `start`
(5,), NaN where the seed draws it; `noise` (N, 2), so that any episode can be lived again by `env.reset` and
`env.step(action + noise)`, to the last bit; and `recipe`, a JSON text of the rest that decides the file.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import signal
import sys
import zipfile
from pathlib import Path

import numpy as np
import pymunk

from ... import __version__, checkpoint, policy
from ...progress import Progress
from .. import rollout
from ..features import PUSHT
from .expert import Demonstration, demonstrate

SEED_LIMIT = 10_000  # episodes from 10,000 on are for scoring policies; nobody trains on them
KEEP_EVERY = 100  # episodes between two writings of what is done so far


def make(seeds, executor, part=None, noise_every_other=0.0, starts=None, **options):
    """Demonstrations from all seeds, on any concurrent.futures.Executor. Returns the arrays of a file, by name.

    part     a file that keeps what is done if this gets interrupted; the next call with the same recipe goes on there.
    starts   (E, 5) where to start from; a row of NaN: where the seed says.
    options  as for `demonstrate`; odd seeds have `noise_every_other` as their noise. Unsolved episodes are left out.
    """
    seeds = np.asarray(seeds, np.int64)
    starts = np.full((len(seeds), 5), np.nan) if starts is None else starts
    if not len(seeds) or seeds.min() < 0 or seeds.max() >= SEED_LIMIT:
        raise ValueError(f"demonstrations are made from seeds 0 to {SEED_LIMIT - 1}; the others are kept for scoring")
    recipe = {"noise_every_other": noise_every_other, **options, "versions": {
        "minidiff": __version__, "numpy": np.__version__, "pymunk": pymunk.version}}
    made, begun_as = [], recipe | {"starts": hashlib.sha256(seeds.tobytes() + starts.tobytes()).hexdigest()}
    if part and Path(part).exists():
        arrays, meta = checkpoint.load(part, ("state", "action", "noise", "episode_ends", "solved"))
        if meta["recipe"] != begun_as:
            raise ValueError(f"{part} was begun with another recipe: give the same arguments again, or delete it")
        made = unpack(arrays)

    def keep():
        if part and made:
            checkpoint.save(part, pack(made) | {"solved": np.array([d.solved for d in made])}, {"recipe": begun_as})

    progress = Progress("demonstrations", len(seeds), len(made))
    futures = [executor.submit(demonstrate, int(seed), noise=noise_every_other * (int(seed) % 2), **options,
                               start=None if np.isnan(start).any() else start)
               for seed, start in list(zip(seeds, starts))[len(made):]]
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
    solved = np.array([d.solved for d in made])
    if not solved.any():
        raise ValueError(f"none of the {len(seeds)} episodes was solved; more samples may help")
    return pack([d for d in made if d.solved]) | {"seed": seeds[solved], "start": starts[solved],
                                                  "recipe": np.array(json.dumps(recipe))}


def visited(policy, seeds, noise_seed=1):
    """A state (5,) from the second half of each of the policy's episodes, (len(seeds), 5)."""
    _, states = rollout.rollout(policy, seeds, noise_seed, record=True)
    picks = [np.random.default_rng([int(seed), 5]).integers(len(s) // 2, len(s)) for seed, s in zip(seeds, states)]
    return np.array([s[k] for s, k in zip(states, picks)])


def pack(demonstrations):
    columns = dict(zip(("state", "action", "noise"), map(np.concatenate, zip(*[d[:3] for d in demonstrations]))))
    return columns | {"episode_ends": np.cumsum([len(d.states) for d in demonstrations])}


def unpack(arrays):
    columns = [np.split(arrays[name], arrays["episode_ends"][:-1]) for name in ("state", "action", "noise")]
    return [Demonstration(*row) for row in zip(*columns, arrays["solved"])]


def join(first, second):
    """Two files' arrays as one file's, if they have one recipe."""
    if str(first["recipe"]) != str(second["recipe"]):
        raise ValueError(f"what was added has another recipe: {first['recipe']} against {second['recipe']}")
    second = second | {"episode_ends": first["episode_ends"][-1] + second["episode_ends"]}
    return {name: first[name] if name == "recipe" else np.concatenate([first[name], second[name]]) for name in second}


def read(path):
    """The arrays of a file that this module wrote, and its recipe without the versions."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        return arrays, {k: v for k, v in json.loads(str(arrays["recipe"])).items() if k != "versions"}
    except (KeyError, ValueError, zipfile.BadZipFile):
        raise ValueError(f"{path}: not a file that collect wrote") from None


def main():
    parser = argparse.ArgumentParser(prog="python -m minidiff.pusht.data.collect", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the .npz file to write; what is done so far stands in OUT.part")
    parser.add_argument("--again", metavar="FILE", help="make FILE again, by its own recipe")
    parser.add_argument("--add-to", metavar="FILE", help="put FILE's episodes in front, and make more by its recipe")
    parser.add_argument("--visited", metavar="POLICY", help="start from states that this policy visits")
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
    out, workers, episodes, seed, again, add_to, policy_file = (
        args.pop(name) for name in ("out", "workers", "episodes", "seed", "again", "add_to", "visited"))
    part = Path(f"{out}.part")
    if not out.endswith(".npz") or Path(out).exists():
        parser.error(f"--out {out}: " + ("it exists already" if Path(out).exists() else "the name must end in .npz"))
    for number in (signal.SIGINT, signal.SIGTERM):  # both like Ctrl-C, which a shell's background jobs ignore
        signal.signal(number, signal.default_int_handler)
    ignore_ctrl_c = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}  # in the workers
    try:
        seeds, starts, before = np.arange(seed, seed + episodes), None, None
        if again or add_to:
            before, args = read(again or add_to)
        if again:
            seeds, starts = before["seed"], before["start"]
        with concurrent.futures.ProcessPoolExecutor(workers, **ignore_ctrl_c) as executor:
            if policy_file:
                loaded, _ = policy.load(policy_file, PUSHT)
                chunks = np.array_split(seeds, -(-len(seeds) // rollout.CHUNK))
                starts = np.concatenate(list(executor.map(visited, [loaded] * len(chunks), chunks)))
            arrays = make(seeds, executor, part, starts=starts, **args)
        if add_to:
            arrays = join(before, arrays)
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; the episodes so far are kept in {part}, and the same command goes on from there")
    except (ValueError, OSError) as error:
        sys.exit(f"collect.py: {error}")
    checkpoint.write_atomically(out, lambda file: np.savez_compressed(file, **arrays))
    part.unlink(missing_ok=True)
    total, steps, size = len(arrays["seed"]), len(arrays["state"]), Path(out).stat().st_size / 1e6
    unsolved = len(seeds) + (len(before["seed"]) if add_to else 0) - total
    print(f"{total} demonstrations, {steps:,} steps (mean {steps / total:.0f}), {size:.2f} MB in {out}; "
          f"unsolved and left out: {unsolved}")


if __name__ == "__main__":
    main()
