"""The other samplers: exact laws, orders of convergence, and one mixture that all of them recover.

As in test_reverse_process.py, a sampler on a Gaussian law is affine in its noise, and impulses show
its whole law.
"""
from minidiff import tensor as tn
from minidiff.beyond import SAMPLERS, bind, samplers
from minidiff.beyond.samplers import ddim_sampling, ddim_timesteps, flow_step, probability_flow
from minidiff.diffusion import ancestral_sampling, cosine_schedule

import laws
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import chain_law, gaussian_denoiser, log_normal, numbers, one, schedule_and_t, schedules


def ideal(schedule):
    """The denoiser of N(0.7, 0.3^2)."""
    return gaussian_denoiser(schedule, 0.7, 0.3)


# ---- DDIM ----------------------------------------------------------------------------------------

@given(st.integers(1, 300), st.data())
def test_ddim_visits_T_first_and_0_last(T, data):
    steps = data.draw(st.integers(1, T))
    ts = ddim_timesteps(T, steps)
    assert ts[0] == T and ts[-1] == 0
    assert len(ts) == steps + 1 and (np.diff(ts) < 0).all()
    assert np.abs(ts - T * (1 - np.arange(steps + 1) / steps)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("steps", [0, 11])
def test_ddim_refuses_more_steps_than_there_are(steps):
    with pytest.raises(ValueError, match="1 to T = 10"):
        ddim_timesteps(10, steps)


@given(schedules, numbers, st.floats(0, 1), st.data())
def test_ddim_keeps_the_marginals_for_every_eta(schedule, m, eta, data):
    """From x_T ~ q(x_T | x_0), each visited x_s is distributed as q(x_s | x_0).

    Song, Meng & Ermon 2021, lemma 1.
    """
    steps = data.draw(st.integers(1, schedule.T))
    ab = schedule.alpha_bar[ddim_timesteps(schedule.T, steps)]
    point = gaussian_denoiser(schedule, m, 0)
    mean, var = chain_law(ddim_sampling, schedule, point, steps, np.sqrt(ab[0]) * m,
                          np.sqrt(1 - ab[0]), steps=steps, eta=eta)
    # rounding grows by 1/sqrt(alpha_bar_T) in x0_from_eps
    assert mean == pytest.approx(np.sqrt(ab) * m, abs=1e-9)
    assert var == pytest.approx(1 - ab, abs=1e-9)


@given(laws.named_schedules, st.none() | st.floats(0.5, 2))
@settings(max_examples=30)
def test_ddim_with_eta_1_on_all_timesteps_is_ancestral_sampling(schedule, clip):
    """The same x at every step from the same noise, for a denoiser that is not affine."""
    eps_theta = laws.mixture_denoiser(schedule, (0.4, 0.6), (-1.0, 1.2), (0.2, 0.3))
    x_T = np.random.default_rng(1).standard_normal((4, 3, 2))
    chain = ancestral_sampling(schedule, eps_theta, x_T, None, np.random.default_rng(2), clip=clip)
    ddim = ddim_sampling(schedule, eps_theta, x_T, None, np.random.default_rng(2),
                         steps=schedule.T, eta=1.0, clip=clip)
    for a, b in zip(chain, ddim, strict=True):
        assert a == pytest.approx(b, abs=1e-8)


def test_ddim_converges_at_first_order():
    """The error of the standard deviation halves when the number of steps doubles."""
    errors = []
    for T in (25, 50, 100, 200, 400):
        schedule = cosine_schedule(T)
        mean, var = chain_law(ddim_sampling, schedule, ideal(schedule), 0, steps=T)
        assert mean[-1] == pytest.approx(0.7, abs=2 * 0.3 / T + 1e-3)
        errors.append(abs(np.sqrt(var[-1]) - 0.3))
    ratios = np.array(errors[:-1]) / errors[1:]
    assert ratios == pytest.approx(2, abs=0.2), errors


def test_ddim_carries_quantiles_to_quantiles():
    """In one dimension the deterministic map keeps the order.

    So the share of the prior that reaches the left mode is the left mode's weight.
    """
    schedule = cosine_schedule(500)
    x_T = one(np.linspace(-4, 4, 4001))
    eps_theta = laws.mixture_denoiser(schedule, (0.3, 0.7), (-1.5, 1.0), (0.15, 0.25))
    *_, x_0 = ddim_sampling(schedule, eps_theta, x_T, None, None, steps=500)
    assert (np.diff(x_0[:, 0, 0]) > 0).all()
    border = x_T[np.searchsorted(x_0[:, 0, 0], -0.3), 0, 0]
    assert border == pytest.approx(-0.5244, abs=0.02)  # the 30 % quantile of N(0, 1)


@pytest.mark.parametrize("name", ["ancestral", "ddim", "sde", "flow", "langevin", "pc"])
def test_samplers_stay_in_float32(name):
    schedule = cosine_schedule(20)
    x_T = np.ones((2, 3, 2), np.float32)

    def eps_theta(x, t, cond):
        return np.float32(0.5) * x

    rng = np.random.default_rng(0)
    for x in SAMPLERS[name].function(schedule, eps_theta, x_T, None, rng, clip=1.0):
        assert x.dtype == np.float32


# ---- the SDE and its ODE -------------------------------------------------------------------------

def test_the_reverse_sde_converges_to_the_data_at_first_order():
    """The error of the standard deviation halves when the number of steps doubles."""
    errors = []
    for T in (50, 100, 200, 400):
        schedule = cosine_schedule(T)
        mean, var = chain_law(samplers.reverse_sde, schedule, ideal(schedule), T - 1)
        assert mean[-1] == pytest.approx(0.7, abs=2 / T)
        errors.append(abs(np.sqrt(var[-1]) - 0.3))
    assert np.array(errors[:-1]) / errors[1:] == pytest.approx(2, abs=0.25), errors


@given(laws.named_schedules, numbers, st.data())
def test_a_step_of_the_reverse_sde_has_its_drift_and_its_noise(schedule, m, data):
    """dx = [f - g^2 score] dt + g dw with f = -beta x/2 and g^2 = beta, and time running back.

    Song et al. 2021, eq. 6.
    """
    steps = data.draw(st.integers(1, schedule.T))
    t, s, *_ = ddim_timesteps(schedule.T, steps)
    eps_theta = gaussian_denoiser(schedule, m, 0.5)
    mean, var = chain_law(samplers.reverse_sde, schedule, eps_theta, steps - 1, steps=steps)
    ab = schedule.alpha_bar
    beta = 1 - ab[t] / ab[s]
    v = ab[t] * 0.25 + 1 - ab[t]  # the variance of q(x_t): score = -(x - sqrt(ab) m) / v
    assert mean[1] == pytest.approx(beta * np.sqrt(ab[t]) * m / v, abs=1e-9)  # from x_T = 0
    noise = beta if s > 0 else 0
    assert var[1] == pytest.approx((1 + beta / 2 - beta / v) ** 2 + noise, abs=1e-9)


def exact_flow(schedule, x, t, s, m, spread):
    """Where the probability-flow ODE takes x from t to s on N(m, spread^2): it keeps quantiles."""
    ab = schedule.alpha_bar
    std = np.sqrt(ab * spread**2 + 1 - ab)
    return np.sqrt(ab[s]) * m + (x - np.sqrt(ab[t]) * m) / std[t] * std[s]


def test_the_probability_flow_converges_at_second_order():
    """Its error falls by four when the number of steps doubles.

    On one fine schedule, compared with the exact solution; with s = 0 the angle grows evenly.
    """
    schedule = cosine_schedule(3200, s=0)
    x_T = one([-2.0, -0.5, 0.3, 1.7])
    expected = exact_flow(schedule, x_T, schedule.T, 0, 0.7, 0.3)
    errors = []
    for steps in (25, 50, 100, 200):
        *_, x_0 = probability_flow(schedule, ideal(schedule), x_T, None, None, steps)
        errors.append(np.abs(x_0 - expected).max())
    assert np.array(errors[:-1]) / errors[1:] == pytest.approx(4, abs=0.8), errors
    assert errors[-1] < 2e-4


@given(schedule_and_t(2), numbers, numbers)
def test_ddim_follows_the_flow(s_t, x_t, eps):
    """A step of DDIM is the rotation cos(d) x_t + sin(d) v, and v is the flow's velocity there."""
    schedule, t = s_t
    angle = np.arctan2(schedule.noise, schedule.signal)
    x0 = (x_t - schedule.noise[t] * eps) / schedule.signal[t]
    d = angle[t - 1] - angle[t]
    to_0 = flow_step(schedule, lambda x, t: eps, one(x_t), t, 0)  # one step of Euler
    v = (to_0 - x_t) / -angle[t]
    ddim = schedule.signal[t - 1] * x0 + schedule.noise[t - 1] * eps
    assert np.cos(d) * x_t + np.sin(d) * v == pytest.approx(ddim, abs=1e-9 * (1 + abs(x0)))


@given(schedule_and_t(2), st.data())
def test_a_step_between_two_timesteps_is_one_of_heuns_method(s_t, data):
    """Up or down, from 1 or to 1 too: the mean of the velocities at both ends."""
    schedule, t = s_t
    s = data.draw(st.integers(1, schedule.T).filter(lambda s: s != t))
    t, s = data.draw(st.permutations([t, s]))
    angle = np.arctan2(schedule.noise, schedule.signal)

    def eps(x, t):
        return 0.3 * x + t

    def velocity(x, t):
        return (eps(x, t) - schedule.noise[t] * x) / schedule.signal[t]

    x, step = one(0.7), angle[s] - angle[t]
    first = velocity(x, t)
    expected = x + step * (first + velocity(x + step * first, s)) / 2
    assert flow_step(schedule, eps, x, t, s) == pytest.approx(expected, rel=1e-9)


@given(laws.named_schedules, numbers)
@settings(max_examples=20)
def test_no_noise_enters_the_flow(schedule, m):
    eps_theta = gaussian_denoiser(schedule, m, 0.5)
    x_T = one([0.3, -1])
    first = list(probability_flow(schedule, eps_theta, x_T, None, None, schedule.T))
    again = list(probability_flow(schedule, eps_theta, x_T, None, None, schedule.T))
    assert len(first) == schedule.T + 1 and np.array_equal(first, again)


@pytest.mark.slow
@given(numbers, st.floats(0.2, 2), numbers)
@settings(max_examples=20)
def test_the_likelihood_of_the_flow_is_that_of_the_data(m, s, x):
    """N(m, s^2) in two independent numbers, at T = 200."""
    schedule = cosine_schedule(200)
    x0 = np.array([[[x], [m + s]]])
    expected = log_normal(x0, m, s**2).sum()
    eps_theta = gaussian_denoiser(schedule, m, s)
    got = samplers.log_likelihood(schedule, eps_theta, x0, np.zeros((1, 0)))
    assert got.shape == (1,)
    assert got[0] == pytest.approx(expected, abs=5e-3 * (1 + ((x - m) / s) ** 2))


def crooked(schedule):
    """An eps_theta that belongs to no data in particular, mixes its two numbers, and is bent."""
    def eps_theta(x_t, t, cond):
        x = x_t * schedule.noise[t]
        other = tn.concat(x[:, :, 1:], x[:, :, :1])
        return x * 0.8 + tn.silu(other * 2.0) * 0.3 * schedule.signal[t]
    return eps_theta


def test_the_likelihood_of_the_flow_is_a_density_for_any_network():
    """Whatever eps_theta is and however few the steps, exp(log p) over the plane has integral 1.

    Change of variables with the whole Jacobian is exact.
    """
    schedule = cosine_schedule(12)
    line = np.linspace(-9, 9, 241)
    x0 = np.stack(np.meshgrid(line, line), -1).reshape(-1, 1, 2)
    nothing = np.zeros((len(x0), 0))
    log_p = samplers.log_likelihood(schedule, crooked(schedule), x0, nothing, steps=6)
    assert np.exp(log_p).sum() * (line[1] - line[0]) ** 2 == pytest.approx(1, abs=1e-6)


def test_the_likelihoods_of_a_batch_are_those_of_each_alone():
    """Each with its own observation, along as many steps as asked."""
    schedule = cosine_schedule(12)
    times = []

    def eps_theta(x_t, t, cond):
        times.append(t)
        return gaussian_denoiser(schedule, cond, 0.5)(x_t, t)

    x0 = np.array([[[0.3], [0.1]], [[-1.0], [0.8]]])
    cond = one([0.5, -0.7])
    batch = samplers.log_likelihood(schedule, eps_theta, x0, cond, steps=4)
    assert sorted(set(times)) == [3, 6, 9, 12]
    alone = [samplers.log_likelihood(schedule, eps_theta, x0[i:i + 1], cond[i:i + 1], steps=4)[0]
             for i in range(2)]
    assert batch == pytest.approx(alone, rel=1e-12) and abs(alone[0] - alone[1]) > 0.1


# ---- Langevin dynamics ---------------------------------------------------------------------------

@given(schedule_and_t(), numbers, laws.spreads, st.floats(0.01, 0.5))
def test_a_langevin_step_keeps_q_x_t_to_first_order_in_its_size(s_t, m, s, size):
    """q(x_t) = N(sqrt(alpha_bar_t) m, v): the mean stays; the variance becomes v + a^2/(4 v).

    a = size (1-alpha_bar_t).
    """
    schedule, t = s_t
    ab = schedule.alpha_bar[t]
    v = ab * s**2 + 1 - ab
    a = size * (1 - ab)

    def one_step(schedule, eps_theta, x, cond, rng):
        yield samplers.langevin_step(schedule, eps_theta, x, t, cond, rng, size)

    eps_theta = gaussian_denoiser(schedule, m, s)
    mean, var = chain_law(one_step, schedule, eps_theta, 1, np.sqrt(ab) * m, np.sqrt(v))
    assert mean[0] == pytest.approx(np.sqrt(ab) * m, abs=1e-10)
    assert var[0] == pytest.approx(v + a**2 / (4 * v), rel=1e-9)


def test_annealed_langevin_converges_as_its_steps_get_smaller_and_more():
    schedule = cosine_schedule(50)
    errors = []
    for size, repeats in ((0.6, 3), (0.4, 9), (0.2, 36)):
        mean, var = chain_law(samplers.annealed_langevin, schedule, ideal(schedule),
                              schedule.T * repeats, repeats=repeats, size=size)
        assert len(mean) == schedule.T + 1
        errors.append(abs(mean[-1] - 0.7) + abs(np.sqrt(var[-1]) - 0.3))
    assert (np.diff(errors) < 0).all() and errors[-1] < 0.025, errors


@given(laws.named_schedules, numbers)
@settings(max_examples=20)
def test_langevin_dynamics_end_in_a_finished_sample_without_noise(schedule, m):
    """On a point mass whatever is left of the noise at t = 1 is predicted and taken away."""
    point = gaussian_denoiser(schedule, m, 0)
    rng = np.random.default_rng(0)
    *_, x = samplers.annealed_langevin(schedule, point, one([-1, 2]), None, rng)
    assert x == pytest.approx(m, abs=1e-9)


@given(laws.named_schedules, numbers)
@settings(max_examples=20)
def test_a_predictor_without_a_corrector_is_ancestral_sampling(schedule, m):
    eps_theta = laws.mixture_denoiser(schedule, (0.4, 0.6), (m, 1.2), (0.2, 0.3))
    x_T = one([-1, 0.4])
    predicted = samplers.predictor_corrector(schedule, eps_theta, x_T, None,
                                             np.random.default_rng(2), repeats=0)
    ancestral = ancestral_sampling(schedule, eps_theta, x_T, None, np.random.default_rng(2))
    assert np.array_equal(list(predicted), list(ancestral))


def test_the_corrector_takes_away_what_the_predictor_gets_wrong():
    """The spread that beta_tilde makes too small in 20 steps is mended by Langevin steps."""
    schedule = cosine_schedule(20)
    expected = np.sqrt(schedule.alpha_bar[1] * 0.09 + 1 - schedule.alpha_bar[1])  # of q(x_1)
    errors = []
    for repeats in (0, 8, 64):
        calls = (schedule.T - 1) * (1 + repeats)
        _, var = chain_law(samplers.predictor_corrector, schedule, ideal(schedule), calls,
                           repeats=repeats)
        errors.append(abs(np.sqrt(var[-2]) - expected))
    assert errors[2] < errors[1] / 2 and errors[1] < errors[0] / 1.4, errors


# ---- all of them ---------------------------------------------------------------------------------

ALL = ["ancestral", "ddim", "sde", "flow", "langevin", "pc"]


def sampled(name, schedule, eps_theta, cond=None, samples=3, **options):
    """The whole chain (steps+1, samples, 1, 1), always from the same noise."""
    rng = np.random.default_rng(0)
    x_T = rng.standard_normal((samples, 1, 1))
    sampler = SAMPLERS[name].function
    return np.array(list(sampler(schedule, eps_theta, x_T, cond, rng, **options)))


@pytest.mark.parametrize("name", ALL)
def test_every_sampler_keeps_the_observations_of_a_batch_apart(name):
    """Each sample is led to the point that is its own observation."""
    schedule = cosine_schedule(30)
    cond = one([-1.0, 0.4, 2.0])

    def point(x_t, t, cond):
        return gaussian_denoiser(schedule, cond, 0)(x_t, t)

    assert sampled(name, schedule, point, cond)[-1] == pytest.approx(cond, abs=0.15)


@pytest.mark.parametrize("name", ALL)
def test_every_sampler_clips_the_x0_that_it_predicts(name):
    """The chain towards 100, clipped at 0.5, is the one towards 0.5."""
    schedule = cosine_schedule(30)
    clipped = sampled(name, schedule, gaussian_denoiser(schedule, 100, 0), clip=0.5)
    expected = sampled(name, schedule, gaussian_denoiser(schedule, 0.5, 0))
    assert clipped == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name, by_default", [("ddim", 16), ("flow", 8), ("sde", 20),
                                              ("langevin", 20)])
