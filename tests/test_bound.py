"""The variational bound (eq. 8-10): what its terms are, what they add up to, and when it is tight."""
import numpy as np
import pytest
from hypothesis import given, strategies as st
from laws import (chain_law, gaussian_denoiser, log_normal, numbers, one, p_theta, schedule_and_t, schedules, spreads)

from types import SimpleNamespace

from minidiff.diffusion import (bound_term, bound_weight, gaussian_kl, l_hybrid, l_simple, l_vlb, q_mean_variance,
                                q_posterior, q_sample, variational_bound, x0_from_eps)
from minidiff.tensor import Tape, Tensor

variances = st.sampled_from(["beta", "beta-tilde"])


def constant(eps):
    """A reverse model that answers the same noise whatever it sees."""
    return lambda x_t, t, cond: Tensor(np.full_like(x_t, eps))


@given(numbers, spreads, numbers, spreads)
def test_the_divergence_of_gaussians_is_the_expected_log_ratio(m, s, other_m, other_s):
    """By Gauss-Hermite quadrature, which is exact here: the log ratio is quadratic."""
    x, w = np.polynomial.hermite_e.hermegauss(3)
    x = m + s * x
    expected = (w / w.sum() * (log_normal(x, m, s**2) - log_normal(x, other_m, other_s**2))).sum()
    assert gaussian_kl(m, s**2, other_m, other_s**2) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(schedule_and_t(2), numbers, numbers, numbers, variances)
def test_a_term_is_the_weighted_eps_error_and_a_constant(s_t, x0, eps, guess, variance):
    """Eq. 9 and Ho eq. 12, and so L_simple with the weight `bound_weight` has the bound's gradient."""
    schedule, t = s_t
    x_t = q_sample(schedule, one(x0), t, one(eps))
    term = bound_term(schedule, constant(guess), one(x0), x_t, t, None, variance).data
    sigma2 = {"beta": schedule.beta, "beta-tilde": schedule.beta_tilde}[variance][t]
    ratio = schedule.beta_tilde[t] / sigma2
    expected = bound_weight(schedule, variance)[t] * (eps - guess) ** 2 + 0.5 * (ratio - 1 - np.log(ratio))
    assert term[0, 0, 0] == pytest.approx(expected, rel=1e-6, abs=1e-9 / (1 - schedule.alpha_bar[t - 1]))


@given(schedule_and_t(2), numbers, numbers, numbers)
def test_a_term_is_the_x0_error_by_the_loss_of_snr(s_t, x0, eps, guess):
    """With beta-tilde: L_{t-1} = (SNR_{t-1} - SNR_t)/2 (x_0 - x_0_hat)^2 (Kingma et al. 2021, eq. 13)."""
    schedule, t = s_t
    x_t = q_sample(schedule, one(x0), t, one(eps))
    error = float((x0 - x0_from_eps(schedule, x_t, t, one(guess)))[0, 0, 0])
    term = bound_term(schedule, constant(guess), one(x0), x_t, t, None, "beta-tilde").data
    expected = (schedule.snr[t - 1] - schedule.snr[t]) / 2 * error**2
    assert term[0, 0, 0] == pytest.approx(expected, rel=1e-6, abs=1e-9 / (1 - schedule.alpha_bar[t - 1]))


@given(schedules, numbers, numbers, numbers)
def test_the_last_term_is_the_weighted_eps_error_too(schedule, x0, eps, guess):
    x_1 = q_sample(schedule, one(x0), 1, one(eps))
    term = bound_term(schedule, constant(guess), one(x0), x_1, 1, None).data
    expected = bound_weight(schedule)[1] * (eps - guess) ** 2 + 0.5 * np.log(2 * np.pi * schedule.beta[1])
    assert term[0, 0, 0] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert np.isinf(bound_weight(schedule, "beta-tilde")[1])  # that variance is 0 at t = 1


