"""The variational bound (eq. 8-10): its terms, what they add up to, and when it is tight."""
from minidiff import diffusion
from minidiff.diffusion import (
    bound_term,
    bound_weight,
    cosine_schedule,
    gaussian_kl,
    l_simple,
    l_vlb,
    p_mean_variance,
    q_sample,
)
from minidiff.tensor import Tape, Tensor

from types import SimpleNamespace

import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import gaussian_denoiser, log_normal, numbers, one, schedule_and_t, schedules

variances = st.sampled_from(["beta", "beta-tilde"])
seeds = st.integers(0, 2**32)


def constant(eps):
    """A denoiser that predicts the same noise whatever it sees."""
    def eps_theta(x_t, t, cond):
        return np.full_like(x_t, eps)
    return eps_theta


@given(numbers, laws.spreads, numbers, laws.spreads)
def test_the_divergence_of_gaussians_is_the_expected_log_ratio(m, s, other_m, other_s):
    """By Gauss-Hermite quadrature, which is exact here: the log ratio is quadratic."""
    x, w = np.polynomial.hermite_e.hermegauss(3)
    x = m + s * x
    ratio = log_normal(x, m, s**2) - log_normal(x, other_m, other_s**2)
    expected = (w / w.sum() * ratio).sum()
    assert gaussian_kl(m, s**2, other_m, other_s**2) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(schedule_and_t(2), numbers, numbers, numbers, variances)
def test_a_term_is_the_weighted_eps_error_and_a_constant(s_t, x0, eps, guess, variance):
    """Eq. 9 and Ho eq. 12: so L_simple weighted by `bound_weight` has the bound's gradient."""
    schedule, t = s_t
    x_t = q_sample(schedule, one(x0), t, one(eps))
    term = bound_term(schedule, constant(guess), one(x0), x_t, t, None, variance)
    sigma2 = schedule.beta[t] if variance == "beta" else schedule.beta_tilde[t]
    ratio = schedule.beta_tilde[t] / sigma2
    by_eps = bound_weight(schedule, variance)[t] * (eps - guess) ** 2
    expected = by_eps + 0.5 * (ratio - 1 - np.log(ratio))
    tolerance = 1e-9 / (1 - schedule.alpha_bar[t - 1])
    assert term[0, 0, 0] == pytest.approx(expected, rel=1e-6, abs=tolerance)


@given(schedule_and_t(2), numbers, numbers, numbers)
def test_a_term_is_the_x0_error_by_the_loss_of_snr(s_t, x0, eps, guess):
    """With beta-tilde: L_{t-1} = (SNR_{t-1} - SNR_t)/2 (x_0 - x_0_hat)^2.

    Kingma et al. 2021, eq. 13.
    """
    schedule, t = s_t
    x_t = q_sample(schedule, one(x0), t, one(eps))
    error = (x0 - diffusion.x0_from_eps(schedule, x_t, t, one(guess))).item()
    term = bound_term(schedule, constant(guess), one(x0), x_t, t, None, "beta-tilde")
    expected = (schedule.snr[t - 1] - schedule.snr[t]) / 2 * error**2
    tolerance = 1e-9 / (1 - schedule.alpha_bar[t - 1])
    assert term[0, 0, 0] == pytest.approx(expected, rel=1e-6, abs=tolerance)


@given(schedules, numbers, numbers, numbers)
def test_the_last_term_is_the_weighted_eps_error_too(schedule, x0, eps, guess):
    x_1 = q_sample(schedule, one(x0), 1, one(eps))
    term = bound_term(schedule, constant(guess), one(x0), x_1, 1, None)
    by_eps = bound_weight(schedule)[1] * (eps - guess) ** 2
    expected = by_eps + 0.5 * np.log(2 * np.pi * schedule.beta[1])
    assert term[0, 0, 0] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    with np.errstate(divide="raise"):
        assert np.isinf(bound_weight(schedule, "beta-tilde")[1])  # that variance is 0 at t = 1


