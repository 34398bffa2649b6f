"""The other samplers: exact laws, orders of convergence, and one mixture that all of them recover.

As in test_reverse_process.py, a sampler on a Gaussian law is affine in its noise, and impulses show its whole law.
"""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from laws import (chain_law, gaussian_denoiser, log_normal, mixture_denoiser, named_schedules, numbers, one,
                  schedule_and_t, schedules, spreads)

from minidiff import tensor as tn
from minidiff.diffusion import ancestral_sampling, cosine_schedule
from minidiff.beyond.samplers import (annealed_langevin, ddim_sampling, ddim_timesteps, flow_step, langevin_step, log_likelihood,
                               predictor_corrector, probability_flow, reverse_sde)
from minidiff.tensor import Tensor, tensor


# ---- DDIM ---------------------------------------------------------------------------------------------------------

@given(st.integers(1, 300), st.data())
def test_ddim_visits_T_first_and_0_last(T, data):
    steps = data.draw(st.integers(1, T))
    ts = ddim_timesteps(T, steps)
    assert ts[0] == T and ts[-1] == 0 and len(ts) == steps + 1 and (np.diff(ts) < 0).all()
    assert np.abs(np.diff(ts) + T / steps).max() <= 1


@pytest.mark.parametrize("steps", [0, 11])
def test_ddim_refuses_more_steps_than_there_are(steps):
    with pytest.raises(ValueError, match="1 to T = 10"):
        ddim_timesteps(10, steps)


@given(schedules, numbers, st.floats(0, 1), st.data())
def test_ddim_keeps_the_marginals_for_every_eta(schedule, m, eta, data):
    """Song et al. 2021, lemma 1: from x_T ~ q(x_T | x_0), each visited x_s is distributed as q(x_s | x_0)."""
    steps = data.draw(st.integers(1, schedule.T))
    ab = schedule.alpha_bar[ddim_timesteps(schedule.T, steps)]
    chain = lambda x_T, rng: ddim_sampling(schedule, gaussian_denoiser(schedule, m, 0), x_T, None, rng, steps, eta)
    mean, var = chain_law(chain, steps, np.sqrt(ab[0]) * m, np.sqrt(1 - ab[0]))
    assert mean == pytest.approx(np.sqrt(ab) * m, abs=1e-9)  # rounding grows by 1/sqrt(alpha_bar_T) in x0_from_eps
    assert var == pytest.approx(1 - ab, abs=1e-9)


@given(named_schedules, st.none() | st.floats(0.5, 2))
@settings(max_examples=30)
def test_ddim_with_eta_1_on_all_timesteps_is_ancestral_sampling(schedule, clip):
    """The same x at every step from the same noise, for a denoiser that is not affine; with and without clipping."""
    eps_theta = mixture_denoiser(schedule, (0.4, 0.6), (-1.0, 1.2), (0.2, 0.3))
    x_T = np.random.default_rng(1).standard_normal((4, 3, 2))
    chains = (ancestral_sampling(schedule, eps_theta, x_T, None, np.random.default_rng(2), clip=clip),
              ddim_sampling(schedule, eps_theta, x_T, None, np.random.default_rng(2), schedule.T, 1.0, clip=clip))
    for a, b in zip(*chains, strict=True):
        assert a == pytest.approx(b, abs=1e-8)


def test_ddim_converges_at_first_order():
    """N(0.7, 0.3^2): the error of the standard deviation halves when the number of steps doubles."""
    errors = []
    for T in (25, 50, 100, 200, 400):
        schedule = cosine_schedule(T)
        chain = lambda x_T, rng: ddim_sampling(schedule, gaussian_denoiser(schedule, 0.7, 0.3), x_T, None, rng, T)
        mean, var = chain_law(chain, 0)
        assert mean[-1] == pytest.approx(0.7, abs=2 * 0.3 / T + 1e-3)
        errors.append(abs(np.sqrt(var[-1]) - 0.3))
    ratios = np.array(errors[:-1]) / errors[1:]
    assert ratios == pytest.approx(2, abs=0.2), errors


