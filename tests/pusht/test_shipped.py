"""What comes with minidiff keeps its word: the demonstrations can be lived and made again, the
policy is theirs."""
from minidiff import beyond, checkpoint, demos
from minidiff.pusht import EXPERT_DEMOS, SHIPPED_POLICY
from minidiff.pusht.data import collect
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.scoring import rollout
from minidiff.training import Config, Trainer

import dataclasses
import json

import numpy as np
import pytest
from test_expert import Here


@pytest.fixture(scope="module")
def shipped():
    return demos.read(EXPERT_DEMOS, collect.NAMES)


def test_both_files_are_small():
    assert EXPERT_DEMOS.stat().st_size < 2.5e6 and SHIPPED_POLICY.stat().st_size < 2.5e6


@pytest.mark.slow
def test_shipped_episodes_replay_to_their_recorded_states(shipped):
    """Every third, of those from the seeds' own starts and of those from given ones."""
    env = PushTEnv()
    rounding = np.array([1 / 128] * 4 + [1 / 8192]) + 1e-6  # half of it
    starts = np.r_[0, shipped["episode_ends"]]
    episodes = list(zip(shipped["seed"], shipped["start"], starts, starts[1:]))
    for seed, given, begin, end in episodes[::3]:
        sampled = np.isnan(given).any()
        options = None if sampled else {"state": given, "order": "exact"}
        start, _ = env.reset(seed=int(seed), options=options)
        executed = shipped["action"][begin:end] + shipped["noise"][begin:end]
        states = np.vstack([start, env.simulate(executed[:-1])])
        off = np.abs(states - shipped["state"][begin:end])
        off[:, 4] = np.minimum(off[:, 4], 2 * np.pi - off[:, 4])
        assert (off <= rounding).all(), f"seed {seed}"
        assert env.step(executed[-1])[4]["coverage"] > 0.97, f"seed {seed}"


@pytest.mark.slow
def test_the_shipped_file_is_what_its_recipe_makes(shipped):
    recipe = json.loads(str(shipped["recipe"]))
    versions = recipe.pop("versions")
    rows = np.r_[0, shipped["episode_ends"]]
    last = len(shipped["seed"]) - 3
    for k in (0, last):  # from the seeds' own starts, and from states that a policy visited
        starts = shipped["start"][k:k + 3]
        made = collect.make(shipped["seed"][k:k + 3], Here(), starts=starts, **recipe)
        for name in ("state", "action", "noise"):
            expected = shipped[name][rows[k]:rows[k + 3]]
            assert (made[name] == expected).all(), f"{name}; made with {versions}"


def test_the_shipped_episodes_leave_the_seeds_for_scoring_alone(shipped):
    assert 0 <= shipped["seed"].min() and shipped["seed"].max() < collect.SEED_LIMIT
    assert len(np.unique(shipped["seed"])) == len(shipped["episode_ends"])


@pytest.mark.slow
def test_the_shipped_policy_is_that_of_the_default_command():
    _, meta = checkpoint.load(SHIPPED_POLICY)
    config = Config()
    assert meta["config"] == dataclasses.asdict(config) and meta["update"] == config.steps
    trainer = Trainer(config, PUSHT, demos.load(EXPERT_DEMOS, PUSHT))
    assert meta["demos_sha256"] == trainer.demos_sha256


def test_the_shipped_policy_solves_nearly_every_start():
    policy, _ = beyond.load(SHIPPED_POLICY, PUSHT, sampler="ddim", steps=4)
    episodes = rollout.rollout(policy, range(8000, 8050))
    assert len([episode for episode in episodes if episode.success]) >= 49
