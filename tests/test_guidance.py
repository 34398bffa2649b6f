"""Steering: each way on a law whose conditional is known in closed form."""
from minidiff import diffusion
from minidiff import tensor as tn
from minidiff.beyond.guidance import ClassifierFree, CostGuided, inpainting
from minidiff.diffusion import ancestral_sampling, cosine_schedule, p_mean_variance
from minidiff.nn import MLP, Denoiser

import functools
from types import SimpleNamespace

import laws
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import gaussian_denoiser, log_normal, numbers, one, schedule_and_t, spreads

scales = st.floats(-1, 4)
COND = np.ones((1, 1))


def conditional_denoiser(schedule, m, slope, s, s_without):
    """x_0 ~ N(m + slope cond, s^2), and N(m, s_without^2) for cond = 0. cond: (B, 1)."""
    def eps_theta(x_t, t, cond):
        spread = np.where(cond == 0, s_without, s)[:, :, None]
        return gaussian_denoiser(schedule, m + slope * cond[:, :, None], spread)(x_t, t)
    return eps_theta


# ---- classifier-free -----------------------------------------------------------------------------

@given(schedule_and_t(), numbers, numbers, spreads, scales, numbers)
def test_classifier_free_guidance_aims_beyond_the_conditional_mean(s_t, m, slope, s, scale, x_t):
    """With equal spreads the guided law is N(m + (1 + scale) slope cond, s^2), at every t."""
    schedule, t = s_t
    guided = ClassifierFree(conditional_denoiser(schedule, m, slope, s, s), scale)
    expected = gaussian_denoiser(schedule, m + (1 + scale) * slope, s)(one(x_t), t)
    eps_hat = guided(one(x_t), t, COND)
    assert eps_hat == pytest.approx(expected, abs=1e-10 * (1 + abs(scale)))


@given(schedule_and_t(), spreads, spreads, scales, numbers)
def test_classifier_free_guidance_is_a_product_of_powers_of_densities(
        s_t, s, s_without, scale, x_t):
    """-eps/sqrt(1-alpha_bar_t) = d/dx [(1 + scale) log q(x_t | cond) - scale log q(x_t)].

    By complex step.
    """
    schedule, t = s_t
    ab = schedule.alpha_bar[t]
    x = one(x_t) + 1e-30j
    given_cond = log_normal(x, np.sqrt(ab) * 0.7, ab * s**2 + 1 - ab)
    without = log_normal(x, np.sqrt(ab) * 0.2, ab * s_without**2 + 1 - ab)
    slope = ((1 + scale) * given_cond - scale * without).imag / 1e-30
    guided = ClassifierFree(conditional_denoiser(schedule, 0.2, 0.5, s, s_without), scale)
    eps_hat = guided(one(x_t), t, COND)
    assert -eps_hat / np.sqrt(1 - ab) == pytest.approx(slope, rel=1e-8, abs=1e-8)


@given(schedule_and_t(), numbers)
def test_scale_0_changes_nothing_and_scale_minus_1_forgets_what_is_given(s_t, x_t):
    schedule, t = s_t
    eps_theta = conditional_denoiser(schedule, 0.3, 0.9, 0.4, 0.6)
    same = ClassifierFree(eps_theta, 0)(one(x_t), t, COND)
    forgetful = ClassifierFree(eps_theta, -1)(one(x_t), t, COND)
    assert same == eps_theta(one(x_t), t, COND)
    assert forgetful == pytest.approx(eps_theta(one(x_t), t, 0 * COND))


def test_a_feature_that_is_0_stays_a_number():
    guided = ClassifierFree(lambda x_t, t, cond: cond, 0.5)
    assert guided(one(0), 1, np.array([0.0, 2.0])).tolist() == [0, 3]


# ---- a cost --------------------------------------------------------------------------------------

@given(schedule_and_t(), numbers, spreads, numbers, st.floats(0, 3), numbers)
def test_a_linear_cost_tilts_a_gaussian_exactly(s_t, m, s, a, scale, x_t):
    """N(m, s^2) exp(-scale a x_0), normalised, is N(m - scale a s^2, s^2).

    The guided eps is its ideal one at every t.
    """
    schedule, t = s_t
    guided = CostGuided(schedule, gaussian_denoiser(schedule, m, s), lambda x0: x0 * a, scale)
    expected = gaussian_denoiser(schedule, m - scale * a * s**2, s)(one(x_t), t)
    eps_hat = guided(one(x_t), t, None)
    assert eps_hat == pytest.approx(expected, abs=1e-9 * (1 + abs(scale * a)))