@given(schedules, st.integers(0, 2**32))
def test_the_bound_telescopes_on_any_trajectory_for_any_reverse_model(schedule, seed):
    """Eq. 9: the log ratios that the terms are expectations of add up to log q(x_{1:T} | x_0) - log p_theta(x_{0:T})."""
    rng = np.random.default_rng(seed)
    T, x = schedule.T, rng.standard_normal((schedule.T + 1, 1, 1, 1))  # x[t]: any trajectory at all
    model = constant(rng.standard_normal())
    p = [None] + [p_theta(schedule, model, x[t], t, None, "beta") for t in range(1, T + 1)]
    forward = sum(log_normal(x[t], np.sqrt(1 - schedule.beta[t]) * x[t - 1], schedule.beta[t]) for t in range(1, T + 1))
    joint = log_normal(x[T], 0, 1) + sum(log_normal(x[t - 1], *p[t]) for t in range(1, T + 1))
    terms = [log_normal(x[t - 1], *q_posterior(schedule, x[0], x[t], t)) - log_normal(x[t - 1], *p[t])
             for t in range(2, T + 1)]
    terms += [log_normal(x[T], *q_mean_variance(schedule, x[0], T)) - log_normal(x[T], 0, 1), -log_normal(x[0], *p[1])]
    scale = sum(np.abs(term).max() for term in terms)
    np.testing.assert_allclose(sum(terms), forward - joint, atol=1e-11 * scale)


class FourPoints:
    """In the place of a random generator: +1 and -1 for two samples each. With x_0 = m +- s beside them, the mean of
    anything quadratic in (x_0, eps) is its exact expectation over x_0 ~ N(m, s^2) and eps ~ N(0, 1)."""

    def standard_normal(self, shape, dtype):
        return one([-1, 1, -1, 1])


def exact_bound(schedule, eps_theta, m, s, variance="beta"):
    return variational_bound(schedule, eps_theta, one([m - s, m - s, m + s, m + s]), None, FourPoints(), variance).sum()


def entropy(s):
    return 0.5 * np.log(2 * np.pi * np.e * s**2)


@given(schedules)
def test_the_bound_is_tight_for_the_ideal_denoiser_of_a_standard_normal(schedule):
    """There q(x_{t-1} | x_t) has the variance beta_t, so p_theta is exact and the bound is the entropy itself."""
    assert exact_bound(schedule, gaussian_denoiser(schedule, 0, 1), 0, 1) == pytest.approx(entropy(1), rel=1e-9)


@given(schedules, numbers, spreads, st.floats(-0.5, 0.5))
def test_the_bound_never_falls_below_the_entropy_and_the_ideal_denoiser_has_the_least(schedule, m, s, off):
    """Eq. 10, for x_0 ~ N(m, s^2)."""
    ideal = gaussian_denoiser(schedule, m, s)
    least = exact_bound(schedule, ideal, m, s)
    assert least >= entropy(s) - 1e-9 * schedule.T
    worse = exact_bound(schedule, lambda x_t, t, cond: Tensor(ideal(x_t, t).data + off), m, s)
    assert worse == pytest.approx(least + off**2 * bound_weight(schedule)[1:].sum(), rel=1e-7)


@given(schedules, numbers, spreads)
def test_the_bound_holds_for_the_law_that_sampling_has(schedule, m, s):
    """-log p_theta(x_0), for the p_theta(x_0) that the chain ends in, lies below the bound on average over x_0."""
    from minidiff.diffusion import ancestral_sampling
    ideal = gaussian_denoiser(schedule, m, s)
    chain = lambda x_T, rng: ancestral_sampling(schedule, ideal, x_T, None, rng, "beta")
    means, spreads_ = chain_law(chain, schedule.T)
    mean, variance = means[-1], spreads_[-1] + schedule.beta[1]  # the last step's noise, which sampling leaves away
    cross_entropy = 0.5 * (np.log(2 * np.pi * variance) + (s**2 + (m - mean) ** 2) / variance)
    assert cross_entropy <= exact_bound(schedule, ideal, m, s) + 1e-9 * schedule.T


# ---- the learned variance, and the bound to train on ---------------------------------------------------------------

def learner(eps, v):
    """A reverse model that answers two Tensors, whatever it sees."""
    return SimpleNamespace(with_variance=lambda x_t, t, cond: (eps, v))


@given(schedule_and_t(), st.floats(-0.5, 1.5))
def test_the_learned_variance_is_log_linear_between_the_two_fixed_ones(s_t, v):
    """Eq. 6, Nichol & Dhariwal 2021, eq. 15; at t = 1, where beta_tilde is 0, its value at t = 2 takes its place."""
    schedule, t = s_t
    _, variance = p_theta(schedule, learner(Tensor(one(0)), Tensor(one(v))), one(0), t, None, "learned")
    low = schedule.beta_tilde[max(t, 2)]
    assert variance == pytest.approx(schedule.beta[t] ** v * low ** (1 - v), rel=1e-10)


