"""The training objective (eq. 11-13): what L_simple is worth, what lambda(t) weighs, the score."""
from minidiff import diffusion
from minidiff.diffusion import WEIGHTS, l_simple, loss_weight, q_sample, sample_t, score_from_eps

import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import log_normal, numbers, one, schedule_and_t, schedules, spreads


@given(schedule_and_t(), numbers, spreads)
def test_l_simple_at_the_ideal_denoiser_is_the_variance_left_unknown(s_t, m, s):
    """Eq. 11 for x_0 ~ N(m, s^2): E||eps - eps*||^2 = Var(eps | x_t).

    That is alpha_bar s^2 / (alpha_bar s^2 + 1-alpha_bar). The loss is quadratic in (x_0, eps), so
    four points, x_0 = m +- s with eps = +-1, give the expectation exactly.
    """
    schedule, t = s_t
    x0 = one([m - s, m - s, m + s, m + s])
    eps = one([-1, 1, -1, 1])
    ideal = laws.gaussian_denoiser(schedule, m, s)
    loss = l_simple(schedule, ideal, x0, np.full(4, t), eps, None, np.ones(schedule.T + 1))
    ab = schedule.alpha_bar[t]
    unknown = ab * s**2 / (ab * s**2 + 1 - ab)
    assert loss == pytest.approx(unknown, rel=1e-8, abs=1e-13)


@given(schedules, st.data())
def test_l_simple_weighs_each_sample_by_lambda_of_its_own_t(schedule, data):  # eq. 11
    t = np.array(data.draw(st.lists(st.integers(1, schedule.T), min_size=2, max_size=6)))
    rng = np.random.default_rng(0)
    x0, eps = rng.standard_normal((2, len(t), 3, 2))
    weight = rng.uniform(0.1, 2, schedule.T + 1)
    cond = rng.standard_normal((len(t), 3))

    def guess(x_t, t, cond):
        return 0.3 * x_t + cond[:, :, None]

    by_hand = []
    for i in range(len(t)):
        row = slice(i, i + 1)
        x_t = q_sample(schedule, x0[row], t[row], eps[row])
        error = eps[row] - guess(x_t, t[row], cond[row])
        by_hand.append(weight[t[i]] * error**2)
    loss = l_simple(schedule, guess, x0, t, eps, cond, weight)
    assert loss == pytest.approx(np.mean(by_hand), rel=1e-12)


@given(schedules, st.sampled_from(WEIGHTS))
def test_weights_have_mean_one_and_leave_no_timestep_out(schedule, name):
    weight = loss_weight(schedule, name)
    assert weight.shape == (schedule.T + 1,)
    assert weight[1:].mean() == pytest.approx(1, rel=1e-12)
    assert (weight[1:] > 0).all()  # t = T among them


def test_a_weight_by_another_name_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="weight 'snr': choose from uniform, inverse-alpha-bar,"):
        loss_weight(diffusion.cosine_schedule(5), "snr")


@given(schedules, numbers, numbers, st.floats(0.1, 2))
def test_each_weight_turns_the_eps_error_into_the_error_it_is_named_for(schedule, x0, eps, off):
    """At the same x_t, for an eps_hat that is off, and up to one factor for all t.

    inverse-alpha-bar: the error of v = sqrt(alpha_bar) eps - sqrt(1-alpha_bar) x_0, at most 1e4
    times that of eps. min-snr: the error of x_0 times min(SNR, 5). bound: the distance between the
    two means of x_{t-1}, over 2 beta_t. uniform: the error of eps itself.
    """
    t = np.arange(1, schedule.T + 1)  # all of them, as one batch
    x0 = one(np.full(schedule.T, x0))
    eps = one(np.full(schedule.T, eps))
    x_t = q_sample(schedule, x0, t, eps)
    x0_hat = diffusion.x0_from_eps(schedule, x_t, t, eps + off)
    x0_error = (x0_hat - x0).ravel()
    v_error = np.sqrt(schedule.alpha_bar[t]) * off - np.sqrt(1 - schedule.alpha_bar[t]) * x0_error
    errors = {
        "uniform": np.full(schedule.T, off**2),
        "inverse-alpha-bar": np.minimum(v_error**2, 1e4 * off**2),
        "min-snr": np.minimum(schedule.snr[t], 5) * x0_error**2,
        "bound": (schedule.c_x0[t] * x0_error) ** 2 / (2 * schedule.beta[t]),
    }
    assert set(errors) == set(WEIGHTS)
    for name, error in errors.items():
        weight = loss_weight(schedule, name)
        assert weight[0] == 0
        assert weight[1:] == pytest.approx(error / error.mean(), rel=1e-8), name


