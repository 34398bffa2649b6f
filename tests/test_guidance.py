"""Steering: each way on a law whose conditional is known in closed form."""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from laws import chain_law, gaussian_denoiser, log_normal, numbers, one, schedule_and_t, schedules, spreads

from minidiff import tensor as tn
from minidiff.diffusion import ancestral_sampling, cosine_schedule, gaussian_kl, x0_from_eps
from minidiff.beyond.guidance import classifier_free, cost_guided, inpainting
from minidiff.tensor import Tensor, tensor

scales = st.floats(-1, 4)


def conditional_denoiser(schedule, m, slope, s, s_without):
    """x_0 ~ N(m + slope cond, s^2), and N(m, s_without^2) for cond = 0. cond: (B, 1)."""
    def eps_theta(x_t, t, cond):
        spread = np.where(cond == 0, s_without, s)[:, :, None]
        return gaussian_denoiser(schedule, m + slope * cond[:, :, None], spread)(x_t, t)
    return eps_theta


# ---- classifier-free ----------------------------------------------------------------------------------------------

@given(schedule_and_t(), numbers, numbers, spreads, scales, numbers)
def test_classifier_free_guidance_aims_beyond_the_conditional_mean(s_t, m, slope, s, scale, x_t):
    """With equal spreads the guided law is N(m + (1 + scale) slope cond, s^2), at every t."""
    schedule, t = s_t
    guided = classifier_free(conditional_denoiser(schedule, m, slope, s, s), scale)(one(x_t), t, np.ones((1, 1)))
    expected = gaussian_denoiser(schedule, m + (1 + scale) * slope, s)(one(x_t), t)
    assert guided.data == pytest.approx(expected.data, abs=1e-10 * (1 + abs(scale)))


@given(schedule_and_t(), spreads, spreads, scales, numbers)
def test_classifier_free_guidance_is_a_product_of_powers_of_densities(s_t, s, s_without, scale, x_t):
    """-eps/sqrt(1-alpha_bar_t) = d/dx [(1 + scale) log q(x_t | cond) - scale log q(x_t)], by complex step."""
    schedule, t = s_t
    ab, x = schedule.alpha_bar[t], one(x_t) + 1e-30j
    with_, without = (log_normal(x, np.sqrt(ab) * mean, ab * spread**2 + 1 - ab) for mean, spread in ((0.7, s), (0.2, s_without)))
    slope = ((1 + scale) * with_ - scale * without).imag / 1e-30
    guided = classifier_free(conditional_denoiser(schedule, 0.2, 0.5, s, s_without), scale)
    eps = guided(one(x_t), t, np.ones((1, 1))).data
    assert -eps / np.sqrt(1 - ab) == pytest.approx(slope, rel=1e-8, abs=1e-8)


@given(schedule_and_t(), numbers)
def test_scale_0_changes_nothing_and_scale_minus_1_forgets_the_observation(s_t, x_t):
    schedule, t = s_t
    eps_theta, cond = conditional_denoiser(schedule, 0.3, 0.9, 0.4, 0.6), np.ones((1, 1))
    assert classifier_free(eps_theta, 0)(one(x_t), t, cond).data == eps_theta(one(x_t), t, cond).data
    assert classifier_free(eps_theta, -1)(one(x_t), t, cond).data == pytest.approx(eps_theta(one(x_t), t, 0 * cond).data)


# ---- a cost -------------------------------------------------------------------------------------------------------

@given(schedule_and_t(), numbers, spreads, numbers, st.floats(0, 3), numbers)
def test_a_linear_cost_tilts_a_gaussian_exactly(s_t, m, s, a, scale, x_t):
    """N(m, s^2) exp(-scale a x_0), normalised, is N(m - scale a s^2, s^2); the guided eps is its ideal one at every t."""
    schedule, t = s_t
    guided = cost_guided(schedule, gaussian_denoiser(schedule, m, s), lambda x0: x0 * a, scale)(one(x_t), t, None)
    expected = gaussian_denoiser(schedule, m - scale * a * s**2, s)(one(x_t), t)
    assert guided.data == pytest.approx(expected.data, abs=1e-9 * (1 + abs(scale * a)))


