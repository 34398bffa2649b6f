"""Going on from other weights: 20 demonstrations on top of a policy that learned from others.

    python tests/benchmarks/fine_tuning.py human.npz

human.npz holds the 206 human demonstrations of Diffusion Policy. Of each policy but the shipped
one: three training seeds, 300 episodes each by DDIM in 4 steps, and the exact -log p of plans of
the other 186 human demonstrations (minidiff/pusht/study/bound.py), in nats for each number, in
pixels.
"""
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import beyond, demos, policy, stopping  # noqa: E402
from minidiff.beyond import formats  # noqa: E402
from minidiff.pusht import SHIPPED_POLICY  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.study import bound  # noqa: E402
from minidiff.training import Config  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks.measuring import TRAINING_SEEDS, Sheet, parser, played, trained  # noqa: E402

EPISODES = 300
SHORT = {"steps": 500, "lr": 1e-3}  # of what goes on from other weights


def split(data, count):
    """The first `count` demonstrations, and the others."""
    row = data.episode_ends[count - 1]
    return (demos.Demos(data.state[:row], data.action[:row], data.episode_ends[:count]),
            demos.Demos(data.state[row:], data.action[row:], data.episode_ends[count:] - row))


def planner(data, seed, init=None, **options):
    trainer = trained(Config(seed=seed, **options), PUSHT, data, init=init)
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


def main(arguments):
    options = parser("fine_tuning", __doc__)
    options.add_argument("human", help="the 206 human demonstrations")
    args = options.parse_args(arguments)
    sheet = Sheet(args.json)
    human = formats.load(args.human, PUSHT)
    few, others = split(human, 20)
    held_out = some_plans(others)
    own, _ = split(demos.own(PUSHT), 20)
    shipped, _ = beyond.load(SHIPPED_POLICY, PUSHT, sampler="ddim", steps=4)
    people = [planner(human, seed) for seed in TRAINING_SEEDS]
    policies = {
        "shipped": [shipped],
        "20 human on top of it": [planner(few, k, shipped, **SHORT) for k in TRAINING_SEEDS],
        "20 human alone": [planner(few, k) for k in TRAINING_SEEDS],
        "206 human": people,
        "20 of minidiff on top of them": [planner(own, k, people[k], **SHORT)
                                          for k in TRAINING_SEEDS],
        "20 of minidiff alone": [planner(own, k) for k in TRAINING_SEEDS]}
    for name, planners in policies.items():
        sheet.add(name, [episode for each in planners for episode in played(each, EPISODES)])
    for name in list(policies)[:3]:  # the others know the plans that are held out
        nats = [nats_of(each, *held_out) for each in policies[name]]
        sheet.add(f"nats: {name}", np.mean(nats))


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("fine_tuning", main, sys.argv[1:]))
