"""The training objective (eq. 11-13): what L_simple is worth, what lambda(t) weighs, and why it matches the score."""
import numpy as np
import pytest
from hypothesis import given, strategies as st
from laws import gaussian_denoiser, log_normal, mixture_denoiser, numbers, one, schedule_and_t, schedules, spreads

from minidiff.diffusion import (WEIGHTS, l_simple, loss_weight, q_mean_variance, q_sample, sample_t, score_from_eps,
                                x0_from_eps)
from minidiff.tensor import Tensor


@given(schedule_and_t(), numbers, spreads)
def test_l_simple_at_the_ideal_denoiser_is_the_variance_that_stays_unknown(s_t, m, s):
    """Eq. 11 for x_0 ~ N(m, s^2): E||eps - eps*||^2 = Var(eps | x_t) = alpha_bar s^2 / (alpha_bar s^2 + 1-alpha_bar).

    The loss is quadratic in (x_0, eps), so four points, x_0 = m +- s with eps = +-1, give the expectation exactly.
    """
    schedule, t = s_t
    x0, eps = one([m - s, m - s, m + s, m + s]), one([-1, 1, -1, 1])
    ab = schedule.alpha_bar[t]
    loss = l_simple(schedule, gaussian_denoiser(schedule, m, s), x0, np.full(4, t), eps, None, np.ones(schedule.T + 1))
    assert float(loss.data) == pytest.approx(ab * s**2 / (ab * s**2 + 1 - ab), rel=1e-8, abs=1e-13)


@given(schedules, st.data())
def test_l_simple_weighs_each_sample_by_lambda_of_its_own_t(schedule, data):  # eq. 11
    t = np.array(data.draw(st.lists(st.integers(1, schedule.T), min_size=2, max_size=6)))
    rng = np.random.default_rng(0)
    x0, eps = rng.standard_normal((2, len(t), 3, 2))
    weight = rng.uniform(0.1, 2, schedule.T + 1)
    guess = lambda x_t, t, cond: Tensor(0.3 * x_t + cond[:, :, None])
    cond = rng.standard_normal((len(t), 3))
    by_hand = [weight[t[i]] * (eps[i] - guess(q_sample(schedule, x0[i:i+1], t[i:i+1], eps[i:i+1]), t, cond[i:i+1]).data)**2
               for i in range(len(t))]
    assert float(l_simple(schedule, guess, x0, t, eps, cond, weight).data) == pytest.approx(np.mean(by_hand), rel=1e-12)


@given(schedules, st.sampled_from(sorted(WEIGHTS)))
def test_weights_have_mean_one_and_leave_no_timestep_out(schedule, name):
    weight = loss_weight(schedule, name)
    assert weight.shape == (schedule.T + 1,) and weight[1:].mean() == pytest.approx(1, rel=1e-12)
    assert (weight[1:] > 0).all()  # t = T among them


@given(schedule_and_t(), numbers, numbers, numbers)
def test_each_weight_turns_the_eps_error_into_the_error_it_is_named_for(s_t, x0, eps, guess):
    """1/alpha_bar: the error of v = sqrt(alpha_bar) eps - sqrt(1-alpha_bar) x_0 at the same x_t;
    min-snr: the error of x_0 times min(SNR, 5); uniform: the error of eps itself. Up to one factor for all t."""
    schedule, t = s_t
    ab, snr = schedule.alpha_bar[t], schedule.snr[t]
    x_t = q_sample(schedule, one(x0), t, one(eps))
    x0_guess = x0_from_eps(schedule, x_t, t, one(guess))
    v = lambda x0, eps: np.sqrt(ab) * eps - np.sqrt(1 - ab) * x0
    eps_error = (eps - guess) ** 2
    errors = {"uniform": eps_error, "min-snr": min(snr, 5) * (x0 - x0_guess) ** 2}
    if 1 / ab < 1e4:  # the cap
        errors["inverse-alpha-bar"] = (v(x0, eps) - v(x0_guess, guess)) ** 2
    for name, error in errors.items():
        assert WEIGHTS[name](schedule)[t - 1] * eps_error == pytest.approx(error, rel=1e-6, abs=1e-9 / ab)


def test_t_is_uniform_on_1_to_T():
    """Eq. 12 by Monte Carlo: 1e6 draws over T = 10; a count within 6 standard errors of a tenth for each t (false alarm
    2e-8 in all) detects a share that is off by 1.8 %. Neither 0 nor T + 1 is drawn, and T is."""
    class Ten:
        T = 10
    t = sample_t(Ten, 1_000_000, np.random.default_rng(0))
    assert t.shape == (1_000_000,) and t.min() == 1 and t.max() == 10
    counts = np.bincount(t)[1:]
    assert np.abs(counts - 1e5).max() < 6 * np.sqrt(1e6 * 0.1 * 0.9)


@given(schedule_and_t(), numbers, numbers)
def test_the_noise_is_the_score_of_the_forward_process(s_t, x0, eps):
    """Eq. 13: -eps / sqrt(1-alpha_bar_t) = d/dx_t log q(x_t | x_0), by complex step."""
    schedule, t = s_t
    x_t = q_sample(schedule, one(x0), t, one(eps))
    slope = log_normal(x_t + 1e-30j, *q_mean_variance(schedule, one(x0), t)).imag / 1e-30
    noise = np.sqrt(1 - schedule.alpha_bar[t])
    assert score_from_eps(schedule, t, one(eps)) == pytest.approx(slope, abs=1e-13 * (1 + abs(eps)) / noise**2)


@given(schedule_and_t(), numbers)
def test_the_ideal_denoiser_is_the_score_of_the_noised_data(s_t, x_t):
    """Eq. 13 for a mixture: score of q(x_t) = -eps*(x_t) / sqrt(1-alpha_bar_t), by complex step."""
    schedule, t = s_t
    weights, means, widths = (0.3, 0.7), (-1.0, 0.8), (0.3, 0.5)
    ab, x = schedule.alpha_bar[t], one(x_t) + 1e-30j
    logs = [np.log(w) + log_normal(x, np.sqrt(ab) * m, ab * s**2 + 1 - ab) for w, m, s in zip(weights, means, widths)]
    top = max(log.real.max() for log in logs)
    slope = (top + np.log(sum(np.exp(log - top) for log in logs))).imag / 1e-30
    eps = mixture_denoiser(schedule, weights, means, widths)(one(x_t), t).data
    assert score_from_eps(schedule, t, eps) == pytest.approx(slope, rel=1e-8, abs=1e-8)


@given(schedule_and_t(), numbers, numbers, numbers)
def test_l_simple_is_denoising_score_matching(s_t, x0, eps, guess):
    """Eq. 13: ||eps - eps_theta||^2 = (1-alpha_bar_t) ||score of q(x_t|x_0) - score_theta||^2."""
    schedule, t = s_t
    difference = score_from_eps(schedule, t, one(eps)) - score_from_eps(schedule, t, one(guess))
    loss = l_simple(schedule, lambda x, t, c: Tensor(one(guess)), one(x0), np.array([t]), one(eps), None,
                    np.ones(schedule.T + 1))
    assert float(loss.data) == pytest.approx((1 - schedule.alpha_bar[t]) * difference.item()**2, rel=1e-9, abs=1e-25)