def test_t_is_uniform_on_1_to_T():
    """Eq. 12 by Monte Carlo: 1e6 samples over T = 10, which shows a share that is off by 1.8 %.

    Neither 0 nor T + 1 comes, and T does.
    """
    schedule = diffusion.linear_schedule(10)
    t = sample_t(schedule, 1_000_000, np.random.default_rng(0))
    assert t.shape == (1_000_000,) and t.min() == 1 and t.max() == 10
    counts = np.bincount(t)[1:]
    laws.assert_close(counts, 1e5, np.sqrt(1e6 * 0.1 * 0.9))


@given(schedule_and_t(), numbers, numbers)
def test_the_noise_is_the_score_of_the_forward_process(s_t, x0, eps):
    """Eq. 13: -eps / sqrt(1-alpha_bar_t) = d/dx_t log q(x_t | x_0), by complex step."""
    schedule, t = s_t
    x_t = q_sample(schedule, one(x0), t, one(eps))
    mean, variance = diffusion.q_mean_variance(schedule, one(x0), t)
    slope = log_normal(x_t + 1e-30j, mean, variance).imag / 1e-30
    tolerance = 1e-13 * (1 + abs(eps)) / (1 - schedule.alpha_bar[t])
    assert score_from_eps(schedule, t, one(eps)) == pytest.approx(slope, abs=tolerance)


@given(schedule_and_t(), numbers)
def test_the_ideal_denoiser_is_the_score_of_the_noised_data(s_t, x_t):
    """Eq. 13 for a mixture: score of q(x_t) = -eps*(x_t) / sqrt(1-alpha_bar_t), by complex step."""
    schedule, t = s_t
    weights, means, widths = (0.3, 0.7), (-1.0, 0.8), (0.3, 0.5)
    ab = schedule.alpha_bar[t]
    x = one(x_t) + 1e-30j
    logs = [np.log(w) + log_normal(x, np.sqrt(ab) * m, ab * s**2 + 1 - ab)
            for w, m, s in zip(weights, means, widths)]
    top = max(log.real.max() for log in logs)
    slope = (top + np.log(sum(np.exp(log - top) for log in logs))).imag / 1e-30
    eps = laws.mixture_denoiser(schedule, weights, means, widths)(one(x_t), t)
    assert score_from_eps(schedule, t, eps) == pytest.approx(slope, rel=1e-8, abs=1e-8)


@given(schedule_and_t(), numbers, numbers, numbers)
def test_l_simple_is_denoising_score_matching(s_t, x0, eps, guess):
    """Eq. 13: ||eps - eps_theta||^2 = (1-alpha_bar_t) ||score of q(x_t|x_0) - score_theta||^2."""
    schedule, t = s_t
    score = score_from_eps(schedule, t, one(eps))
    score_theta = score_from_eps(schedule, t, one(guess))
    expected = (1 - schedule.alpha_bar[t]) * (score - score_theta).item() ** 2

    def eps_theta(x_t, t, cond):
        return one(guess)

    loss = l_simple(schedule, eps_theta, one(x0), np.array([t]), one(eps), None,
                    np.ones(schedule.T + 1))
    assert loss == pytest.approx(expected, rel=1e-9, abs=1e-25)