@given(schedules, seeds)
def test_the_bound_telescopes_on_any_trajectory_for_any_reverse_model(schedule, seed):
    """Eq. 9: the log ratios that the terms are expectations of, and what they add up to.

    That is log q(x_{1:T} | x_0) - log p_theta(x_{0:T}).
    """
    rng = np.random.default_rng(seed)
    T = schedule.T
    x = rng.standard_normal((T + 1, 1, 1, 1))  # x[t]: any trajectory at all
    model = constant(rng.standard_normal())
    log_q_T = log_normal(x[T], *diffusion.q_mean_variance(schedule, x[0], T))
    log_p_T = log_normal(x[T], 0, 1)
    forward = 0
    joint = log_p_T
    terms = [log_q_T - log_p_T]
    for t in range(1, T + 1):
        mean = np.sqrt(1 - schedule.beta[t]) * x[t - 1]
        forward += log_normal(x[t], mean, schedule.beta[t])
        log_p = log_normal(x[t - 1], *p_mean_variance(schedule, model, x[t], t, None, "beta"))
        joint += log_p
        log_q = 0  # x_0 given x_0
        if t > 1:
            log_q = log_normal(x[t - 1], *diffusion.q_posterior(schedule, x[0], x[t], t))
        terms.append(log_q - log_p)
    scale = np.abs(terms).sum()
    np.testing.assert_allclose(sum(terms), forward - joint, atol=1e-11 * scale)


class FourPoints:
    """A random generator that gives +1 and -1 to two samples each.

    With x_0 = m +- s beside them, the mean of anything quadratic in (x_0, eps) is its exact
    expectation over x_0 ~ N(m, s^2) and eps ~ N(0, 1).
    """

    def standard_normal(self, shape, dtype):
        return one([-1, 1, -1, 1])


def exact_bound(schedule, eps_theta, m, s, variance="beta"):
    x0 = one([m - s, m - s, m + s, m + s])
    return diffusion.variational_bound(schedule, eps_theta, x0, None, FourPoints(), variance).sum()


def entropy(s):
    return 0.5 * np.log(2 * np.pi * np.e * s**2)


@given(schedules)
def test_the_bound_is_tight_for_the_ideal_denoiser_of_a_standard_normal(schedule):
    """There q(x_{t-1} | x_t) has the variance beta_t, so p_theta is exact: bound = entropy."""
    ideal = gaussian_denoiser(schedule, 0, 1)
    assert exact_bound(schedule, ideal, 0, 1) == pytest.approx(entropy(1), rel=1e-9)


@given(schedules, numbers, laws.spreads, st.floats(-0.5, 0.5))
def test_the_bound_is_above_the_entropy_and_least_at_the_ideal_denoiser(schedule, m, s, off):
    """Eq. 10, for x_0 ~ N(m, s^2)."""
    ideal = gaussian_denoiser(schedule, m, s)

    def worse(x_t, t, cond):
        return ideal(x_t, t) + off

    least = exact_bound(schedule, ideal, m, s)
    assert least >= entropy(s) - 1e-9 * schedule.T
    expected = least + off**2 * bound_weight(schedule)[1:].sum()
    assert exact_bound(schedule, worse, m, s) == pytest.approx(expected, rel=1e-7)


@given(schedules, numbers, laws.spreads)
def test_the_bound_holds_for_the_law_that_sampling_has(schedule, m, s):
    """-log p_theta(x_0) lies below the bound on average over x_0.

    p_theta(x_0) is the law that the chain ends in, with the noise that sampling leaves out in its
    last step.
    """
    ideal = gaussian_denoiser(schedule, m, s)
    means, variances = laws.chain_law(diffusion.ancestral_sampling, schedule, ideal, schedule.T,
                                      variance="beta")
    mean = means[-1]
    variance = variances[-1] + schedule.beta[1]
    cross_entropy = 0.5 * (np.log(2 * np.pi * variance) + (s**2 + (m - mean) ** 2) / variance)
    assert cross_entropy <= exact_bound(schedule, ideal, m, s) + 1e-9 * schedule.T


# ---- the learned variance, and the bound to train on ---------------------------------------------

def learner(eps, v):
    """A denoiser with a learned variance that predicts these two, whatever it sees."""
    return SimpleNamespace(with_variance=lambda x_t, t, cond: (eps, v))


