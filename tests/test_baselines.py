"""The baselines: regression learns the conditional mean, a mixture learns each answer, shooting learns nothing."""
import numpy as np
import pytest
from conftest import CONFIG
from hypothesis import given
from hypothesis import strategies as st
from laws import log_normal

from minidiff import policy
from minidiff.beyond.baselines import (COMPONENTS, answer, mixture, mixture_loss, mixture_parts, mse_loss, regression,
                                shooting)
from minidiff.optim import AdamW, flat_gradient
from minidiff.pusht.features import PUSHT
from minidiff.tensor import Tape, Tensor

COND = 3


def make(seed=0):
    """-> schedule, eps_theta on chunks of (8, 2) with three features, its weights away from their start."""
    schedule, eps_theta = policy.build(CONFIG, PUSHT, COND, np.random.default_rng(seed))
    eps_theta.net.theta += np.random.default_rng(seed).normal(0, 0.1, eps_theta.net.theta.size).astype(np.float32)
    return schedule, eps_theta


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_the_loss_is_the_mean_squared_distance_from_the_answer(batch, seed):
    rng, (_, eps_theta) = np.random.default_rng(seed), make()
    x0, cond = rng.standard_normal((batch, 8, 2), np.float32), rng.standard_normal((batch, COND), np.float32)
    said = answer(eps_theta, (8, 2), cond).data
    assert said.shape == x0.shape
    np.testing.assert_allclose(mse_loss(eps_theta, x0, cond).data, ((said - x0) ** 2).mean(), rtol=1e-5)


def test_the_network_is_shown_no_noise_at_time_0():
    _, eps_theta = make()
    cond = np.random.default_rng(1).standard_normal((4, COND), np.float32)
    shown = eps_theta.net(Tensor(np.zeros((4, 8, 2), np.float32)), np.repeat(eps_theta.embedding[:1], 4, 0), cond)
    np.testing.assert_array_equal(answer(eps_theta, (8, 2), cond).data, shown.data)


def test_the_answer_comes_from_cond_alone_and_keeps_within_the_clip():
    schedule, eps_theta = make()
    rng = np.random.default_rng(1)
    cond = rng.standard_normal((4, COND), np.float32)
    plans = [next(regression(schedule, eps_theta, rng.standard_normal((4, 8, 2), np.float32), cond, rng, clip))
             for clip in (None, None, 0.1)]
    np.testing.assert_array_equal(plans[0], plans[1])
    np.testing.assert_array_equal(plans[2], np.clip(plans[0], -0.1, 0.1))
    assert np.abs(plans[0]).max() > 0.1 and np.abs(plans[0][0] - plans[0][1]).max() > 0.01


def test_of_two_equally_frequent_answers_it_learns_the_middle():
    """The mean of a target that is 1 or -1, half and half, is 0: what diffusion is meant to avoid."""
    _, eps_theta = make()
    optimiser = AdamW(eps_theta.net.theta)
    cond = np.zeros((64, COND), np.float32)
    x0 = np.ones((64, 8, 2), np.float32)
    x0[::2] = -1
    for _ in range(150):
        with Tape() as tape:
            loss = mse_loss(eps_theta, x0, cond)
        tape.backward(loss)
        optimiser.step(flat_gradient(eps_theta.net.params), 3e-3)
    assert np.abs(answer(eps_theta, (8, 2), cond[:1]).data).max() < 0.02
    assert abs(float(loss.data) - 1) < 0.01


# ---- candidates of a regression, and no learning at all -------------------------------------------------------------

def test_spread_moves_a_whole_plan_by_one_offset():
    schedule, eps_theta = make()
    cond = np.zeros((500, COND), np.float32)
    plain, moved = (next(regression(schedule, eps_theta, np.zeros((500, 8, 2), np.float32), cond, np.random.default_rng(0),
                                    spread=spread)) for spread in (0.0, 0.5))
    offset = moved - plain
    assert np.ptp(offset, axis=1).max() < 1e-6 and offset[:, 0].std() == pytest.approx(0.5, abs=0.05)


def test_shooting_goes_straight_and_asks_no_network():
    x_T = np.random.default_rng(0).standard_normal((3, 8, 2))
    x0, = shooting(None, None, x_T, None, None)
    assert (x0 == x_T[:, :1]).all() and x0.shape == x_T.shape


# ---- the mixture ----------------------------------------------------------------------------------------------------

def mixture_network():
    schedule, eps_theta = policy.build(CONFIG | {"objective": "mixture"}, PUSHT, COND, np.random.default_rng(0))
    eps_theta.net.theta += np.random.default_rng(0).normal(0, 0.1, eps_theta.net.theta.size).astype(np.float32)
    return schedule, eps_theta


def test_the_loss_of_a_mixture_is_its_negative_log_density():
    rng, (_, eps_theta) = np.random.default_rng(0), mixture_network()
    x0, cond = rng.standard_normal((4, 8, 2), np.float32), rng.standard_normal((4, COND), np.float32)
    mu, log_w, log_s = (part.data.astype(float) for part in mixture_parts(eps_theta, (8, 2), cond))
    assert mu.shape == (4, 8, COMPONENTS, 2) and np.exp(log_w).sum(1) == pytest.approx(1, abs=1e-6)
    density = [sum(np.exp(log_w[b, k] + log_normal(x0[b], mu[b, :, k], np.exp(2 * log_s[b, k])).sum())
                   for k in range(COMPONENTS)) for b in range(4)]
    expected = -np.log(density).mean() / 16 - 0.5 * np.log(2 * np.pi)
    assert float(mixture_loss(eps_theta, x0, cond).data) == pytest.approx(expected, rel=1e-5)


def test_a_mixture_learns_both_of_two_answers_and_draws_them_by_their_share():
    """1 in a quarter of the cases, -1 in the rest: where regression says the mean, -0.5. 4,000 draws: the share within 6
    standard errors (0.041), a false alarm of 2e-9."""
    schedule, eps_theta = mixture_network()
    optimiser, cond = AdamW(eps_theta.net.theta), np.zeros((64, COND), np.float32)
    x0 = np.where(np.arange(64) % 4 == 0, 1, -1)[:, None, None] * np.ones((64, 8, 2), np.float32)
    x0 += 0.05 * np.random.default_rng(1).standard_normal(x0.shape, np.float32)
    for _ in range(400):
        with Tape() as tape:
            loss = mixture_loss(eps_theta, x0, cond)
        tape.backward(loss)
        optimiser.step(flat_gradient(eps_theta.net.params), 3e-3)
    rng, n = np.random.default_rng(2), 4000
    plan, = mixture(schedule, eps_theta, rng.standard_normal((n, 8, 2), np.float32), np.zeros((n, COND), np.float32), rng)
    assert (np.abs(np.abs(plan) - 1).max((1, 2)) < 0.1).mean() > 0.99  # now and then a component without a task is drawn
    assert (plan[:, 0, 0] > 0).mean() == pytest.approx(0.25, abs=6 * np.sqrt(0.25 * 0.75 / n))
