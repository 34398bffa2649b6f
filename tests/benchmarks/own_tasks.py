"""Four tasks that are nothing like PushT: diffusion, regression and the demonstrator in each.

    pip install -e '.[gymnasium]'
    python tests/benchmarks/own_tasks.py arm

Each task is a file in tests/benchmarks/tasks/, which also holds its demonstrator. 300 of its
episodes are the demonstrations (seeds 0 to 299); it and the policies are scored on other seeds.
"""
import functools
import importlib
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import demos, policy, stopping  # noqa: E402
from minidiff.beyond import OBJECTIVES, bind  # noqa: E402
from minidiff.checkpoint import write_json  # noqa: E402
from minidiff.progress import say  # noqa: E402
from minidiff.scoring import rollout, scores  # noqa: E402
from minidiff.training import Config  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks.measuring import TRAINING_SEEDS, Sheet, parser, played, trained  # noqa: E402

NAMES = ("arm", "park", "chain", "pendulum")
FIRST = 100_000  # seed of the first episode that is scored
COLUMNS = {"DDIM, 4 steps": ("simple", functools.partial(bind, "ddim", steps=4)),
           "ancestral": ("simple", functools.partial(bind, "ancestral")),
           "regression": ("mse", functools.partial(bind, "regression"))}


def episode(name, seed, noise=0.0, more=0):
    """One episode of the demonstrator -> states (n, S), actions (n, D), Episode.

    noise: standard deviation of what is added to the executed actions, in the task's NOISE; what
    is recorded is the intended action. more: so many steps after the end, in which it stays there.
    """
    module = importlib.import_module(f"benchmarks.tasks.{name}")
    env = module.TASK.make_env()
    obs, _ = env.reset(seed=seed)
    rng = np.random.default_rng([seed, 1])
    decide = module.demonstrator(getattr(env, "unwrapped", env), rng)
    track = rollout.Track(module.TASK, seed, obs)
    actions = []
    over = False
    while not over or more > 0:
        more -= over
        actions.append(np.asarray(decide(track.states[-1]), float))
        executed = actions[-1] + noise * module.NOISE * rng.standard_normal(len(actions[-1]))
        obs, reward, terminated, truncated, info = env.step(executed)
        over = track.add(obs, reward, info) or terminated or truncated or over
    return np.stack(track.states[:-1]), np.stack(actions), track.episode()


def demonstrated(name, count):
    """Demonstrations from seeds 0..count-1: noise is injected, and at the end it stays there."""
    parts = [episode(name, seed, noise=1.0, more=20) for seed in range(count)]
    states, actions, _ = zip(*parts)
    ends = np.cumsum([len(part) for part in states])
    task = importlib.import_module(f"benchmarks.tasks.{name}").TASK
    return demos.check({"state": np.concatenate(states), "action": np.concatenate(actions),
                        "episode_ends": ends}, task)


def main(arguments):
    options = parser("own_tasks", __doc__)
    options.add_argument("task", choices=NAMES)
    options.add_argument("--seeds", nargs="+", type=int, default=list(TRAINING_SEEDS),
                         help="of training (default: 0 1 2)")
    options.add_argument("--episodes", type=int, default=500,
                         help="for each training seed (default: 500)")
    args = options.parse_args(arguments)
    sheet = Sheet(args.json)
    task = importlib.import_module(f"benchmarks.tasks.{args.task}").TASK
    shown = [episode(args.task, FIRST + k)[2] for k in range(args.episodes)]
    keep(sheet, "demonstrator", shown, task)
    data = demonstrated(args.task, 300)
    trainers = {}
    for column, (objective, sampler) in COLUMNS.items():
        episodes = []
        for seed in args.seeds:
            if (objective, seed) not in trainers:
                config = Config(**task.recipe, objective=objective, seed=seed,
                                outputs=OBJECTIVES[objective].outputs)
                trainers[objective, seed] = trained(config, task, data, name=objective)
            planner = policy.from_trainer(trainers[objective, seed], sampler())
            episodes += played(planner, args.episodes, FIRST)
        keep(sheet, column, episodes, task)


def keep(sheet, name, episodes, task):
    """As sheet.add, for scores of any range."""
    say(f"{name}: {scores.sentence(scores.summary(episodes, task.score_range))}")
    sheet.figures[name] = {"episodes": [episode._asdict() for episode in episodes]}
    if sheet.path:
        write_json(sheet.path, sheet.figures)


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("own_tasks", main, sys.argv[1:]))