@given(schedule_and_t(), numbers, spreads, st.floats(0, 3), numbers)
def test_any_cost_is_followed_down_its_gradient_through_the_denoiser(s_t, m, s, scale, x_t):
    """eps = eps_theta + sqrt(1-alpha_bar) scale d cost(x_0(x_t))/dx_t, by complex step."""
    schedule, t = s_t
    ideal = gaussian_denoiser(schedule, m, s)

    def cost(x0):
        return x0 * x0 * x0 + tn.exp(x0 * 0.3)

    x = one(x_t) + 1e-30j
    x0_hat = diffusion.x0_from_eps(schedule, x, t, ideal(x, t))
    slope = cost(x0_hat).imag / 1e-30
    expected = ideal(one(x_t), t) + np.sqrt(1 - schedule.alpha_bar[t]) * scale * slope
    eps_hat = CostGuided(schedule, ideal, cost, scale)(one(x_t), t, None)
    assert eps_hat == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_cost_counts_as_it_is_by_default():
    schedule = cosine_schedule(10)
    ideal = gaussian_denoiser(schedule, 0.2, 0.5)
    outcomes = [CostGuided(schedule, ideal, lambda x0: x0, *scale)(one(0.3), 5, None)
                for scale in ([], [1])]
    assert outcomes[0] == outcomes[1]


def test_samples_of_one_batch_are_steered_each_by_its_own_cost():
    schedule = cosine_schedule(20)
    x_t = one([-1.0, 0.5, 2.0])
    guided = CostGuided(schedule, gaussian_denoiser(schedule, 0.1, 0.5), lambda x0: x0 * x0)
    alone = [guided(x[None], 7, None) for x in x_t]
    assert guided(x_t, 7, None) == pytest.approx(np.concatenate(alone), rel=1e-12)


# ---- with a learned variance ---------------------------------------------------------------------

def learned_denoiser(schedule):
    """A network in float64 that predicts noise and variance, its weights away from their start."""
    rng = np.random.default_rng(0)
    net = MLP((4, 2), 3, rng, width=16, blocks=1, outputs=2)
    net.theta += 0.3 * rng.standard_normal(net.theta.size)
    for param in net.params.values():
        param.data = param.data.astype(np.float64)
    return Denoiser(net, schedule.alpha_bar, learned=True)


def guided_both_ways(schedule, eps_theta):
    def cost(x0):
        return x0 * x0

    return [ClassifierFree(eps_theta, 1.5), CostGuided(schedule, eps_theta, cost, 0.5)]


def test_guidance_moves_the_mean_and_leaves_the_learned_variance():
    schedule = cosine_schedule(8)
    eps_theta = learned_denoiser(schedule)
    rng = np.random.default_rng(1)
    x_t = rng.standard_normal((5, 4, 2))
    cond = rng.standard_normal((5, 3))
    for t in (1, 4, 8):
        plain_mean, plain_variance = p_mean_variance(schedule, eps_theta, x_t, t, cond, "learned")
        for guided in guided_both_ways(schedule, eps_theta):
            eps_hat, v = guided.with_variance(x_t, t, cond)
            assert np.array_equal(eps_hat, guided(x_t, t, cond))
            assert np.array_equal(v, eps_theta.with_variance(x_t, t, cond)[1])
            mean, variance = p_mean_variance(schedule, guided, x_t, t, cond, "learned")
            eps_hat = guided(x_t, t, cond)
            expected = diffusion.mean_from_eps(schedule, eps_hat, x_t, t)
            assert np.array_equal(mean, expected) and np.abs(mean - plain_mean).max() > 1e-3
            assert np.array_equal(variance, plain_variance)


def test_a_whole_chain_with_a_learned_variance_is_guided():
    """The same noise with and without: at scale 0 the same x_0, above it another."""
    schedule = cosine_schedule(8)
    eps_theta = learned_denoiser(schedule)
    x_T = np.random.default_rng(1).standard_normal((5, 4, 2))
    cond = np.random.default_rng(2).standard_normal((5, 3))

    def x_0(eps_theta):
        *_, x = ancestral_sampling(schedule, eps_theta, x_T, cond, np.random.default_rng(3),
                                   variance="learned", clip=4.0)
        return x

    plain = x_0(eps_theta)
    assert x_0(ClassifierFree(eps_theta, 0)) == pytest.approx(plain, abs=1e-12)
    for guided in guided_both_ways(schedule, eps_theta):
        steered = x_0(guided)
        assert np.isfinite(steered).all() and np.abs(steered - plain).max() > 1e-2


# ---- inpainting ----------------------------------------------------------------------------------

def pair_denoiser(schedule, mean, covariance):
    """eps* for two numbers with a joint Gaussian law. x: (B, 1, 2)."""
    def eps_theta(x_t, t, cond=None):
        ab = schedule.alpha_bar[t]
        precision = np.linalg.inv(ab * covariance + (1 - ab) * np.eye(2))
        return np.sqrt(1 - ab) * (x_t - np.sqrt(ab) * mean) @ precision
    return eps_theta


class PairImpulses:
    """laws.Impulses for chunks of two numbers: an impulse in each of them, one after the other.

    Sample 0 has no noise at all; samples 1 and 2 are left to x_T.
    """

    def __init__(self):
        self.calls = 0

    def standard_normal(self, shape, dtype):
        z = np.zeros(shape)
        first = 3 + 2 * self.calls
        z[first:first + 2, 0] = np.eye(2)
        self.calls += 1
        return z


