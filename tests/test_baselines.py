"""The baselines: regression learns the mean plan, a mixture learns each mode, shooting nothing."""
from minidiff.beyond import OBJECTIVES, SAMPLERS, baselines
from minidiff.beyond.baselines import mixture_loss, mse_loss, network_output
from minidiff.nn import EMBEDDING
from minidiff.optim import AdamW, flat_gradient
from minidiff.tensor import Tape
from minidiff.training import build

import dataclasses
from types import SimpleNamespace

import laws
import numpy as np
import pytest
from conftest import CONFIG
from hypothesis import given
from hypothesis import strategies as st
from laws import log_normal

COND = 3


def make(outputs=1):
    """-> schedule, eps_theta on chunks (8, 2) with three features, its weights off their start."""
    config = dataclasses.replace(CONFIG, outputs=outputs)
    schedule, eps_theta = build(config, 2, COND, np.random.default_rng(0))
    theta = eps_theta.net.theta
    theta += np.random.default_rng(0).normal(0, 0.1, theta.size).astype(np.float32)
    return schedule, eps_theta


def train(loss, eps_theta, x0, steps):
    """steps of AdamW on one batch x0, for cond = 0 -> the last loss."""
    optimiser = AdamW(eps_theta.net.theta)
    cond = np.zeros((len(x0), COND), np.float32)
    for _ in range(steps):
        with Tape() as tape:
            value = loss(None, eps_theta, x0, None, None, cond)
        tape.backward(value)
        optimiser.step(flat_gradient(eps_theta.net.params), 3e-3)
    return float(value.data)


# ---- regression ----------------------------------------------------------------------------------

@given(st.integers(1, 5), st.integers(0, 2**32))
def test_the_loss_is_the_mean_squared_distance_from_the_output(batch, seed):
    rng = np.random.default_rng(seed)
    _, eps_theta = make()
    x0 = rng.standard_normal((batch, 8, 2), np.float32)
    cond = rng.standard_normal((batch, COND), np.float32)
    output = network_output(eps_theta, (8, 2), cond)
    assert output.shape == x0.shape
    loss = mse_loss(None, eps_theta, x0, None, None, cond)
    np.testing.assert_allclose(loss, ((output - x0) ** 2).mean(), rtol=1e-5)


def test_the_network_is_shown_no_noise_at_time_0():
    _, eps_theta = make()
    cond = np.random.default_rng(1).standard_normal((4, COND), np.float32)
    nothing = np.zeros((4, 8, 2), np.float32)
    expected = eps_theta.net(nothing, np.repeat(eps_theta.embedding[:1], 4, 0), cond)
    output = network_output(eps_theta, (8, 2), cond)
    np.testing.assert_array_equal(output, expected)


def test_a_regressed_plan_comes_from_cond_alone_and_keeps_within_the_clip():
    schedule, eps_theta = make()
    rng = np.random.default_rng(1)
    cond = rng.standard_normal((4, COND), np.float32)

    def plan(clip):
        x_T = rng.standard_normal((4, 8, 2), np.float32)
        x0, = baselines.regression(schedule, eps_theta, x_T, cond, rng, clip)
        return x0

    first, again, clipped = plan(None), plan(None), plan(0.1)
    np.testing.assert_array_equal(first, network_output(eps_theta, (8, 2), cond))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(clipped, np.clip(first, -0.1, 0.1))
    assert np.abs(first).max() > 0.1 and np.abs(first[0] - first[1]).max() > 0.01


def test_of_two_equally_frequent_plans_a_regression_learns_the_middle():
    """The mean of a target that is 1 or -1, half and half, is 0. Diffusion is to avoid that."""
    _, eps_theta = make()
    x0 = np.ones((64, 8, 2), np.float32)
    x0[::2] = -1
    loss = train(mse_loss, eps_theta, x0, 150)
    output = network_output(eps_theta, (8, 2), np.zeros((1, COND), np.float32))
    assert np.abs(output).max() < 0.02
    assert abs(loss - 1) < 0.01


# ---- two steps -----------------------------------------------------------------------------------

