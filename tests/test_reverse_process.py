"""The reverse process (eq. 6, 7, 14): the posterior by Bayes' rule, the exact law of the sampler.

With an ideal denoiser of a Gaussian law every sampler is affine in its noise. Fed with impulses
(laws.Impulses) it shows its mean and variance without Monte Carlo. Several laws are needed: noise
wrongly added at the last step cannot be told on N(0, 1), and shows at once on a point mass.
"""
from minidiff import diffusion
from minidiff.diffusion import ancestral_sampling, p_mean_variance, q_mean_variance, q_posterior
from minidiff.nn import MLP, Denoiser
from minidiff.tensor import Tape, Tensor

from types import SimpleNamespace

import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import gaussian_denoiser, log_normal, numbers, one, schedule_and_t, schedules

variances = st.sampled_from(["beta", "beta-tilde"])


# ---- the posterior -------------------------------------------------------------------------------

@given(schedule_and_t(smallest=2), numbers, numbers, numbers)
def test_the_posterior_obeys_bayes_rule(s_t, x0, x_prev, x_t):
    """At any points:

    log q(x_{t-1} | x_t, x_0) + log q(x_t | x_0) = log q(x_t | x_{t-1}) + log q(x_{t-1} | x_0)
    """
    schedule, t = s_t
    forward = log_normal(x_t, diffusion.q_step(schedule, one(x_prev), t, one(0)), schedule.beta[t])
    marginal = log_normal(x_t, *q_mean_variance(schedule, one(x0), t))
    marginal_prev = log_normal(x_prev, *q_mean_variance(schedule, one(x0), t - 1))
    posterior = log_normal(x_prev, *q_posterior(schedule, one(x0), one(x_t), t))
    terms = np.abs([posterior, marginal, forward, marginal_prev]).max()
    # 1 - alpha_bar loses digits where there is hardly any noise
    rounding = 1e-14 / (1 - schedule.alpha_bar[t - 1])
    tolerance = rounding * (1 + terms)
    assert posterior + marginal == pytest.approx(forward + marginal_prev, abs=tolerance)


@given(schedule_and_t(), numbers, numbers)
def test_the_posterior_mean_written_by_eps_is_the_same(s_t, x_t, eps):
    """Ho eq. 11: mu = (x_t - beta_t / sqrt(1-alpha_bar_t) eps) / sqrt(alpha_t)."""
    schedule, t = s_t
    share = schedule.beta[t] / np.sqrt(1 - schedule.alpha_bar[t])
    by_eps = (x_t - share * eps) / np.sqrt(schedule.alpha[t])
    x0 = diffusion.x0_from_eps(schedule, one(x_t), t, one(eps))
    # rounding of x_0 reaches the mean through c_x0
    tolerance = 1e-12 * (1 + abs(by_eps) + schedule.c_x0[t] * np.abs(x0).max())
    mean, _ = q_posterior(schedule, x0, one(x_t), t)
    assert mean == pytest.approx(by_eps, abs=float(tolerance))
    mu_theta = diffusion.mean_from_eps(schedule, one(eps), one(x_t), t)
    assert mu_theta == pytest.approx(by_eps, abs=float(tolerance))


@given(schedules, numbers, numbers)
def test_at_t_1_the_posterior_is_x0_itself(schedule, x0, x_1):
    mean, variance = q_posterior(schedule, one(x0), one(x_1), 1)
    assert variance == 0
    # 1 - alpha_bar_1 loses the digits that beta_1 lacks
    assert mean == pytest.approx(x0, abs=1e-15 / schedule.beta[1])


@given(schedules)
def test_at_t_T_the_chain_of_posteriors_starts_from_the_whole_chain(schedule):
    """beta_tilde_T uses alpha_bar_{T-1}, not a padded value; and beta_tilde < beta everywhere."""
    T = schedule.T
    remaining = (1 - np.prod(schedule.alpha[1:T])) / (1 - np.prod(schedule.alpha[1:]))
    assert schedule.beta_tilde[T] == pytest.approx(remaining * schedule.beta[T], rel=1e-9)
    assert (schedule.beta_tilde[1:] < schedule.beta[1:]).all()


# ---- p_theta -------------------------------------------------------------------------------------