def test_ddim_carries_quantiles_to_quantiles():
    """In one dimension the deterministic map keeps the order: the share of the prior that reaches the left mode is the
    left mode's weight."""
    schedule = cosine_schedule(500)
    x_T = one(np.linspace(-4, 4, 4001))
    *_, x_0 = ddim_sampling(schedule, mixture_denoiser(schedule, (0.3, 0.7), (-1.5, 1.0), (0.15, 0.25)), x_T, None,
                            None, steps=500)
    assert (np.diff(x_0[:, 0, 0]) > 0).all()
    border = x_T[np.searchsorted(x_0[:, 0, 0], -0.3), 0, 0]
    assert border == pytest.approx(-0.5244, abs=0.02)  # the 30 % quantile of N(0, 1)


@pytest.mark.parametrize("sampler", [ancestral_sampling, ddim_sampling])
def test_samplers_stay_in_float32(sampler):
    schedule = cosine_schedule(20)
    x_T = np.ones((2, 3, 2), np.float32)
    eps_theta = lambda x, t, cond: Tensor(np.float32(0.5) * x)
    for x in sampler(schedule, eps_theta, x_T, None, np.random.default_rng(0), clip=1.0):
        assert x.dtype == np.float32


# ---- the SDE and its ODE ------------------------------------------------------------------------------------------

def test_the_reverse_sde_converges_to_the_data_at_first_order():
    """N(0.7, 0.3^2): the error of the standard deviation halves when the number of steps doubles."""
    errors = []
    for T in (50, 100, 200, 400):
        schedule = cosine_schedule(T)
        chain = lambda x_T, rng: reverse_sde(schedule, gaussian_denoiser(schedule, 0.7, 0.3), x_T, None, rng)
        mean, var = chain_law(chain, T - 1)
        assert mean[-1] == pytest.approx(0.7, abs=2 / T)
        errors.append(abs(np.sqrt(var[-1]) - 0.3))
    assert np.array(errors[:-1]) / errors[1:] == pytest.approx(2, abs=0.25), errors


@given(named_schedules, numbers, st.data())
def test_a_step_of_the_reverse_sde_is_the_reverse_of_its_drift_with_the_noise_of_the_forward_step(schedule, m, data):
    """Song et al. 2021, eq. 6: dx = [f - g^2 score] dt + g dw with f = -beta x/2 and g^2 = beta, and time running back."""
    steps = data.draw(st.integers(1, schedule.T))
    ts, ab = ddim_timesteps(schedule.T, steps), schedule.alpha_bar
    chain = lambda x_T, rng: reverse_sde(schedule, gaussian_denoiser(schedule, m, 0.5), x_T, None, rng, steps)
    mean, var = chain_law(chain, steps - 1)
    t, s = ts[0], ts[1]
    beta, v = 1 - ab[t] / ab[s], ab[t] * 0.25 + 1 - ab[t]
    assert mean[1] == pytest.approx(beta * np.sqrt(ab[t]) * m / v, abs=1e-9)  # from x_T = 0
    assert var[1] == pytest.approx((1 + beta / 2 - beta / v) ** 2 + beta * (s > 0), abs=1e-9)


def exact_flow(schedule, x, t, s, m, spread):
    """Where the probability-flow ODE takes x from t to s on N(m, spread^2): it keeps quantiles."""
    ab = schedule.alpha_bar
    std = np.sqrt(ab * spread**2 + 1 - ab)
    return np.sqrt(ab[s]) * m + (x - np.sqrt(ab[t]) * m) / std[t] * std[s]


def test_the_probability_flow_converges_at_second_order():
    """The error against the exact solution falls by four when the number of steps doubles, on one fine schedule (with
    s = 0, so that the angle grows evenly)."""
    schedule, x_T = cosine_schedule(3200, s=0), one([-2.0, -0.5, 0.3, 1.7])
    expected = exact_flow(schedule, x_T, schedule.T, 0, 0.7, 0.3)
    errors = []
    for steps in (25, 50, 100, 200):
        *_, x_0 = probability_flow(schedule, gaussian_denoiser(schedule, 0.7, 0.3), x_T, None, None, steps)
        errors.append(np.abs(x_0 - expected).max())
    assert np.array(errors[:-1]) / errors[1:] == pytest.approx(4, abs=0.8), errors
    assert errors[-1] < 2e-4


