"""The estimate of the state: right where nothing is wrong, and closer than what is measured."""
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.estimate import EstimatingEnv
from minidiff.pusht.study.disturbances import DisturbedEnv
from minidiff.scoring.rollout import rollout

import copy
from functools import partial

import numpy as np
import pytest

UNITS = np.array([1, 1, 1, 1, 1 / 60])


def pushes(env, seed, steps):
    """Push towards the block's centre; yields what the world shows and the true states after."""
    state, _ = env.reset(seed=seed)
    truth = env.env.state
    yield state, truth
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        state = env.step(env.env.state[2:4] + rng.normal(0, 40, 2))[0]
        yield state, env.env.state


def errors(noise, seed, steps=60, **disturbances):
    """Of the estimates, in px, (steps+1, 5)."""
    env = EstimatingEnv(partial(DisturbedEnv, obs_noise=noise, **disturbances), noise)
    differences = []
    for shown, truth in pushes(env, seed, steps):
        difference = shown - truth
        difference[4] = np.angle(np.exp(1j * difference[4]))
        differences.append(difference / UNITS)
    return np.array(differences)


def test_without_noise_the_estimate_is_the_state():
    assert np.abs(errors(0, 3)).max() < 1e-9


@pytest.mark.parametrize("noise", [2, 4, 8])
def test_the_estimate_is_closer_than_what_is_measured(noise):
    """The agent's by far, as nothing pushes it; the block's less, as it is pushed all the time."""
    late = np.concatenate([errors(noise, seed)[20:] for seed in range(6)])
    rms = np.sqrt((late**2).mean(0))
    assert (rms[:2] < 0.4 * noise).all()
    assert (rms[2:] < 0.8 * noise).all()


def test_ahead_is_the_state_when_the_action_is_carried_out():
    env = EstimatingEnv(partial(DisturbedEnv, action_latency=5))
    shown, truths, ahead, agents = [], [], [], []
    for state, truth in pushes(env, 4, 60):
        shown.append(state)
        truths.append(truth)
        ahead.append(env.motion[[0, 1, 5, 6]])
        agents.append(env.env.motion[[0, 1, 5, 6]])
    np.testing.assert_allclose(ahead[:-5], agents[5:], atol=1e-9)  # its position and velocity
    away = np.array(shown[:-5]) - np.array(truths[5:])
    away[:, 4] = np.angle(np.exp(1j * away[:, 4]))
    assert len(env.waiting) == 0 and len(env.env.waiting) == 5
    assert np.median(np.abs(away / UNITS).max(1)) < 0.5
    assert np.abs(np.array(shown[:-5]) - np.array(truths[:-5]))[:, :2].max() > 10


def test_a_kick_starts_a_new_estimate():
    """At most a few steps after it the estimate is no farther off than a measurement."""
    away = errors(2, 5, 80, kick_block=(60.0, 45.0), kick_agent=60.0)
    assert np.abs(away).max(1)[70:].max() < 5 * 2
    assert np.abs(away[:, :4]).max() < 5 * 2 + 1 + 5 * 2


def test_what_it_does_not_know_is_the_worlds():
    env = EstimatingEnv(partial(DisturbedEnv, action_latency=2, max_steps=7))
    env.reset(seed=1)
    assert env.max_steps == 7 and env.action_latency == 2
    with pytest.raises(AttributeError):
        env.nothing_of_this_name  # noqa: B018
    again = copy.deepcopy(env)
    action = np.array([200.0, 300.0])
    assert np.array_equal(again.step(action)[0], env.step(action)[0])


def test_an_undisturbed_episode_is_nearly_the_same(tiny_policy):
    """Steps and score do not depend on the estimate where there is nothing to estimate."""
    policy = tiny_policy()
    world = partial(PushTEnv, max_steps=12)
    plain, states = rollout(policy, [1, 2], make_env=world, record=True)
    same, shown = rollout(policy, [1, 2], make_env=partial(EstimatingEnv, world), record=True)
    assert [e.steps for e in same] == [e.steps for e in plain]
    np.testing.assert_allclose(shown, states, atol=0.5)


def test_one_correction_by_hand():
    """By 1/count of the difference, the block's by 1/10 at least; what jumped starts anew."""
    env = EstimatingEnv(DisturbedEnv, 4.0)
    state = np.array([100.0, 100, 256, 256, 0.001])

    def corrected(change, count=9):
        env.reset(options={"state": state, "order": "exact"})
        assert env.counts == {"agent": 1, "block": 1}
        env.counts = {"agent": count, "block": count}
        env.correct(state + change)
        return env.motion[:5] - state

    change = np.array([1, 2, 3, 4, 0.01])
    np.testing.assert_allclose(corrected(change), change / 10, atol=1e-9)
    np.testing.assert_allclose(corrected([1, 0, 1, 0, 0], 99), [0.01, 0, 0.1, 0, 0], atol=1e-9)
    corrected([0, 0, 0, 0, 2 * np.pi - 0.01])
    assert env.counts == {"agent": 10, "block": 10}
    np.testing.assert_allclose(corrected([1, 0, 0, 0, 1.0]), [0.1, 0, 0, 0, 1], atol=1e-9)
    assert env.counts == {"agent": 10, "block": 1}
    np.testing.assert_allclose(corrected([90, 0, 1, 0, 0]), [90, 0, 0.1, 0, 0], atol=1e-9)
    assert env.counts == {"agent": 1, "block": 10}
    for px, count in ((20.9, 10), (21.1, 1)):  # five times the noise, and 1 px
        corrected([px, 0, 0, 0, 0])
        assert env.counts["agent"] == count


def test_without_noise_a_measurement_is_believed():
    env = EstimatingEnv(DisturbedEnv)
    state, _ = env.reset(seed=3)
    env.counts = {"agent": 50, "block": 50}
    env.correct(state + 0.5 * UNITS)
    np.testing.assert_allclose(env.motion[:5], state + 0.5 * UNITS, atol=1e-9)
