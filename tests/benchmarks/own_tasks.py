"""Four tasks that are nothing like PushT: diffusion, regression and the demonstrator in each.

    pip install -e '.[gymnasium]'
    python tests/benchmarks/own_tasks.py              five minutes on two cores
    python tests/benchmarks/own_tasks.py --tasks arm --seeds 0

Each task is a file in tests/benchmarks/tasks/, which also holds its demonstrator. 300 of its
episodes are the demonstrations (seeds 0 to 299); it and the policies are scored on other seeds.
"""
import argparse
import functools
import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from minidiff import demos, policy, stopping  # noqa: E402
from minidiff.beyond import OBJECTIVES, bind  # noqa: E402
from minidiff.progress import Progress  # noqa: E402
from minidiff.scoring import rollout, scores  # noqa: E402
from minidiff.scoring.workers import Workers  # noqa: E402
from minidiff.training import Config, Trainer  # noqa: E402

import numpy as np  # noqa: E402

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


def trained(task, data, objective, seed):
    known = OBJECTIVES[objective]
    config = Config(**task.recipe, objective=objective, outputs=known.outputs, seed=seed)
    trainer = Trainer(config, task, data, known.loss)
    progress = Progress(f"{task.name}: training {objective}, seed {seed}", config.steps)
    for loss in trainer:
        stopping.safe_point()
        progress.show(trainer.n, f"loss {loss:.4f}")
    return trainer


def measured(name, seeds, count):
    """A row of the table for the demonstrator and for each of COLUMNS: summary by name."""
    task = importlib.import_module(f"benchmarks.tasks.{name}").TASK
    starts = range(FIRST, FIRST + count)
    results = {"demonstrator": scores.summary([episode(name, seed)[2] for seed in starts],
                                              task.score_range)}
    data = demonstrated(name, 300)
    trainers = {}
    with Workers(2) as executor:
        for column, (objective, sampler) in COLUMNS.items():
            episodes = []
            for seed in seeds:
                if (objective, seed) not in trainers:
                    trainers[objective, seed] = trained(task, data, objective, seed)
                planner = policy.from_trainer(trainers[objective, seed], sampler())
                episodes += rollout.evaluate(planner, starts, executor)
            results[column] = scores.summary(episodes, task.score_range)
    return results


def cell(summary):
    low, high = summary["score_ci95"]
    if summary["success"] is None:
        return f"{summary['score']:.1f} [{low:.1f}, {high:.1f}]"
    low, high = summary["success_ci95"]
    return f"{summary['success']:.1%} [{low:.1%}, {high:.1%}]"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of training")
    parser.add_argument("--episodes", type=int, default=500, help="for each training seed")
    args = parser.parse_args(arguments)
    print(f"| task | demonstrator | {' | '.join(COLUMNS)} |")
    print(f"|---{'|---' * (1 + len(COLUMNS))}|")
    for name in args.tasks:
        results = measured(name, args.seeds, args.episodes)
        print(f"| {name} | {' | '.join(cell(summary) for summary in results.values())} |",
              flush=True)


if __name__ == "__main__":
    main()