@given(schedules, numbers, spreads)
def test_with_the_best_variance_the_bound_of_a_gaussian_is_its_entropy_and_what_the_prior_misses(schedule, m, s):
    """Eq. 10 is tight in the chain for any Gaussian: bound = H(x_0) + KL(q(x_T) || p(x_T)), if eps_theta is ideal and
    the variance is that of q(x_{t-1} | x_t), beta_tilde + c_x0^2 Var(x_0 | x_t)."""
    ideal, ab = gaussian_denoiser(schedule, m, s), schedule.alpha_bar

    def with_variance(x_t, t, cond):
        best = schedule.beta_tilde[t] + schedule.c_x0[t]**2 * s**2 * (1 - ab[t]) / (ab[t] * s**2 + 1 - ab[t])
        low, high = schedule.log_beta_tilde[t], schedule.log_beta[t]
        return ideal(x_t, t), Tensor(one((np.log(best) - low) / (high - low) if high > low else 0.0))
    bound = exact_bound(schedule, SimpleNamespace(with_variance=with_variance), m, s, "learned")
    missed = gaussian_kl(np.sqrt(ab[-1]) * m, ab[-1] * s**2 + 1 - ab[-1], 0, 1)
    assert bound == pytest.approx(entropy(s) + missed, abs=1e-7 * schedule.T)


def gradients(objective, *leaves):
    leaves = [Tensor(leaf, needs_grad=True) for leaf in leaves]
    with Tape() as tape:
        loss = objective(*leaves)
    tape.backward(loss)
    return [np.zeros_like(leaf.data) if leaf.grad is None else leaf.grad for leaf in leaves]


@given(schedules, st.integers(0, 2**32), st.floats(1e-3, 1))
def test_in_the_hybrid_objective_each_part_teaches_its_own_half(schedule, seed, share):
    """Nichol & Dhariwal 2021, eq. 16: eps_theta has the gradient of L_simple, v that of share L_vlb."""
    rng = np.random.default_rng(seed)
    x0, eps, guess, v = rng.standard_normal((4, 5, 3, 2))
    t, weight = rng.integers(1, schedule.T + 1, 5), rng.uniform(0.5, 2, schedule.T + 1)
    hybrid = gradients(lambda e, v: l_hybrid(schedule, learner(e, v), x0, t, eps, None, weight, share), guess, v)
    simple = gradients(lambda e: l_simple(schedule, lambda *_: e, x0, t, eps, None, weight), guess)
    bound = gradients(lambda e, v: l_vlb(schedule, learner(e, v), x0, t, eps, None), guess, v)
    assert np.array_equal(hybrid[0], simple[0]) and np.abs(bound[0]).max() > 0
    np.testing.assert_allclose(hybrid[1], share * bound[1], rtol=1e-9)


@given(schedules, st.integers(0, 2**32))
def test_with_a_fixed_variance_the_bound_has_the_gradient_of_l_simple_under_its_weight(schedule, seed):
    """Eq. 10 and 11: L_vlb = T E[bound_weight(t) (eps - eps_theta)^2] + constant."""
    rng = np.random.default_rng(seed)
    x0, eps, guess = rng.standard_normal((3, 5, 3, 2))
    t = rng.integers(1, schedule.T + 1, 5)
    bound, = gradients(lambda e: l_vlb(schedule, lambda *_: e, x0, t, eps, None, "beta"), guess)
    simple, = gradients(lambda e: l_simple(schedule, lambda *_: e, x0, t, eps, None, bound_weight(schedule)), guess)
    np.testing.assert_allclose(bound, schedule.T * simple, rtol=1e-6, atol=1e-9 * np.abs(bound).max())


@given(schedules, st.integers(0, 2**32))
def test_over_all_timesteps_the_objective_is_the_bound_but_for_its_last_term(schedule, seed):
    """One sample at each t = 1..T: L_vlb = L_0 + .. + L_{T-1}."""
    rng = np.random.default_rng(seed)
    x0, eps = np.repeat(rng.standard_normal((1, 2, 3)), schedule.T, 0), rng.standard_normal((schedule.T, 2, 3))
    model = SimpleNamespace(with_variance=lambda x_t, t, cond: (Tensor(0.9 * x_t), Tensor(0.3 * x_t)))
    objective = l_vlb(schedule, model, x0, np.arange(1, schedule.T + 1), eps, None)
    draws = SimpleNamespace(standard_normal=lambda shape, dtype, given=iter(eps): next(given)[None])
    terms = variational_bound(schedule, model, x0[:1], None, draws, "learned")
    assert float(objective.data) == pytest.approx(terms[:-1].sum(), rel=1e-9)
