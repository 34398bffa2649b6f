"""The reverse process (eq. 6, 7, 14): the posterior by Bayes' rule, and the law of the real samplers, exactly.

With an ideal denoiser of a Gaussian law every sampler is affine in its noise. Fed with impulses (laws.Impulses) it
shows its mean and variance without Monte Carlo. Several laws are needed: noise wrongly added at the last step cannot be
told on N(0, 1), and shows at once on a point mass.
"""
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from laws import (chain_law, gaussian_denoiser, log_normal, mixture_denoiser, named_schedules, numbers, one, p_theta,
                  schedule_and_t, schedules, spreads)

from minidiff.diffusion import (ancestral_sampling, cosine_schedule, prior,
                                q_mean_variance, q_posterior, q_step, x0_from_eps)
from minidiff.nn import MLP, Denoiser
from minidiff.tensor import Tape, Tensor


# ---- the posterior ------------------------------------------------------------------------------------------------

@given(schedule_and_t(smallest=2), numbers, numbers, numbers)
def test_the_posterior_obeys_bayes_rule(s_t, x0, x_prev, x_t):
    """log q(x_{t-1}|x_t,x_0) + log q(x_t|x_0) = log q(x_t|x_{t-1}) + log q(x_{t-1}|x_0), at any points."""
    schedule, t = s_t
    forward = log_normal(x_t, q_step(schedule, one(x_prev), t, one(0)), schedule.beta[t])
    marginal = [log_normal(x, *q_mean_variance(schedule, one(x0), s)) for x, s in ((x_t, t), (x_prev, t - 1))]
    posterior = log_normal(x_prev, *q_posterior(schedule, one(x0), one(x_t), t))
    terms = np.abs([posterior, marginal[0], forward, marginal[1]]).max()
    rounding = 1e-14 / (1 - schedule.alpha_bar[t - 1])  # 1 - alpha_bar loses digits where there is hardly any noise
    assert posterior + marginal[0] == pytest.approx(forward + marginal[1], abs=rounding * (1 + terms))


@given(schedule_and_t(), numbers, numbers)
def test_the_posterior_mean_written_by_eps_is_the_same(s_t, x_t, eps):
    """Ho eq. 11: mu = (x_t - beta_t / sqrt(1-alpha_bar_t) eps) / sqrt(alpha_t)."""
    schedule, t = s_t
    x0 = x0_from_eps(schedule, one(x_t), t, one(eps))
    by_eps = (x_t - schedule.beta[t] / np.sqrt(1 - schedule.alpha_bar[t]) * eps) / np.sqrt(schedule.alpha[t])
    # rounding of x_0 reaches the mean through c_x0
    tolerance = 1e-12 * (1 + abs(by_eps) + schedule.c_x0[t] * np.abs(x0).max())
    assert q_posterior(schedule, x0, one(x_t), t)[0] == pytest.approx(by_eps, abs=float(tolerance))


@given(schedules, numbers, numbers)
def test_at_t_1_the_posterior_is_x0_itself(schedule, x0, x_1):
    mean, variance = q_posterior(schedule, one(x0), one(x_1), 1)
    assert variance == 0
    assert mean == pytest.approx(x0, abs=1e-15 / schedule.beta[1])  # 1 - alpha_bar_1 loses the digits that beta_1 lacks


@given(schedules)
def test_at_t_T_the_chain_of_posteriors_starts_from_the_whole_chain(schedule):
    """beta_tilde_T uses alpha_bar_{T-1}, not a padded value; and beta_tilde < beta everywhere."""
    T = schedule.T
    expected = (1 - np.prod(schedule.alpha[1:T])) / (1 - np.prod(schedule.alpha[1:])) * schedule.beta[T]
    assert schedule.beta_tilde[T] == pytest.approx(expected, rel=1e-9)
    assert (schedule.beta_tilde[1:] < schedule.beta[1:]).all()


# ---- p_theta ------------------------------------------------------------------------------------------------------