@given(schedule_and_t(2), numbers, numbers)
def test_ddim_follows_the_flow(s_t, x_t, eps):
    """A step of DDIM is the rotation cos(d) x_t + sin(d) v, whose velocity at its start is that of the flow."""
    schedule, t = s_t
    ab = schedule.alpha_bar
    x0 = (x_t - np.sqrt(1 - ab[t]) * eps) / np.sqrt(ab[t])
    d = np.arctan2(schedule.noise[t - 1], schedule.signal[t - 1]) - np.arctan2(schedule.noise[t], schedule.signal[t])
    v = (flow_step(schedule, lambda x, t: eps, one(x_t), t, 0) - x_t) / -np.arctan2(schedule.noise[t], schedule.signal[t])
    ddim = np.sqrt(ab[t - 1]) * x0 + np.sqrt(1 - ab[t - 1]) * eps
    assert np.cos(d) * x_t + np.sin(d) * v == pytest.approx(ddim, abs=1e-9 * (1 + abs(x0)))


@given(named_schedules, numbers)
@settings(max_examples=20)
def test_no_noise_enters_the_flow(schedule, m):
    runs = [list(probability_flow(schedule, gaussian_denoiser(schedule, m, 0.5), one([0.3, -1]), None, None, schedule.T))
            for _ in range(2)]
    assert len(runs[0]) == schedule.T + 1 and np.array_equal(*runs)


@given(numbers, st.floats(0.2, 2), numbers)
@settings(max_examples=20)
def test_the_likelihood_of_the_flow_is_that_of_the_data(m, s, x):
    """N(m, s^2) in two independent numbers, at T = 200."""
    schedule = cosine_schedule(200)
    x0 = np.array([[[x], [m + s]]])
    expected = log_normal(x0, m, s**2).sum()
    got = log_likelihood(schedule, gaussian_denoiser(schedule, m, s), x0, np.zeros((1, 0)))
    assert got.shape == (1,) and got[0] == pytest.approx(expected, abs=5e-3 * (1 + ((x - m) / s) ** 2))


def crooked(schedule):
    """An eps_theta that belongs to no data in particular, mixes its two numbers, and is bent."""
    def eps_theta(x_t, t, cond):
        x = tensor(x_t) * schedule.noise[t]
        other = tn.concat([x[:, :, 1:], x[:, :, :1]])
        return x * 0.8 + tn.silu(other * 2.0) * 0.3 * schedule.signal[t]
    return eps_theta


def test_the_likelihood_of_the_flow_is_a_density_for_any_network():
    """Whatever eps_theta is and however few the steps: exp(log p) over the plane has the integral 1, because
    change of variables with the whole Jacobian is exact."""
    schedule = cosine_schedule(12)
    line = np.linspace(-9, 9, 241)
    x0 = np.stack(np.meshgrid(line, line), -1).reshape(-1, 1, 2)
    log_p = log_likelihood(schedule, crooked(schedule), x0, np.zeros((len(x0), 0)), steps=6)
    assert np.exp(log_p).sum() * (line[1] - line[0]) ** 2 == pytest.approx(1, abs=1e-6)


# ---- Langevin dynamics --------------------------------------------------------------------------------------------

@given(schedule_and_t(), numbers, spreads, st.floats(0.01, 0.5))
def test_a_langevin_step_keeps_the_noised_data_but_for_the_square_of_its_size(s_t, m, s, size):
    """q(x_t) = N(sqrt(alpha_bar_t) m, v): the mean stays; the variance becomes v + a^2/(4 v), a = size (1-alpha_bar_t)."""
    schedule, t = s_t
    ab = schedule.alpha_bar[t]
    v, a = ab * s**2 + 1 - ab, size * (1 - ab)

    def chain(x, rng):
        yield langevin_step(schedule, gaussian_denoiser(schedule, m, s), x, t, None, rng, size)
    mean, var = chain_law(chain, 1, np.sqrt(ab) * m, np.sqrt(v))
    assert mean[0] == pytest.approx(np.sqrt(ab) * m, abs=1e-10)
    assert var[0] == pytest.approx(v + a**2 / (4 * v), rel=1e-9)


