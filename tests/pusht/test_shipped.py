"""What comes with minidiff keeps its word: the demonstrations can be lived and made again, the policy is theirs."""
import dataclasses
import hashlib
import json

import numpy as np
import pytest
from test_expert import Here

import train
from minidiff import checkpoint, demos, policy
from minidiff.pusht import EXPERT_DEMOS, SHIPPED_POLICY, collect, rollout
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT


@pytest.fixture(scope="module")
def shipped():
    with np.load(EXPERT_DEMOS, allow_pickle=False) as file:
        return dict(file)


def test_both_files_are_small():
    assert EXPERT_DEMOS.stat().st_size < 2.5e6 and SHIPPED_POLICY.stat().st_size < 2.5e6


@pytest.mark.slow
def test_every_shipped_episode_replays_to_its_recorded_states(shipped):
    env, starts = PushTEnv(), np.r_[0, shipped["episode_ends"]]
    for seed, given, begin, end in zip(shipped["seed"], shipped["start"], starts, starts[1:]):
        drawn = np.isnan(given).any()
        start, info = env.reset(seed=int(seed), options=None if drawn else {"state": given, "order": "exact"})
        carried_out = shipped["action"][begin:end] + shipped["noise"][begin:end]
        states = np.vstack([start, env.simulate(carried_out[:-1])])
        off = np.abs(states - shipped["state"][begin:end])
        off[:, 4] = np.minimum(off[:, 4], 2 * np.pi - off[:, 4])
        assert (off <= np.array([1 / 128] * 4 + [1 / 8192]) + 1e-6).all(), f"seed {seed}"  # half the rounding
        assert env.step(carried_out[-1])[4]["coverage"] > 0.97, f"seed {seed}"


@pytest.mark.slow
def test_the_shipped_file_is_what_its_recipe_makes(shipped):
    recipe = json.loads(str(shipped["recipe"]))
    options = {name: value for name, value in recipe.items() if name != "versions"}
    starts = np.r_[0, shipped["episode_ends"]]
    for k in (0, len(shipped["seed"]) - 3):  # from the seeds' own starts, and from states that a policy visited
        made = collect.make(shipped["seed"][k:k + 3], Here(), starts=shipped["start"][k:k + 3], **options)
        for name in ("state", "action", "noise"):
            assert (made[name] == shipped[name][starts[k]:starts[k + 3]]).all(), f"{name}; made with {recipe['versions']}"


def test_the_shipped_episodes_leave_the_seeds_for_scoring_alone(shipped):
    assert 0 <= shipped["seed"].min() and shipped["seed"].max() < collect.SEED_LIMIT
    assert len(np.unique(shipped["seed"])) == len(shipped["episode_ends"])


def test_the_shipped_policy_is_that_of_the_default_command():
    _, meta = checkpoint.load(SHIPPED_POLICY)
    config = train.Config()
    config.width = 256
    assert meta["config"] == dataclasses.asdict(config) and meta["update"] == config.steps
    data = demos.load(EXPERT_DEMOS, PUSHT)
    assert meta["demos_sha256"] == hashlib.sha256(b"".join(array.tobytes() for array in data)).hexdigest()


def test_the_shipped_policy_solves_nearly_every_start():
    shipped_policy, _ = policy.load(SHIPPED_POLICY, PUSHT, sampler="ddim", steps=4)
    episodes = rollout.rollout(shipped_policy, range(8000, 8050))
    assert sum(episode.success for episode in episodes) >= 49