def test_of_mip_half_a_batch_learns_either_step():
    """Rows 0 and 2 see nothing at step 0, 1 and 3 see 0.9 x_0 + 0.1 eps at step 1; the loss is the
    mean over all. The network here shows what it is given."""
    rng = np.random.default_rng(0)
    x0, eps = rng.standard_normal((2, 4, 8, 2), np.float32)
    cond = rng.standard_normal((4, COND), np.float32)
    seen = []

    def net(x, embedding, cond):
        seen.append((x, embedding, cond))
        return x

    eps_theta = SimpleNamespace(net=net, embedding=np.float32([[0], [1], [2]]))
    loss = baselines.mip_loss(None, eps_theta, x0, None, eps, cond)
    (x, embedding, given_cond), = seen
    expected = 0.9 * x0 + 0.1 * eps
    expected[::2] = 0
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(embedding, [[0], [1], [0], [1]])
    assert given_cond is cond and loss == pytest.approx(((x0 - expected) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0])
def test_mip_improves_its_first_answer_with_or_without_noise(spread):
    schedule, eps_theta = make()
    rng = np.random.default_rng(1)
    x_T = rng.standard_normal((4, 8, 2), np.float32)
    cond = rng.standard_normal((4, COND), np.float32)
    first, last = baselines.mip(schedule, eps_theta, x_T, cond, rng, spread=spread)
    np.testing.assert_array_equal(first, network_output(eps_theta, (8, 2), cond))
    x = np.float32(0.9) * first + np.float32(spread * 0.1) * x_T
    expected = eps_theta.net(x, np.repeat(eps_theta.embedding[1:2], 4, 0), cond)
    np.testing.assert_allclose(last, expected, atol=1e-5)


def test_mip_draws_nothing_unless_asked():
    schedule, eps_theta = make()
    cond = np.ones((2, COND), np.float32)
    plans = [list(baselines.mip(schedule, eps_theta, x_T, cond, None))[-1]
             for x_T in np.random.default_rng(0).standard_normal((2, 2, 8, 2), np.float32)]
    np.testing.assert_array_equal(*plans)


# ---- candidates of a regression, and no learning at all ------------------------------------------

def test_spread_moves_a_whole_plan_by_one_offset():
    schedule, eps_theta = make()
    cond = np.zeros((500, COND), np.float32)
    x_T = np.zeros((500, 8, 2), np.float32)

    def plan(spread):
        rng = np.random.default_rng(0)
        return next(baselines.regression(schedule, eps_theta, x_T, cond, rng, spread=spread))

    offset = plan(0.5) - plan(0.0)
    assert np.ptp(offset, axis=1).max() < 1e-6
    assert offset[:, 0].std() == pytest.approx(0.5, abs=0.05)


def test_shooting_goes_straight_within_the_clip_and_asks_no_network():
    x_T = np.random.default_rng(0).standard_normal((3, 8, 2))
    x0, = baselines.shooting(None, None, x_T, None, None)
    assert (x0 == x_T[:, :1]).all() and x0.shape == x_T.shape
    clipped, = baselines.shooting(None, None, x_T, None, None, clip=0.5)
    assert (clipped == np.clip(x0, -0.5, 0.5)).all() and (clipped != x0).any()


# ---- the mixture ---------------------------------------------------------------------------------

def mixture_network():
    return make(OBJECTIVES["mixture"].outputs)


def test_log_sum_exp_does_not_overflow_in_rows_far_apart():
    a = np.array([[0.0, 1.0], [1000.0, 1001.0], [-1000.0, -999.0]])
    expected = np.log(1 + np.e) + a[:, :1]
    assert baselines.log_sum_exp(a) == pytest.approx(expected, rel=1e-12)


