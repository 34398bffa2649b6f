"""Make a file of demonstrations by the scripted demonstrator (expert.py), on all cores.

    python -m minidiff.pusht collect --episodes 400 --out demos.npz       half a minute on two cores
    python -m minidiff.pusht collect --add-to demos.npz --visited runs/mine \\
                                     --seed 2000 --episodes 200 --out more.npz
    python -m minidiff.pusht collect --again more.npz --out same.npz      the same bytes once more

A trained policy reaches states that no demonstration has visited. `--visited` relabels such states
(DAgger; Ross, Gordon & Bagnell 2011): the policy is run from each seed, and the demonstrator goes
on from a random state of the second half of its episode.

The file holds what minidiff/demos.py reads (state, action, episode_ends). For each episode it also
holds its `seed` and its `start` (5,), NaN where the start is sampled from the seed. `noise` (N, 2)
was added to the actions: `env.reset` and `env.step(action + noise)` repeat any episode to the last
bit. `recipe` is a JSON text of all else that decides the file.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pymunk

from ... import __version__, beyond, checkpoint, demos, stopping
from ...beyond.options import named
from ...progress import Progress
from ...scoring import rollout
from ...scoring.cluster import executor
from ...scoring.workers import awaited
from ..features import PUSHT
from .expert import Demonstration, demonstrate

SEED_LIMIT = 10_000  # seeds from 10,000 on are kept for scoring: none may be trained on
KEEP_EVERY = 100  # episodes between two writings of the part file
NAMES = ("state", "action", "noise", "episode_ends", "seed", "start", "recipe")  # of its arrays

OPTIONS = ("stream", "samples", "refine", "stop_coverage", "noise_every_other", "max_steps")
KNOBS = (  # name, default, lowest, highest, help
    ("episodes", 400, 1, SEED_LIMIT, "how many to make"),
    ("seed", 0, 0, SEED_LIMIT - 1, "of the first episode; the others follow"),
    ("stream", 0, 0, 2**32, "another number makes other choices from the same starts"),
    ("samples", 24, 1, 1000, "contacts sampled for each push: more make episodes more alike"),
    ("refine", 2, 1, 1000, "how many of them are simulated exactly"),
    ("stop-coverage", 0.97, 0.0, 0.999, "an episode ends above this coverage of the goal"),
    ("noise-every-other", 0.0, 0.0, 20.0,
     "px: standard deviation of the noise in the executed, not the recorded, actions of odd seeds"),
    ("max-steps", 300, 1, 10_000, "longer episodes are left out, as unsolved"),
    ("workers", os.cpu_count(), 1, 1000, "processes; their number does not change the file"),
)


def make(seeds, executor, part=None, noise_every_other=0.0, starts=None, **options):
    """Demonstrations from all seeds, on any concurrent.futures.Executor -> a file's arrays by name.

    part     a file for the episodes done so far, in case this is interrupted. The next call with
             the same recipe and starts continues from it.
    starts   (E, 5) states to start from; a row of NaN where the start is sampled from the seed.
    options  as for `demonstrate`. `noise_every_other` is the `noise` of odd seeds; even ones have
             none.

    Unsolved episodes are left out. Raises ValueError where none is solved, for seeds that are kept
    for scoring, and for a part file of another recipe.
    """
    seeds = np.asarray(seeds, np.int64)
    if starts is None:
        starts = np.full((len(seeds), 5), np.nan)
    if not len(seeds) or seeds.min() < 0 or seeds.max() >= SEED_LIMIT:
        raise ValueError(f"demonstrations are made from seeds 0 to {SEED_LIMIT - 1}; "
                         "the others are kept for scoring")
    versions = {"minidiff": __version__, "numpy": np.__version__, "pymunk": pymunk.version}
    recipe = {"noise_every_other": noise_every_other, **options, "versions": versions}
    digest = hashlib.sha256(seeds.tobytes() + starts.tobytes()).hexdigest()
    begun_as = recipe | {"starts": digest}

    made = kept(part, begun_as, len(seeds))
    progress = Progress("demonstrations", len(seeds), len(made))
    futures = []
    for seed, start in zip(seeds[len(made):], starts[len(made):]):
        noise = noise_every_other if seed % 2 == 1 else 0.0
        given = None if np.isnan(start).any() else start
        futures.append(executor.submit(demonstrate, int(seed), noise=noise, start=given, **options))
    try:
        for future in futures:
            made.append(awaited(future))
            if len(made) % KEEP_EVERY == 0:
                keep(part, made, begun_as)
            progress.show(len(made), f"{len([d for d in made if d.solved])} solved")
    except BaseException:
        keep(part, made, begun_as)
        raise
    finally:
        for future in futures:
            future.cancel()
    solved = np.array([d.solved for d in made])
    if not solved.any():
        raise ValueError(f"none of the {len(seeds)} episodes was solved; more samples may help")
    arrays = pack([d for d in made if d.solved])
    return arrays | {"seed": seeds[solved], "start": starts[solved],
                     "recipe": np.array(json.dumps(recipe))}


def keep(part, made, recipe):
    """Write the Demonstrations made so far, and their recipe, to the part file. Without one:
    nothing."""
    if part and made:
        arrays = pack(made) | {"solved": np.array([d.solved for d in made])}
        checkpoint.save(part, arrays, {"recipe": recipe})


def kept(part, recipe, most):
    """The Demonstrations in the part file, [] without one. ValueError where it is damaged, was
    written with another recipe, or holds more than `most` of them."""
    if not part or not Path(part).exists():
        return []
    needs = ("state", "action", "noise", "episode_ends", "solved")
    arrays, meta = checkpoint.load(part, needs)
    if meta.get("recipe") != recipe:
        raise ValueError(f"{part} was begun with another recipe: "
                         "give the same arguments again, or delete it")
    arrays |= demos.check(arrays, PUSHT, part)._asdict()
    check_more(arrays, ("noise", "solved"), part)
    if len(arrays["solved"]) > most:
        raise ValueError(f"{part} holds more than {most} episodes: delete it")
    return unpack(arrays)


def check_more(arrays, names, path):
    """ValueError where one of the arrays `names`, which demos.check does not know, has a shape or a
    type that does not fit `state` and `episode_ends`."""
    n, episodes = len(arrays["state"]), len(arrays["episode_ends"])
    wanted = {"noise": ((n, 2), "f"), "solved": ((episodes,), "b"), "seed": ((episodes,), "iu"),
              "start": ((episodes, 5), "f")}
    for name in names:
        shape, kinds = wanted[name]
        if arrays[name].shape != shape or arrays[name].dtype.kind not in kinds:
            raise ValueError(f"{path}: array '{name}' should have the shape {shape}, "
                             f"but is {arrays[name].dtype} {arrays[name].shape}")
    if not np.isfinite(arrays["noise"]).all():
        raise ValueError(f"{path}: array 'noise' is not finite")


def pack(demonstrations):
    """Demonstrations as arrays, all episodes joined end to end."""
    lengths = [len(d.states) for d in demonstrations]
    return {"state": np.concatenate([d.states for d in demonstrations]),
            "action": np.concatenate([d.actions for d in demonstrations]),
            "noise": np.concatenate([d.noise for d in demonstrations]),
            "episode_ends": np.cumsum(lengths)}


def unpack(arrays):
    """The inverse of `pack`; arrays also holds `solved` (E,)."""
    ends = arrays["episode_ends"][:-1]
    states = np.split(arrays["state"], ends)
    actions = np.split(arrays["action"], ends)
    noises = np.split(arrays["noise"], ends)
    return [Demonstration(*d) for d in zip(states, actions, noises, arrays["solved"])]


def join(first, second):
    """Two files' arrays as one file's. ValueError if their recipes differ."""
    if str(first["recipe"]) != str(second["recipe"]):
        raise ValueError("what was added has another recipe: "
                         f"{first['recipe']}, and now {second['recipe']}")
    second = second | {"episode_ends": first["episode_ends"][-1] + second["episode_ends"]}
    joined = {name: np.concatenate([first[name], second[name]]) for name in NAMES[:-1]}
    return joined | {"recipe": first["recipe"]}


def visited(policy, seeds, noise_seed=1):
    """A random state from the second half of each of the policy's episodes, (len(seeds), 5)."""
    _, paths = rollout.rollout(policy, seeds, noise_seed, record=True)
    states = []
    for seed, path in zip(seeds, paths):
        rng = np.random.default_rng([int(seed), 5])
        states.append(path[rng.integers(len(path) // 2, len(path))])
    return np.array(states)


def visited_by(path, seeds, executor):
    """`visited` for the policy of a run, in chunks of episodes on an executor."""
    policy, _ = beyond.load(path, PUSHT)
    chunks = np.array_split(seeds, -(-len(seeds) // rollout.CHUNK))  # rounded up
    return np.concatenate(list(executor.map(visited, [policy] * len(chunks), chunks)))


def parse(arguments):
    parser = stopping.Parser(prog="python -m minidiff.pusht collect", description=__doc__)
    parser.add_argument("--out", required=True, type=named,
                        help="the .npz file to write; what is done so far is kept in OUT.part")
    parser.add_argument("--again", metavar="FILE", type=named,
                        help="make FILE again, by its own recipe")
    parser.add_argument("--add-to", metavar="FILE", type=named,
                        help="put FILE's episodes in front, and make more by its recipe")
    parser.add_argument("--visited", metavar="RUN", type=named,
                        help="start from states that this policy visits (a run's folder or file)")
    for name, default, _, _, text in KNOBS:
        parser.add_argument(f"--{name}", type=type(default), default=argparse.SUPPRESS,
                            help=f"{text} (default: {default})")
    parser.add_argument("--scheduler", metavar="ADDRESS", type=named,
                        help="instead of --workers: those of a dask.distributed cluster")
    args = parser.parse_args(arguments)
    decided = OPTIONS if args.again or args.add_to else ()  # by the recipe
    if args.again:
        decided += ("seed", "episodes")
    for name, default, *_ in KNOBS:
        attribute = name.replace("-", "_")
        if attribute in decided and attribute in args:
            raise ValueError(f"FILE decides about --{name}: leave it out")
        setattr(args, attribute, getattr(args, attribute, default))
    check_knobs(vars(args), "--")
    if args.refine > args.samples:
        raise ValueError(f"--refine {args.refine}: of --samples {args.samples} no more can be "
                         "simulated exactly")
    if not args.out.endswith(".npz"):
        raise ValueError(f"--out {args.out}: the name must end in .npz")
    if Path(args.out).exists():
        raise ValueError(f"--out {args.out}: it exists already")
    if args.again and (args.add_to or args.visited):
        raise ValueError("--again makes all of FILE again: it takes no --add-to and no --visited")
    checkpoint.check_writable(args.out)
    return args


def check_knobs(values, prefix):
    """ValueError for a value out of its range in KNOBS. values: by name, with _ for -; what is not
    given has its default. prefix: of the name in the message."""
    for name, default, low, high, _ in KNOBS:
        value = values.get(name.replace("-", "_"), default)
        accepted = (int, float) if isinstance(default, float) else (int,)
        if type(value) not in accepted or not low <= value <= high:
            raise ValueError(f"{prefix}{name} must lie between {low} and {high}, not {value!r}")


def read(path):
    """The arrays of a file that collect wrote, and the options in its recipe; ValueError for
    another file."""
    arrays = demos.read(path, NAMES)
    demos.check(arrays, PUSHT, path)
    if set(arrays) != set(NAMES):
        raise ValueError(f"{path}: not a file that collect wrote")
    check_more(arrays, ("noise", "seed", "start"), path)
    if arrays["seed"].min() < 0 or arrays["seed"].max() >= SEED_LIMIT:
        raise ValueError(f"{path}: array 'seed' does not lie between 0 and {SEED_LIMIT - 1}")
    sampled = np.isnan(arrays["start"]).all(1)
    low, high = PUSHT.state_range.T
    given = ((arrays["start"] >= low) & (arrays["start"] <= high)).all(1)
    if not (sampled | given).all():
        row = int(np.argmin(sampled | given))
        raise ValueError(f"{path}: array 'start' is no state in row {row}: {arrays['start'][row]}")
    try:
        recipe = json.loads(str(arrays["recipe"]))
        options = {name: recipe[name] for name in OPTIONS}
        check_knobs(options, "")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: its recipe is damaged: {error}") from None
    return arrays, options


def main(arguments):
    args = parse(arguments)
    part = Path(f"{args.out}.part")
    options = {name: getattr(args, name) for name in OPTIONS}
    seeds = np.arange(args.seed, args.seed + args.episodes)
    starts, before = None, None
    if args.again or args.add_to:
        before, options = read(args.again or args.add_to)
    if args.again:
        seeds, starts = before["seed"], before["start"]
    elif args.add_to and not args.visited:
        sampled = before["seed"][np.isnan(before["start"]).all(1)]
        if np.isin(seeds, sampled).any():
            raise ValueError(f"{args.add_to} has an episode from seed {sampled.max()} already: "
                             f"try --seed {sampled.max() + 1}")
    try:
        with executor(args.scheduler, min(args.workers, len(seeds))) as pool:
            if args.visited:
                starts = visited_by(args.visited, seeds, pool)
            arrays = make(seeds, pool, part, starts=starts, **options)
    except (stopping.Stopped, concurrent.futures.BrokenExecutor) as error:
        kept_there = "nothing was written"
        if part.exists():
            kept_there = (f"the episodes so far are kept in {part}, and the same command goes on "
                          "from there")
        raise type(error)(f"{error}; {kept_there}") from None
    unsolved = len(seeds) - len(arrays["seed"])
    if args.add_to:
        arrays = join(before, arrays)
    checkpoint.write_atomically(args.out, lambda file: np.savez_compressed(file, **arrays))
    part.unlink(missing_ok=True)
    total = len(arrays["seed"])
    steps = len(arrays["state"])
    size = Path(args.out).stat().st_size / 1e6
    print(f"{total} demonstrations, {steps:,} steps (mean {steps / total:.0f}), {size:.2f} MB in "
          f"{args.out}; unsolved and left out: {unsolved}")