def test_annealed_langevin_comes_the_closer_to_the_data_the_smaller_and_more_its_steps():
    schedule, errors = cosine_schedule(50), []
    for size, repeats in ((0.6, 3), (0.4, 9), (0.2, 36)):
        chain = lambda x_T, rng: annealed_langevin(schedule, gaussian_denoiser(schedule, 0.7, 0.3), x_T, None, rng,
                                                   repeats=repeats, size=size)
        mean, var = chain_law(chain, schedule.T * repeats)
        assert len(mean) == schedule.T + 1
        errors.append(abs(mean[-1] - 0.7) + abs(np.sqrt(var[-1]) - 0.3))
    assert (np.diff(errors) < 0).all() and errors[-1] < 0.025, errors


@given(named_schedules, numbers)
@settings(max_examples=20)
def test_langevin_dynamics_end_in_a_finished_sample_without_noise(schedule, m):
    """On a point mass whatever is left of the noise at t = 1 is seen and taken away."""
    *_, x = annealed_langevin(schedule, gaussian_denoiser(schedule, m, 0), one([-1, 2]), None, np.random.default_rng(0))
    assert x == pytest.approx(m, abs=1e-9)


@given(named_schedules, numbers)
@settings(max_examples=20)
def test_a_predictor_without_a_corrector_is_ancestral_sampling(schedule, m):
    eps_theta, x_T = mixture_denoiser(schedule, (0.4, 0.6), (m, 1.2), (0.2, 0.3)), one([-1, 0.4])
    chains = (predictor_corrector(schedule, eps_theta, x_T, None, np.random.default_rng(2), repeats=0),
              ancestral_sampling(schedule, eps_theta, x_T, None, np.random.default_rng(2)))
    assert np.array_equal(*map(list, chains))


def test_the_corrector_takes_away_what_the_predictor_gets_wrong():
    """N(0.7, 0.3^2) in 20 steps: the spread that beta_tilde makes too small is mended by Langevin steps."""
    schedule, errors = cosine_schedule(20), []
    for repeats in (0, 8, 64):
        chain = lambda x_T, rng: predictor_corrector(schedule, gaussian_denoiser(schedule, 0.7, 0.3), x_T, None, rng, repeats)
        _, var = chain_law(chain, (schedule.T - 1) * (1 + repeats))
        errors.append(abs(np.sqrt(var[-2]) - np.sqrt(schedule.alpha_bar[1] * 0.09 + 1 - schedule.alpha_bar[1])))
    assert errors[2] < errors[1] / 2 and errors[1] < errors[0] / 1.4, errors


# ---- all of them --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sampler, options", [
    (ddim_sampling, {"steps": 100}), (ddim_sampling, {"steps": 200, "eta": 1.0}), (reverse_sde, {}),
    (probability_flow, {"steps": 50}), (annealed_langevin, {"size": 0.3, "repeats": 10}), (predictor_corrector, {})],
    ids=["ddim", "ddim, eta 1", "sde", "flow", "langevin", "pc"])
def test_every_sampler_recovers_a_mixture(sampler, options):
    """Monte Carlo, 10,000 samples at T = 200: the share of a mode within 6 standard errors (0.027), its mean and spread
    within 6 (0.025 for the smaller mode) and 0.02 for finitely many steps. 30 checks at 6 sigma: false alarm 6e-8."""
    schedule, n = cosine_schedule(200), 10_000
    weights, means, widths = (0.3, 0.7), (-1.5, 1.0), (0.15, 0.25)
    rng = np.random.default_rng(0)
    *_, x = sampler(schedule, mixture_denoiser(schedule, weights, means, widths), rng.standard_normal((n, 1, 1)), None, rng,
                    **options)
    for w, m, s, mode in zip(weights, means, widths, (x[x < -0.3], x[x >= -0.3])):
        assert len(mode) / n == pytest.approx(w, abs=6 * np.sqrt(w * (1 - w) / n))
        assert mode.mean() == pytest.approx(m, abs=6 * s / np.sqrt(w * n) + 0.02)
        assert mode.std() == pytest.approx(s, abs=6 * s / np.sqrt(2 * w * n) + 0.02)