@given(schedule_and_t(), st.floats(-0.5, 1.5))
def test_the_learned_variance_is_log_linear_between_the_two_fixed_ones(s_t, v):
    """Eq. 6, Nichol & Dhariwal 2021, eq. 15.

    At t = 1, where beta_tilde is 0, its value at t = 2 takes its place.
    """
    schedule, t = s_t
    model = learner(one(0), one(v))
    _, variance = p_mean_variance(schedule, model, one(0), t, None, "learned")
    low = schedule.beta_tilde[max(t, 2)]
    assert variance == pytest.approx(schedule.beta[t] ** v * low ** (1 - v), rel=1e-10)


@given(schedules, numbers, laws.spreads)
def test_with_the_best_variance_only_what_the_prior_misses_is_lost(schedule, m, s):
    """Eq. 10 is tight in the chain for any Gaussian: bound = H(x_0) + KL(q(x_T) || p(x_T)).

    That is, if eps_theta is ideal and the variance is that of q(x_{t-1} | x_t), which is
    beta_tilde + c_x0^2 Var(x_0 | x_t).
    """
    ideal = gaussian_denoiser(schedule, m, s)
    ab = schedule.alpha_bar

    def with_variance(x_t, t, cond):
        unknown = s**2 * (1 - ab[t]) / (ab[t] * s**2 + 1 - ab[t])
        best = schedule.beta_tilde[t] + schedule.c_x0[t] ** 2 * unknown
        low = schedule.log_beta_tilde[t]
        high = schedule.log_beta[t]
        v = (np.log(best) - low) / (high - low) if high > low else 0.0
        return ideal(x_t, t), one(v)

    model = SimpleNamespace(with_variance=with_variance)
    bound = exact_bound(schedule, model, m, s, "learned")
    missed = gaussian_kl(np.sqrt(ab[-1]) * m, ab[-1] * s**2 + 1 - ab[-1], 0, 1)
    assert bound == pytest.approx(entropy(s) + missed, abs=1e-7 * schedule.T)


def gradients(objective, *leaves):
    leaves = [Tensor(leaf) for leaf in leaves]
    with Tape() as tape:
        loss = objective(*leaves)
    tape.backward(loss)
    return [np.zeros_like(leaf.data) if leaf.grad is None else leaf.grad for leaf in leaves]


@given(schedules, seeds, st.floats(1e-3, 1))
def test_in_the_hybrid_objective_each_part_teaches_its_own_half(schedule, seed, share):
    """Nichol & Dhariwal 2021, eq. 16: L_hybrid = L_simple + share L_vlb.

    eps_theta has the gradient of the first term alone, v that of the second.
    """
    rng = np.random.default_rng(seed)
    x0, eps, guess, v = rng.standard_normal((4, 5, 3, 2))
    t = rng.integers(1, schedule.T + 1, 5)
    weight = rng.uniform(0.5, 2, schedule.T + 1)

    def hybrid(eps_hat, v):
        model = learner(eps_hat, v)
        return diffusion.l_hybrid(schedule, model, x0, t, eps, None, weight, share)

    def simple(eps_hat):
        return l_simple(schedule, lambda *_: eps_hat, x0, t, eps, None, weight)

    def bound(eps_hat, v):
        return l_vlb(schedule, learner(eps_hat, v), x0, t, eps, None)

    by_eps, by_v = gradients(hybrid, guess, v)
    bound_by_eps, bound_by_v = gradients(bound, guess, v)
    assert np.array_equal(by_eps, gradients(simple, guess)[0]) and np.abs(bound_by_eps).max() > 0
    rounding = 1e-12 * share * np.abs(bound_by_v).max()  # where the parts of an entry cancel
    np.testing.assert_allclose(by_v, share * bound_by_v, rtol=1e-9, atol=rounding)
    value = simple(guess) + share * bound(guess, v)
    assert hybrid(guess, v) == pytest.approx(value, rel=1e-12)


class Asked:
    """A denoiser that notes what it is shown, and predicts 0."""

    def __init__(self):
        self.shown = []  # (x_t, t, cond)

    def with_variance(self, *shown):
        self.shown.append(shown)
        return np.zeros_like(shown[0]), np.zeros_like(shown[0])