@given(schedule_and_t(), numbers, spreads, st.floats(0, 3), numbers)
def test_any_cost_is_followed_down_its_gradient_through_the_denoiser(s_t, m, s, scale, x_t):
    """eps = eps_theta + sqrt(1-alpha_bar) scale d cost(x_0(x_t))/dx_t, the derivative by complex step."""
    schedule, t = s_t
    ideal = gaussian_denoiser(schedule, m, s)
    cost = lambda x0: x0 * x0 * x0 + tn.exp(x0 * 0.3)
    x = Tensor(one(x_t) + 1e-30j)
    slope = cost(x0_from_eps(schedule, x, t, ideal(x, t))).data.imag / 1e-30
    guided = cost_guided(schedule, ideal, cost, scale)(one(x_t), t, None).data
    expected = ideal(one(x_t), t).data + np.sqrt(1 - schedule.alpha_bar[t]) * scale * slope
    assert guided == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_samples_of_one_batch_are_steered_each_by_its_own_cost():
    schedule, x_t = cosine_schedule(20), one([-1.0, 0.5, 2.0])
    guided = cost_guided(schedule, gaussian_denoiser(schedule, 0.1, 0.5), lambda x0: x0 * x0)
    together = guided(x_t, 7, None).data
    assert together == pytest.approx(np.concatenate([guided(x[None], 7, None).data for x in x_t]), rel=1e-12)


# ---- inpainting ---------------------------------------------------------------------------------------------------

def pair_denoiser(schedule, mean, covariance):
    """eps* for two numbers with a joint Gaussian law. x: (B, 1, 2)."""
    def eps_theta(x_t, t, cond=None):
        ab = schedule.alpha_bar[t]
        return tensor(np.sqrt(1 - ab) * (x_t - np.sqrt(ab) * mean) @ np.linalg.inv(ab * covariance + (1 - ab) * np.eye(2)))
    return eps_theta


def law_of_the_second(schedule, eps_theta, first, repeats):
    """Mean and variance of x_0's second number when its first is settled, exactly: by an impulse in each number of
    x_T and of each draw in turn, on which the sampler's outcome depends affinely."""
    class Impulses:
        def standard_normal(self, shape, dtype):
            z = np.zeros(shape)
            z[1 + 2 * self.n:3 + 2 * self.n, 0] = np.eye(2)
            self.n += 1
            return z

    rng = Impulses()
    rng.n = 1
    draws = schedule.T * (3 * repeats - 1) - repeats  # up, down, settled; neither up the first time nor noise at t = 1
    x_T = np.zeros((1 + 2 * (1 + draws), 1, 2))
    x_T[1:3, 0] = np.eye(2)
    mask = np.array([True, False])
    *_, x = inpainting(schedule, eps_theta, x_T, None, rng, np.array([first, 99.0]), mask, repeats)
    assert rng.n == 1 + draws and (x[:, 0, 0] == first).all()
    x = x[:, 0, 1]
    return x[0], ((x[1:] - x[0]) ** 2).sum()


@given(schedules, numbers, numbers)
@settings(max_examples=30)
def test_what_is_settled_stays_and_what_does_not_depend_on_it_does_not_notice(schedule, m, first):
    """Two independent numbers, the second N(m, 0.25): its law is that of ancestral sampling without the first."""
    eps_theta = pair_denoiser(schedule, np.array([0.3, m]), np.diag([1.0, 0.25]))
    mean, variance = law_of_the_second(schedule, eps_theta, first, repeats=1)
    chain = lambda x_T, rng: ancestral_sampling(schedule, gaussian_denoiser(schedule, m, 0.5), x_T, None, rng)
    means, variances = chain_law(chain, schedule.T - 1)
    assert mean == pytest.approx(means[-1], abs=1e-9) and variance == pytest.approx(variances[-1], abs=1e-9)


def test_inpainting_draws_from_the_conditional_the_better_the_oftener_it_repeats():
    """A pair with correlation 0.8: given the first, the second is N(m + 0.8 (first - m'), 1 - 0.8^2)."""
    schedule, mean = cosine_schedule(40), np.array([0.2, -0.1])
    eps_theta = pair_denoiser(schedule, mean, np.array([[1, 0.8], [0.8, 1]]))
    expected = mean[1] + 0.8 * (1.5 - mean[0]), 1 - 0.8**2
    off = [gaussian_kl(*law_of_the_second(schedule, eps_theta, 1.5, repeats), *expected) for repeats in (1, 3, 10)]
    assert off[0] > 5 * off[1] and off[1] > 1.5 * off[2] and off[2] < 0.03, off


def test_what_is_drawn_around_the_settled_part_keeps_within_the_clip():
    schedule = cosine_schedule(20)
    far = gaussian_denoiser(schedule, 100.0, 0)  # sees x_0 = 100 everywhere
    *_, x = inpainting(schedule, far, np.zeros((3, 1, 2)), None, np.random.default_rng(0), np.array([0.5, 0]),
                       np.array([True, False]), clip=2.0)
    assert (x[..., 0] == 0.5).all() and x[..., 1] == pytest.approx(2, abs=1e-9)