@given(schedule_and_t(), numbers, laws.spreads, numbers)
def test_the_ideal_mean_is_the_conditional_expectation(s_t, m, s, x_t):
    """Eq. 6: for x_0 ~ N(m, s^2), mu_theta of the ideal eps* is E[x_{t-1} | x_t], by regression."""
    schedule, t = s_t
    ab = schedule.alpha_bar[t]
    ab_prev = schedule.alpha_bar[t - 1]
    variance = ab * s**2 + 1 - ab
    variance_prev = ab_prev * s**2 + 1 - ab_prev
    slope = np.sqrt(schedule.alpha[t]) * variance_prev / variance
    expected = np.sqrt(ab_prev) * m + slope * (x_t - np.sqrt(ab) * m)
    mean, _ = p_mean_variance(schedule, gaussian_denoiser(schedule, m, s), one(x_t), t, None)
    assert mean == pytest.approx(expected, abs=1e-11 * (1 + abs(expected)))


@given(schedule_and_t(), st.floats(0, 1))
def test_the_two_fixed_variances_bracket_the_best_one(s_t, s):
    """The best variance is beta_tilde + c_x0^2 Var(x_0 | x_t), for x_0 ~ N(0, s^2).

    It is beta_tilde for a point mass, and beta for N(0, 1).
    """
    schedule, t = s_t
    ab = schedule.alpha_bar[t]
    unknown = s**2 * (1 - ab) / (ab * s**2 + 1 - ab)  # Var(x_0 | x_t)
    best = schedule.beta_tilde[t] + schedule.c_x0[t] ** 2 * unknown
    ideal = gaussian_denoiser(schedule, 0, s)
    low = float(p_mean_variance(schedule, ideal, one(0), t, None, "beta-tilde")[1])
    high = float(p_mean_variance(schedule, ideal, one(0), t, None, "beta")[1])
    assert low <= best * (1 + 1e-12) and best <= high * (1 + 1e-12)
    if s == 0:
        assert best == low
    if s == 1:
        assert best == pytest.approx(high, rel=1e-10)


def test_a_variance_by_another_name_is_refused_with_the_names_there_are():
    schedule = diffusion.cosine_schedule(5)
    with pytest.raises(ValueError, match="variance 'best': choose from beta-tilde, beta, learned"):
        diffusion.fixed_variance(schedule, "best")
    with pytest.raises(ValueError, match="variance 'learned'"):
        diffusion.fixed_variance(schedule, "learned")  # it is no table


@given(schedule_and_t(), numbers, st.floats(0.1, 2), st.sampled_from([1, -1]))
def test_clipping_bounds_the_x0_that_the_mean_aims_at(s_t, x_t, clip, side):
    schedule, t = s_t
    far = gaussian_denoiser(schedule, 100.0 * side, 0)  # predicts x_0 = 100 or -100 everywhere
    mean, _ = p_mean_variance(schedule, far, one(x_t), t, None, clip=clip)
    expected = schedule.c_x0[t] * clip * side + schedule.c_xt[t] * x_t
    assert mean == pytest.approx(expected, abs=1e-12)


# ---- ancestral sampling --------------------------------------------------------------------------

def ancestral_law(schedule, m, s, **options):
    """Mean and variance of each x_t, T..0, by the sampler itself with the denoiser of N(m, s^2)."""
    ideal = gaussian_denoiser(schedule, m, s)
    return laws.chain_law(ancestral_sampling, schedule, ideal, schedule.T - 1, **options)


@given(schedules, variances)
def test_ancestral_sampling_takes_T_steps_and_adds_no_noise_at_the_last(schedule, variance):
    """Eq. 14."""
    noise = laws.Impulses()
    ideal = gaussian_denoiser(schedule, 0.5, 0.5)
    x_T = np.zeros((schedule.T + 1, 1, 1))
    steps = list(ancestral_sampling(schedule, ideal, x_T, None, noise, variance))
    assert len(steps) == schedule.T + 1 and steps[0] is x_T
    assert noise.calls == schedule.T - 1


@given(schedules)
def test_a_standard_normal_ends_at_variance_one_minus_beta_1(schedule):
    """With sigma^2 = beta every marginal of N(0, 1) is exact. The last step adds no noise."""
    mean, var = ancestral_law(schedule, 0.0, 1.0, variance="beta")
    assert mean == pytest.approx(0, abs=1e-14)
    assert var[:-1] == pytest.approx(1, rel=1e-11)
    assert var[-1] == pytest.approx(1 - schedule.beta[1], rel=1e-11)