@pytest.mark.parametrize("objective", [diffusion.l_hybrid, l_vlb])
def test_an_objective_shows_x_t_with_its_own_t_and_cond(objective):
    schedule = cosine_schedule(4)
    x0, eps, cond = np.random.default_rng(0).standard_normal((3, 5, 3, 2))
    t = np.array([1, 2, 3, 4, 4])
    asked = Asked()
    objective(schedule, asked, x0, t, eps, cond, np.ones(5))
    (x_t, shown_t, shown_cond), = asked.shown
    assert np.array_equal(x_t, q_sample(schedule, x0, t, eps))
    assert shown_t is t and shown_cond is cond


def test_the_bound_shows_new_noise_at_each_t_with_cond():
    """In the precision of the data; its terms are float64."""
    schedule = cosine_schedule(4)
    cond = np.ones((5, 1))
    x0 = np.zeros((5, 3, 2), np.float32)
    asked = Asked()
    rng = np.random.default_rng(0)
    terms = diffusion.variational_bound(schedule, asked, x0, cond, rng, "learned")
    assert terms.dtype == np.float64 and [t for _, t, _ in asked.shown] == [1, 2, 3, 4]
    shown = np.array([x_t for x_t, _, _ in asked.shown])
    assert shown.dtype == np.float32 and len(np.unique(shown)) == 4 * x0.size
    assert all(shown_cond is cond for _, _, shown_cond in asked.shown)


def test_the_defaults_are_those_of_the_literature():
    """The fixed variance of the bound is beta; the hybrid objective has a thousandth of it."""
    schedule = cosine_schedule(4)
    x0, eps = np.ones((2, 5, 1, 1))
    bounds = [diffusion.variational_bound(schedule, constant(0.2), x0, None,
                                          np.random.default_rng(0), *variance)
              for variance in ([], ["beta"])]
    assert np.array_equal(*bounds)
    objectives = [diffusion.l_hybrid(schedule, Asked(), x0, np.full(5, 2), eps, None, np.ones(5),
                                     *share) for share in ([], [1e-3])]
    assert objectives[0] == objectives[1]


@given(schedules, seeds)
def test_with_a_fixed_variance_the_bound_has_the_gradient_of_l_simple(schedule, seed):
    """Eq. 10 and 11: L_vlb = T E[bound_weight(t) (eps - eps_theta)^2] + constant."""
    rng = np.random.default_rng(seed)
    x0, eps, guess = rng.standard_normal((3, 5, 3, 2))
    t = rng.integers(1, schedule.T + 1, 5)

    def bound(eps_hat):
        return l_vlb(schedule, lambda *_: eps_hat, x0, t, eps, None, variance="beta")

    def simple(eps_hat):
        return l_simple(schedule, lambda *_: eps_hat, x0, t, eps, None, bound_weight(schedule))

    by_bound, = gradients(bound, guess)
    by_simple, = gradients(simple, guess)
    tolerance = 1e-9 * np.abs(by_bound).max()
    np.testing.assert_allclose(by_bound, schedule.T * by_simple, rtol=1e-6, atol=tolerance)


@given(schedules, seeds)
def test_over_all_timesteps_the_objective_is_the_bound_less_its_last_term(schedule, seed):
    """One sample at each t = 1..T: L_vlb = L_0 + .. + L_{T-1}."""
    rng = np.random.default_rng(seed)
    T = schedule.T
    x0 = np.repeat(rng.standard_normal((1, 2, 3)), T, 0)
    eps = rng.standard_normal((T, 2, 3))
    model = SimpleNamespace(with_variance=lambda x_t, t, cond: (0.9 * x_t, 0.3 * x_t))
    objective = l_vlb(schedule, model, x0, np.arange(1, T + 1), eps, None)
    noise = iter(eps)
    replay = SimpleNamespace(standard_normal=lambda shape, dtype: next(noise)[None])
    terms = diffusion.variational_bound(schedule, model, x0[:1], None, replay, "learned")
    assert terms.shape == (T + 1,)
    assert objective == pytest.approx(terms[:-1].sum(), rel=1e-9)