@given(schedule_and_t(), numbers, spreads, numbers)
def test_the_ideal_mean_is_the_conditional_expectation(s_t, m, s, x_t):
    """Eq. 6: for x_0 ~ N(m, s^2), mu_theta with the ideal eps* is E[x_{t-1} | x_t], by regression."""
    schedule, t = s_t
    ab, ab_prev, alpha = schedule.alpha_bar[t], schedule.alpha_bar[t - 1], schedule.alpha[t]
    variance_prev, variance_t = ab_prev * s**2 + 1 - ab_prev, ab * s**2 + 1 - ab
    expected = np.sqrt(ab_prev) * m + np.sqrt(alpha) * variance_prev / variance_t * (x_t - np.sqrt(ab) * m)
    mean, _ = p_theta(schedule, gaussian_denoiser(schedule, m, s), one(x_t), t, None)
    assert mean == pytest.approx(expected, abs=1e-11 * (1 + abs(expected)))


@given(schedule_and_t(), st.floats(0, 1))
def test_the_two_fixed_variances_bracket_the_best_one(s_t, s):
    """The best variance is beta_tilde + c_x0^2 Var(x_0 | x_t): beta_tilde for a point mass, beta for N(0, 1)."""
    schedule, t = s_t
    ab = schedule.alpha_bar[t]
    best = schedule.beta_tilde[t] + schedule.c_x0[t]**2 * s**2 * (1 - ab) / (ab * s**2 + 1 - ab)
    low, high = (float(p_theta(schedule, gaussian_denoiser(schedule, 0, s), one(0), t, None, v)[1])
                 for v in ("beta-tilde", "beta"))
    assert low <= best * (1 + 1e-12) and best <= high * (1 + 1e-12)
    if s == 1:
        assert best == pytest.approx(high, rel=1e-10)


@given(schedule_and_t(), numbers, st.floats(0.1, 2))
def test_clipping_bounds_the_x0_that_the_mean_aims_at(s_t, x_t, clip):
    schedule, t = s_t
    far = gaussian_denoiser(schedule, 100.0, 0)  # sees x_0 = 100 everywhere
    mean, _ = p_theta(schedule, far, one(x_t), t, None, clip=clip)
    assert mean == pytest.approx(schedule.c_x0[t] * clip + schedule.c_xt[t] * x_t, abs=1e-12)


# ---- ancestral sampling -------------------------------------------------------------------------------------------

def ancestral_law(schedule, m, s, variance):
    """Mean and variance of x_0 by the real sampler, and how often it drew noise."""
    rng = []

    def chain(x_T, impulses):
        rng.append(impulses)
        return ancestral_sampling(schedule, gaussian_denoiser(schedule, m, s), x_T, None, impulses, variance)
    mean, var = chain_law(chain, schedule.T - 1)
    return mean, var, rng[0].draws


@given(schedules, st.sampled_from(["beta", "beta-tilde"]))
def test_ancestral_sampling_yields_every_step_and_draws_no_noise_at_the_last(schedule, variance):  # eq. 14
    mean, _, draws = ancestral_law(schedule, 0.5, 0.5, variance)
    assert len(mean) == schedule.T + 1 and draws == schedule.T - 1


@given(schedules)
def test_a_standard_normal_ends_at_variance_one_minus_beta_1(schedule):
    """With sigma^2 = beta every marginal of N(0, 1) is exact; only the noise of the last step is left out."""
    mean, var, _ = ancestral_law(schedule, 0.0, 1.0, "beta")
    assert mean == pytest.approx(0, abs=1e-14)
    assert var[:-1] == pytest.approx(1, rel=1e-11)
    assert var[-1] == pytest.approx(1 - schedule.beta[1], rel=1e-11)


@given(schedules, numbers, st.sampled_from(["beta", "beta-tilde"]))
def test_a_point_mass_is_hit_exactly(schedule, m, variance):
    mean, var, _ = ancestral_law(schedule, m, 0.0, variance)
    assert mean[-1] == pytest.approx(m, abs=1e-12) and var[-1] == pytest.approx(0, abs=1e-20)


@given(schedules, numbers)
def test_a_point_mass_with_beta_tilde_has_exact_marginals_all_the_way(schedule, m):
    """From x_T ~ q(x_T | x_0 = m), each x_t is distributed as q(x_t | x_0 = m), eq. 4."""
    ab = schedule.alpha_bar[::-1]  # T .. 0
    chain = lambda x_T, rng: ancestral_sampling(schedule, gaussian_denoiser(schedule, m, 0), x_T, None, rng)
    mean, var = chain_law(chain, schedule.T - 1, np.sqrt(ab[0]) * m, np.sqrt(1 - ab[0]))
    assert mean == pytest.approx(np.sqrt(ab) * m, abs=1e-12)
    assert var == pytest.approx(1 - ab, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["beta", "beta-tilde"])