@given(schedules, numbers, variances)
def test_a_point_mass_is_hit_exactly(schedule, m, variance):
    mean, var = ancestral_law(schedule, m, 0.0, variance=variance)
    assert mean[-1] == pytest.approx(m, abs=1e-12) and var[-1] == pytest.approx(0, abs=1e-20)


@given(schedules, numbers)
def test_a_chain_ends_within_the_clip(schedule, m):
    far = gaussian_denoiser(schedule, m, 0)
    x_T = np.ones((2, 1, 1))
    *_, x = ancestral_sampling(schedule, far, x_T, None, np.random.default_rng(0), clip=0.5)
    assert x == pytest.approx(np.clip(m, -0.5, 0.5), abs=1e-12)


@given(schedules, numbers)
def test_a_point_mass_with_beta_tilde_has_exact_marginals_all_the_way(schedule, m):
    """From x_T ~ q(x_T | x_0 = m), each x_t is distributed as q(x_t | x_0 = m), eq. 4."""
    ab = schedule.alpha_bar[::-1]  # T .. 0
    mean, var = ancestral_law(schedule, m, 0, x_T_mean=np.sqrt(ab[0]) * m,
                              x_T_std=np.sqrt(1 - ab[0]))
    assert mean == pytest.approx(np.sqrt(ab) * m, abs=1e-12)
    assert var == pytest.approx(1 - ab, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["beta", "beta-tilde"])
def test_a_mixture_is_recovered_with_its_weights_means_and_spreads(variance):
    """The density of x_t on a grid, carried through p_theta step by step: x_0 has its law.

    What is left, under 0.02 at T = 200, is the error of finitely many steps.
    """
    schedule = diffusion.cosine_schedule(200)
    weights, means, widths = (0.3, 0.7), (-1.5, 1.0), (0.15, 0.25)
    eps_theta = laws.mixture_denoiser(schedule, weights, means, widths)
    grid = np.linspace(-4.5, 4.5, 801)
    dx = grid[1] - grid[0]
    density = np.exp(log_normal(grid, 0, 1))
    for t in range(schedule.T, 1, -1):
        mean, var = p_mean_variance(schedule, eps_theta, one(grid), t, None, variance)
        if np.sqrt(var) < 2 * dx:  # narrower than the grid resolves: deterministic to its precision
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
    """Eq. 7, by Monte Carlo: mean, variance and fourth moment of 1e6 samples.

    This shows a shift of 0.006 and a scale that is off by 0.5 %.
    """
    x = diffusion.prior((1000, 500, 2), np.random.default_rng(0), np.float64)
    for moment, expected, variance in ((x, 0, 1), (x**2, 1, 2), (x**4, 3, 96)):
        laws.assert_close(moment.mean(), expected, np.sqrt(variance / x.size))


# ---- through the whole chain ---------------------------------------------------------------------

@pytest.mark.parametrize("clip", [None, 1.5])
def test_a_sample_is_differentiable_in_x_T_and_in_its_condition(clip):
    """Eq. 5 and 14: dx_0/dx_T and dx_0/dcond through all of the chain and a real network.

    Compared with the complex step. The noise is held: that makes a sample a differentiable
    function.
    """
    schedule = diffusion.cosine_schedule(6)
    rng = np.random.default_rng(0)
    net = MLP((4, 2), 3, rng, width=16, blocks=1)
    net.theta += 0.3 * rng.standard_normal(net.theta.size)
    for param in net.params.values():
        param.data = param.data.astype(np.float64)
    eps_theta = Denoiser(net, schedule.alpha_bar)
    x_T, noise = rng.standard_normal((2, 3, 4, 2))
    cond = rng.standard_normal((3, 3))
    g = rng.standard_normal((3, 4, 2))
    held = SimpleNamespace(standard_normal=lambda shape, dtype: noise)

    def x_0(x_T, cond):
        *_, x = ancestral_sampling(schedule, eps_theta, x_T, cond, held, clip=clip)
        return x

    leaves = Tensor(x_T), Tensor(cond)
    with Tape() as tape:
        end = x_0(*leaves)
    tape.backward(end, g)
    assert np.array_equal(end.data, x_0(x_T, cond))  # arrays in, the same arrays out
    for k, leaf in enumerate(leaves):
        for i in np.ndindex(leaf.shape):
            moved = [x_T.astype(complex), cond.astype(complex)]
            moved[k][i] += 1e-20j
            slope = (x_0(*moved).imag * g).sum() / 1e-20
            assert leaf.grad[i] == pytest.approx(slope, rel=1e-9, abs=1e-9)