def law_of_the_second(schedule, eps_theta, first, repeats, **options):
    """Mean and variance of x_0's second number when its first is given, exactly.

    The outcome is affine in each number of x_T and of each noise.
    """
    rng = PairImpulses()
    # up, down and the given part, `repeats` times; but the first time not up, at t = 1 down quietly
    calls = schedule.T * (3 * repeats - 1) - repeats
    x_T = np.zeros((3 + 2 * calls, 1, 2))
    x_T[1:3, 0] = np.eye(2)
    given = np.array([first, 99.0])
    mask = np.array([True, False])
    *_, x = inpainting(schedule, eps_theta, x_T, None, rng, given, mask, repeats, **options)
    assert rng.calls == calls and (x[:, 0, 0] == first).all()
    x = x[:, 0, 1]
    return x[0], ((x[1:] - x[0]) ** 2).sum()


@given(laws.schedules, numbers, numbers, st.sampled_from(["beta-tilde", "beta"]))
@settings(max_examples=30)
def test_what_is_given_stays_and_what_does_not_depend_on_it_is_free(schedule, m, first, kind):
    """Two independent numbers, the second N(m, 0.25): its law is that of sampling it alone."""
    eps_theta = pair_denoiser(schedule, np.array([0.3, m]), np.diag([1.0, 0.25]))
    mean, variance = law_of_the_second(schedule, eps_theta, first, repeats=1, variance=kind)
    alone = gaussian_denoiser(schedule, m, 0.5)
    sampler = functools.partial(ancestral_sampling, variance=kind)
    means, variances = laws.chain_law(sampler, schedule, alone, schedule.T - 1)
    assert mean == pytest.approx(means[-1], abs=1e-9)
    assert variance == pytest.approx(variances[-1], abs=1e-9)


def test_the_given_part_is_noised_by_the_forward_process():
    ones = SimpleNamespace(standard_normal=lambda shape, dtype: np.ones(shape))
    schedule = cosine_schedule(8)
    given = np.array([0.5, -1.0])
    eps_theta = gaussian_denoiser(schedule, 0.0, 1.0)
    _, *chain = inpainting(schedule, eps_theta, np.zeros((1, 1, 2)), None, ones, given, mask=True)
    for t, x in zip(range(7, -1, -1), chain):
        expected = schedule.signal[t] * given + schedule.noise[t]
        np.testing.assert_allclose(x[0, 0], expected, rtol=0, atol=1e-14)


def test_inpainting_gets_closer_to_the_conditional_the_more_it_repeats():
    """A pair with correlation 0.8: given the first, the second is N(m + 0.8 (first - m'), 0.36)."""
    schedule = cosine_schedule(40)
    mean = np.array([0.2, -0.1])
    eps_theta = pair_denoiser(schedule, mean, np.array([[1, 0.8], [0.8, 1]]))
    expected = mean[1] + 0.8 * (1.5 - mean[0]), 1 - 0.8**2
    off = [diffusion.gaussian_kl(*law_of_the_second(schedule, eps_theta, 1.5, repeats), *expected)
           for repeats in (1, 3, 10)]
    assert off[0] > 5 * off[1] and off[1] > 1.5 * off[2] and off[2] < 0.03, off


def test_each_sample_is_filled_in_by_its_own_observation_in_its_precision():
    """With four repeats by default: up and down, and the given part, and in the end down alone."""
    schedule = cosine_schedule(5)
    cond = np.float32([[[1.0]], [[-2.0]]])
    calls = []

    class Noise:
        def standard_normal(self, shape, dtype):
            calls.append(dtype)
            return np.zeros(shape, dtype)

    def point(x_t, t, cond):
        return np.float32(gaussian_denoiser(schedule, cond, 0)(x_t, t))

    x_T = np.zeros((2, 1, 2), np.float32)
    *_, x = inpainting(schedule, point, x_T, cond, Noise(), np.zeros(2, np.float32),
                       np.array([True, False]))
    assert x.tolist() == [[[0, 1]], [[0, pytest.approx(-2, abs=1e-5)]]]
    assert len(calls) == 5 * (3 * 4 - 1) - 4 and set(calls) == {np.dtype("float32")}


def test_what_is_sampled_around_the_given_part_keeps_within_the_clip():
    schedule = cosine_schedule(20)
    far = gaussian_denoiser(schedule, 100.0, 0)  # predicts x_0 = 100 everywhere
    given = np.array([0.5, 0])
    mask = np.array([True, False])
    *_, x = inpainting(schedule, far, np.zeros((3, 1, 2)), None, np.random.default_rng(0), given,
                       mask, clip=2.0)
    assert (x[..., 0] == 0.5).all() and x[..., 1] == pytest.approx(2, abs=1e-9)
