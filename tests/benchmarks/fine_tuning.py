"""Going on from other weights: 20 demonstrations on top of a policy that learned from others.

    python tests/benchmarks/fine_tuning.py human.npz        ten minutes on two cores

human.npz holds the 206 human demonstrations of Diffusion Policy. Each row of the table: three
training seeds, 500 episodes each by DDIM in 4 steps, and the exact -log p of plans of the other
186 human demonstrations (minidiff/pusht/study/bound.py), in nats for each number, in pixels.
"""
import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from minidiff import beyond, demos, policy, stopping  # noqa: E402
from minidiff.beyond import formats  # noqa: E402
from minidiff.progress import Progress  # noqa: E402
from minidiff.pusht import SHIPPED_POLICY  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.study import bound  # noqa: E402
from minidiff.scoring import rollout, scores  # noqa: E402
from minidiff.scoring.workers import Workers  # noqa: E402
from minidiff.training import Config, Trainer  # noqa: E402

import numpy as np  # noqa: E402

STARTS = range(300_000, 300_500)
SHORT = {"steps": 500, "lr": 1e-3}  # of what goes on from other weights


def split(data, count):
    """The first `count` demonstrations, and the others."""
    row = data.episode_ends[count - 1]
    return (demos.Demos(data.state[:row], data.action[:row], data.episode_ends[:count]),
            demos.Demos(data.state[row:], data.action[row:], data.episode_ends[count:] - row))


def trained(data, seed, init=None, **options):
    trainer = Trainer(Config(seed=seed, **options), PUSHT, data, init=init)
    progress = Progress(f"training, seed {seed}", trainer.config.steps)
    for loss in trainer:
        stopping.safe_point()
        progress.show(trainer.n, f"loss {loss:.4f}")
    return policy.from_trainer(trainer, beyond.bind("ddim", steps=4))


def some_plans(data, count=200):
    """Observations and the plans that followed them, of demonstrations."""
    obs, actions = demos.windows(PUSHT.relabel(data), 1, 8)
    chosen = np.random.default_rng(0).permutation(len(obs))[:count]
    return obs[chosen], actions[chosen]


def nats_of(planner, obs, actions):
    """-log p for each number of a plan, in pixels."""
    likelihood = bound.log_likelihood(planner, obs, actions)
    return bound.log_scale(planner) - likelihood.mean() / actions[0].size


def row(name, planners, held_out, executor):
    """A line of the table."""
    episodes = []
    for planner in planners:
        episodes += rollout.evaluate(planner, STARTS, executor)
    s = scores.summary(episodes)
    low, high = s["success_ci95"]
    score_low, score_high = s["score_ci95"]
    nats = ""
    if held_out:
        nats = f"{np.mean([nats_of(planner, *held_out) for planner in planners]):.2f}"
    print(f"| {name} | {s['n']:,}: {s['success']:.1%} [{low:.1%}, {high:.1%}] | "
          f"{s['score']:.3f} [{score_low:.3f}, {score_high:.3f}] | {nats} |", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("human", help="the 206 human demonstrations")
    args = parser.parse_args(arguments)
    human = formats.load(args.human, PUSHT)
    few, others = split(human, 20)
    held_out = some_plans(others)
    own, _ = split(demos.own(PUSHT), 20)
    shipped, _ = beyond.load(SHIPPED_POLICY, PUSHT, sampler="ddim", steps=4)
    print("| policy | success | score | -log p |\n|---|---|---|---|")
    with Workers(2) as executor:
        row("shipped", [shipped], held_out, executor)
        row("20 human on top of it", [trained(few, seed, shipped, **SHORT) for seed in range(3)],
            held_out, executor)
        row("20 human alone", [trained(few, seed) for seed in range(3)], held_out, executor)
        people = [trained(human, seed) for seed in range(3)]
        row("206 human", people, None, executor)
        row("20 of minidiff on top of them",
            [trained(own, seed, people[seed], **SHORT) for seed in range(3)], None, executor)
        row("20 of minidiff alone", [trained(own, seed) for seed in range(3)], None, executor)


if __name__ == "__main__":
    main()
