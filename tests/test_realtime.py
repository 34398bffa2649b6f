"""Real-time chunking: a plan starts with the committed actions, and the rest is sampled to fit."""
from minidiff.beyond import bind
from minidiff.beyond.realtime import Held, check_length, plan_after
from minidiff.demos import frame_of
from minidiff.diffusion import cosine_schedule, p_mean_variance, x0_from_eps
from minidiff.tensor import constant

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import gaussian_denoiser, schedule_and_t

seeds = st.integers(0, 2**32 - 1)
SAMPLERS = {"ancestral": {}, "ddim": {"steps": 3}, "sde": {}, "flow": {"steps": 3},
            "langevin": {}, "pc": {}}


def observations(count, seed=0):
    """(count, 2, 5): two observations each, with the agent away from the block."""
    rng = np.random.default_rng(seed)
    return rng.uniform([60, 60, 200, 200, -3], [150, 450, 300, 300, 3], (count, 2, 5))


@given(schedule_and_t(), seeds)
def test_the_predicted_x0_begins_with_the_given_actions(s_t, seed):
    schedule, t = s_t
    rng = np.random.default_rng(seed)
    given, x_t = rng.standard_normal((3, 2, 2)), rng.standard_normal((3, 5, 2))
    free = gaussian_denoiser(schedule, 0.3, 0.5)
    eps_hat = Held(free, schedule, given)(x_t, t, None)
    x0_hat = x0_from_eps(schedule, x_t, t, eps_hat)
    size = 1e-9 / schedule.signal[t]
    np.testing.assert_allclose(x0_hat[:, :2], given, atol=size)
    np.testing.assert_allclose(eps_hat[:, 2:], free(x_t, t)[:, 2:], atol=size)


def test_a_learned_variance_stays_as_it_is():
    schedule = cosine_schedule(10)
    x_t = np.random.default_rng(0).standard_normal((1, 4, 1))

    class Learned:
        def with_variance(self, x_t, t, cond):
            return 0.1 * x_t, cond / t + 0 * x_t

    held = Held(Learned(), schedule, np.ones((1, 2, 1)))
    eps_hat, v = held.with_variance(x_t, 4, 1.2)
    assert (v == 1.2 / 4).all() and x0_from_eps(schedule, x_t, 4, eps_hat)[0, 0] == pytest.approx(1)
    mean, variance = p_mean_variance(schedule, held, x_t, 4, 1.2, variance="learned")
    assert np.isfinite(constant(mean)).all() and (constant(variance) > 0).all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("d", [1, 4])
def test_every_sampler_ends_with_the_committed_actions(name, d, tiny_policy):
    """Nearly, for those whose last step is not the predicted x_0: sde and flow."""
    policy = tiny_policy(sampler=bind(name, **SAMPLERS[name]), action_horizon=2)
    obs = observations(3)
    committed = obs[:, -1:, :2] + np.linspace(0, 9, d)[None, :, None]
    seen = []
    kept = policy.normaliser.denormalise

    class Spy(type(policy.normaliser)):
        def denormalise(self, x, frame):
            seen.append(kept(x, frame))
            return seen[-1]

    policy.normaliser = Spy(*policy.normaliser)
    plans = plan_after(policy, obs, np.random.default_rng(0), committed, "hold")
    assert plans.shape == (3, 8 - d, 2)
    np.testing.assert_allclose(seen[-1][:, :d], committed,
                               atol=9 if name in ("sde", "flow") else 0.05)  # px
    assert (plans == seen[-1][:, d:]).all()


def test_what_follows_depends_on_what_is_committed_and_on_its_own_alone(tiny_policy):
    policy = tiny_policy(action_horizon=2)
    obs = np.repeat(observations(1), 2, 0)
    committed = np.repeat(obs[:, -1:, :2], 2, 1)
    other = committed + np.array([[[0.0, 0]], [[40.0, 0]]])

    class Same:
        def standard_normal(self, shape, dtype):
            z = np.random.default_rng(1).standard_normal(shape[1:], dtype)
            return np.repeat(z[None], shape[0], 0)

    alike = plan_after(policy, obs, Same(), committed, "hold")
    apart = plan_after(policy, obs, Same(), other, "hold")
    np.testing.assert_allclose(alike[0], alike[1], atol=1e-3)
    np.testing.assert_allclose(apart[0], alike[0], atol=1e-3)
    assert np.abs(apart[1] - alike[1]).max() > 0.01


def test_skipping_leaves_out_the_first_and_ignoring_nothing(tiny_policy):
    policy = tiny_policy(action_horizon=2)
    obs = observations(2)
    committed = np.zeros((2, 3, 2))

    def plan(queue, committed=committed):
        return plan_after(policy, obs, np.random.default_rng(0), committed, queue)

    whole = policy.plan(obs, np.random.default_rng(0))
    assert (plan("ignore") == whole).all()
    assert (plan("skip") == whole[:, 3:]).all()
    assert (plan("hold") != whole[:, 3:]).any()
    for queue in ("hold", "skip", "ignore"):
        assert (plan(queue, committed[:, :0]) == whole).all()
    assert not isinstance(policy.eps_theta, Held) and frame_of(policy.task, obs) is not None


def test_a_plan_too_short_for_the_committed_actions_is_refused(tiny_policy):
    policy = tiny_policy(action_horizon=2)
    check_length(policy, 6)
    with pytest.raises(ValueError, match="a plan of 8 actions is too short: 7 are committed"):
        plan_after(policy, observations(1), np.random.default_rng(0), np.zeros((1, 7, 2)),
                   "hold")
