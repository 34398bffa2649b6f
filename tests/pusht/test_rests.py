"""An episode ends at rest where, for its last 48 steps, each decision leads to the same again."""
from minidiff.pusht.study import rests as study
from minidiff.pusht.study.rests import rests

from types import SimpleNamespace

import numpy as np
import pytest

STILL = np.tile([100.0, 200.0, 300.0, 250.0, 1.0], (60, 1))


def moved(row, column, px):
    states = STILL.copy()
    states[row, column] += px
    return states


def round_about(period, px=40.0):
    """The agent goes round in so many steps."""
    angle = 2 * np.pi * np.arange(len(STILL)) / period
    return STILL + px * np.stack([np.cos(angle), np.sin(angle), *np.zeros((3, 60))], 1)


@pytest.mark.parametrize("states, expected", [
    (STILL, True), (STILL[:49], True), (STILL[:48], False),
    (moved(30, 0, 1.9), True), (moved(30, 1, 2.1), False), (moved(30, 0, -2.1), False),
    (moved(30, 2, 0.9), True), (moved(30, 2, 1.1), False), (moved(30, 3, 1.1), False),
    (moved([17, 21, 45, 53], 0, 1.5) + moved(37, 0, -1.5) - STILL, True),
    (moved(12, 0, 2.1), False), (moved(11, 0, 50), True),
    (round_about(4), True), (round_about(8), True), (round_about(16), False),
    (STILL + 0.1 * np.arange(60)[:, None], False)],
    ids="still,48 steps,47 steps,agent a little,agent,agent back,block a little,block,block across,"
        "apart,48 steps ago,before,one decision,two,four,drift".split(","))
def test_an_episode_ends_at_rest(states, expected):
    assert rests(states) is expected


def test_a_decision_is_as_long_as_the_policy_says():
    assert rests(round_about(3), 3) and rests(round_about(6), 3) and not rests(round_about(4), 3)
    assert rests(STILL, 24) and not rests(STILL, 25)


def test_the_resting_episodes_are_unsolved_and_in_order(monkeypatch):
    """Seeds in chunks of two; odd ones rest, of which 3 is solved."""
    def rollout(policy, seeds, record):
        assert policy.action_horizon == 7 and record and len(seeds) <= 2
        episodes = [SimpleNamespace(seed=seed, success=seed == 3) for seed in seeds]
        return episodes, [np.full((2, 5), seed) for seed in seeds]

    monkeypatch.setattr(study, "CHUNK", 2)
    monkeypatch.setattr(study, "rollout", rollout)
    monkeypatch.setattr(study, "rests", lambda states, every: every == 7 and states[0, 0] % 2 == 1)
    found = list(study.resting(SimpleNamespace(action_horizon=7), range(1, 8)))
    assert [(episode.seed, states[0, 0]) for episode, states in found] == [(1, 1), (5, 5), (7, 7)]