def test_a_mixture_is_recovered_with_its_weights_means_and_spreads(variance):
    """The density of x_t on a grid, carried through the real p_theta step by step: x_0 has the mixture's law.

    What is left, under 0.02 at T = 200, is the error of finitely many steps.
    """
    schedule = cosine_schedule(200)
    weights, means, widths = (0.3, 0.7), (-1.5, 1.0), (0.15, 0.25)
    eps_theta = mixture_denoiser(schedule, weights, means, widths)
    grid = np.linspace(-4.5, 4.5, 801)
    dx = grid[1] - grid[0]
    density = np.exp(log_normal(grid, 0, 1))
    for t in range(schedule.T, 1, -1):
        mean, var = p_theta(schedule, eps_theta, one(grid), t, None, variance)
        if np.sqrt(var) < 2 * dx:  # narrower than the grid resolves; the rest is deterministic to that precision
            break
        kernel = np.exp(log_normal(grid[:, None], mean.reshape(1, -1), var))
        density = kernel @ density * dx
    assert t < 8  # all but the last steps
    assert density.sum() * dx == pytest.approx(1, abs=1e-3)
    for w, m, s, side in zip(weights, means, widths, (grid < -0.3, grid >= -0.3)):
        mass = (density * side).sum() * dx
        mode = (density * side * grid).sum() * dx / mass
        spread = np.sqrt((density * side * (grid - mode) ** 2).sum() * dx / mass)
        assert (mass, mode, spread) == pytest.approx((w, m, s), abs=0.02)


def test_the_prior_is_a_standard_normal():
    """Eq. 7, by Monte Carlo: 1e6 draws; each of mean, variance and fourth moment within 6 standard errors (false alarm
    6e-9 in all), which detects a shift of 0.006 and a scale that is off by 0.5 %."""
    x = prior((1000, 500, 2), np.random.default_rng(0), np.float64)
    for moment, expected, variance in ((x, 0, 1), (x**2, 1, 2), (x**4, 3, 96)):
        assert abs(moment.mean() - expected) < 6 * np.sqrt(variance / x.size)


# ---- through the whole chain --------------------------------------------------------------------------------------

@pytest.mark.parametrize("clip", [None, 1.5])
def test_a_sample_is_differentiable_in_x_T_and_in_what_it_is_conditioned_on(clip):
    """Eq. 5 and 14: dx_0/dx_T and dx_0/dcond through all steps of the chain and a real network, against the complex
    step. The noise is held: it is what makes a sample a differentiable function."""
    schedule, rng = cosine_schedule(6), np.random.default_rng(0)
    net = MLP((4, 2), 3, rng, width=16, blocks=1)
    net.theta += 0.3 * rng.standard_normal(net.theta.size)
    for param in net.params.values():
        param.data = param.data.astype(np.float64)
    eps_theta, (x_T, noise) = Denoiser(net, schedule.alpha_bar), rng.standard_normal((2, 3, 4, 2))
    cond, g = rng.standard_normal((3, 3)), rng.standard_normal((3, 4, 2))

    def x_0(x_T, cond):
        held = SimpleNamespace(standard_normal=lambda shape, dtype: noise)
        *_, x = ancestral_sampling(schedule, eps_theta, x_T, cond, held, clip=clip)
        return x

    leaves = Tensor(x_T, needs_grad=True), Tensor(cond, needs_grad=True)
    with Tape() as tape:
        end = x_0(*leaves)
    tape.backward(end, g)
    assert np.array_equal(end.data, x_0(x_T, cond))  # arrays in, the same arrays out
    for leaf in leaves:
        for i in np.ndindex(leaf.shape):
            moved = [Tensor(other.data.astype(complex)) for other in leaves]
            moved[leaves.index(leaf)].data[i] += 1e-20j
            slope = (x_0(*moved).data.imag * g).sum() / 1e-20
            assert leaf.grad[i] == pytest.approx(slope, rel=1e-9, abs=1e-9)