def test_weights_and_spreads_are_averages_over_the_plan():
    """log w less its log-sum-exp, log s from -5 to 5; both bounds are far exceeded here."""
    _, eps_theta = mixture_network()
    eps_theta.net.theta *= 8
    cond = np.random.default_rng(0).normal(0, 9, (300, COND)).astype(np.float32)
    parts = baselines.mixture_parts(eps_theta, (8, 2), cond)
    output = network_output(eps_theta, (8, 2), cond).astype(np.float64)
    mu, logit, log_s = output.reshape(300, 8, 3, baselines.COMPONENTS, 2).transpose(2, 0, 1, 3, 4)
    logit, log_s = logit.mean((1, 3)), log_s.mean((1, 3))
    assert log_s.min() < -5 and log_s.max() > 5
    expected = mu, logit - np.log(np.exp(logit).sum(1, keepdims=True)), np.clip(log_s, -5, 5)
    for part, value in zip(parts, expected):
        np.testing.assert_allclose(part, value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_loss_of_a_mixture_is_its_negative_log_density(batch):
    rng = np.random.default_rng(0)
    _, eps_theta = mixture_network()
    x0 = rng.standard_normal((batch, 8, 2), np.float32)
    cond = rng.standard_normal((batch, COND), np.float32)
    parts = baselines.mixture_parts(eps_theta, (8, 2), cond)
    mu, log_w, log_s = (part.astype(float) for part in parts)
    assert mu.shape == (batch, 8, baselines.COMPONENTS, 2)
    assert np.exp(log_w).sum(1) == pytest.approx(1, abs=1e-6)
    density = np.zeros(batch)
    for b in range(batch):
        for k in range(baselines.COMPONENTS):
            log_p = log_normal(x0[b], mu[b, :, k], np.exp(2 * log_s[b, k])).sum()
            density[b] += np.exp(log_w[b, k] + log_p)
    expected = -np.log(density).mean() / 16 - 0.5 * np.log(2 * np.pi)
    loss = mixture_loss(None, eps_theta, x0, None, None, cond)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_log_weights_of_a_mixture_neither_overflow_nor_vanish():
    K = baselines.COMPONENTS
    logit = 1000.0 - 200 * np.arange(K)  # e^1000 and e^-200 are no float32
    F = np.zeros((1, 8, 3, K, 2), np.float32)
    F[:, :, 1] = logit[:, None]
    fixed = SimpleNamespace(embedding=np.zeros((1, EMBEDDING), np.float32),
                            net=lambda x, embedding, cond: F.reshape(1, 8, -1))
    _, log_w, _ = baselines.mixture_parts(fixed, (8, 2), np.zeros((1, COND), np.float32))
    assert log_w[0] == pytest.approx(logit - 1000, abs=1e-3)


def test_a_mixture_learns_both_of_two_plans_and_samples_each_by_its_share():
    """1 in a quarter of the cases, -1 in the rest: a regression would learn -0.5."""
    schedule, eps_theta = mixture_network()
    x0 = np.where(np.arange(64) % 4 == 0, 1, -1)[:, None, None] * np.ones((64, 8, 2), np.float32)
    x0 += 0.05 * np.random.default_rng(1).standard_normal(x0.shape, np.float32)
    train(mixture_loss, eps_theta, x0, 400)
    rng = np.random.default_rng(2)
    n = 4000
    x_T = rng.standard_normal((n, 8, 2), np.float32)
    plan, = baselines.mixture(schedule, eps_theta, x_T, np.zeros((n, COND), np.float32), rng)
    # now and then a component that learned neither is sampled
    assert (np.abs(np.abs(plan) - 1).max((1, 2)) < 0.1).mean() > 0.99
    share = (plan[:, 0, 0] > 0).mean()
    laws.assert_close(share, 0.25, np.sqrt(0.25 * 0.75 / n))


def test_the_spread_of_a_mixture_is_a_share_of_the_components_own():
    """The same choice of components from the same noise; x_T is what is added."""
    schedule, eps_theta = mixture_network()
    rng = np.random.default_rng(3)
    x_T = rng.standard_normal((50, 8, 2), np.float32)
    cond = rng.standard_normal((50, COND), np.float32)

    def plan(spread):
        noise = np.random.default_rng(4)
        return next(baselines.mixture(schedule, eps_theta, x_T, cond, noise, spread=spread))

    s = (plan(0.5) - plan(0.0)) / (0.5 * x_T)
    mu, _, log_s = baselines.mixture_parts(eps_theta, (8, 2), cond)
    drawn = np.abs(mu - plan(0.0)[:, :, None]).max((1, 3)).argmin(1)  # whose mean it is
    assert len(set(drawn)) == baselines.COMPONENTS
    assert s.mean((1, 2)) == pytest.approx(np.exp(log_s)[np.arange(50), drawn], abs=1e-3)


@pytest.mark.parametrize("name", ["regression", "mip", "mixture", "shooting"])
def test_plans_of_a_baseline_are_float32_and_clipped(name):
    schedule, eps_theta = mixture_network() if name == "mixture" else make()
    rng = np.random.default_rng(5)
    x_T = rng.standard_normal((4, 8, 2), np.float32)
    cond = np.zeros((4, COND), np.float32)
    for spread in ({}, {} if name == "shooting" else {"spread": 0.3}):
        *steps, x0 = SAMPLERS[name].function(schedule, eps_theta, x_T, cond, rng, clip=0.05,
                                             **spread)
        assert len(steps) == (name == "mip")
        assert x0.dtype == np.float32 and x0.shape == (4, 8, 2)
        assert x0.max() == -x0.min() == np.float32(0.05)