def test_a_sampler_takes_as_many_steps_as_asked(name, by_default):
    schedule = cosine_schedule(20)
    assert len(sampled(name, schedule, ideal(schedule), steps=3)) == 1 + 3
    assert len(sampled(name, schedule, ideal(schedule))) == 1 + by_default
    short = cosine_schedule(5)
    assert len(sampled(name, short, ideal(short))) == 1 + 5


@pytest.mark.parametrize("name, options", [("langevin", {"repeats": 2, "size": 0.5}),
                                           ("pc", {"repeats": 1, "size": 0.1})])
def test_langevin_steps_are_by_default_those_that_the_help_names(name, options):
    schedule = cosine_schedule(20)
    by_default = sampled(name, schedule, ideal(schedule))
    assert np.array_equal(by_default, sampled(name, schedule, ideal(schedule), **options))


@pytest.mark.slow
@pytest.mark.parametrize("name, options", [
    ("ddim", {"steps": 100}), ("ddim", {"steps": 200, "eta": 1.0}), ("sde", {}),
    ("flow", {"steps": 50}), ("langevin", {"size": 0.3, "repeats": 10}), ("pc", {})], ids=str)
def test_every_sampler_recovers_a_mixture(name, options):
    """Monte Carlo: 10,000 samples at T = 200. Finitely many steps bend a mode by up to 0.02."""
    schedule = cosine_schedule(200)
    n = 10_000
    weights, means, widths = (0.3, 0.7), (-1.5, 1.0), (0.15, 0.25)
    eps_theta = laws.mixture_denoiser(schedule, weights, means, widths)
    rng = np.random.default_rng(0)
    x_T = rng.standard_normal((n, 1, 1))
    *_, x = bind(name, **options)(schedule, eps_theta, x_T, None, rng)
    for w, m, s, mode in zip(weights, means, widths, (x[x < -0.3], x[x >= -0.3])):
        laws.assert_close(len(mode) / n, w, np.sqrt(w * (1 - w) / n))
        laws.assert_close(mode.mean(), m, s / np.sqrt(w * n), bias=0.02)
        laws.assert_close(mode.std(), s, s / np.sqrt(2 * w * n), bias=0.02)


@pytest.mark.parametrize("sampler, options, said", [
    (ddim_sampling, {"eta": 1.5}, "eta must be from 0 to 1, not 1.5"),
    (ddim_sampling, {"eta": np.nan}, "eta must be from 0 to 1"),
    (samplers.annealed_langevin, {"size": -1.0}, "Langevin step must be above 0, not -1.0"),
    (samplers.predictor_corrector, {"size": 0.0}, "size of a Langevin step must be above 0")])
def test_options_that_make_no_sense_are_refused(sampler, options, said):
    schedule = cosine_schedule(5)
    rng = np.random.default_rng(0)
    eps_theta = gaussian_denoiser(schedule, 0.5, 0)
    with pytest.raises(ValueError, match=said):
        list(sampler(schedule, eps_theta, np.ones((1, 1, 1)), None, rng, **options))
