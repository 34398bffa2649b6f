"""Data laws whose ideal denoiser is known in closed form, the exact law of a sampler, and how far
an estimate may lie from what it estimates."""
from minidiff.diffusion import SCHEDULES, Schedule

import numpy as np
from hypothesis import strategies as st

STANDARD_ERRORS = 6.5  # that an estimate may be off
FALSE_ALARM = 7e-10  # probability of more: 8e-11 of a normal one, 7e-10 of a count of 200
MOST_FALSE_ALARMS = 1e-6  # of all estimates together that the suite checks
estimates = []  # how many numbers each call of assert_close has checked


def named_schedule(name, T):
    return SCHEDULES[name](T)


named_schedules = st.builds(named_schedule, st.sampled_from(sorted(SCHEDULES)),
                            st.integers(2, 120))
random_schedules = st.lists(st.floats(1e-4, 0.7), min_size=2, max_size=40).map(Schedule)
schedules = named_schedules | random_schedules
numbers = st.floats(-3, 3).map(lambda x: round(x, 6))
spreads = st.floats(0.05, 2).map(lambda x: round(x, 6))


def schedule_and_t(smallest=1):
    return schedules.flatmap(lambda s: st.tuples(st.just(s), st.integers(smallest, s.T)))


def one(x):
    """A number, or a list of them, as a batch (B, 1, 1) in float64."""
    return np.atleast_1d(np.asarray(x, np.float64)).reshape(-1, 1, 1)


def log_normal(x, mean, variance):
    """log N(x; mean, variance), element by element."""
    return -0.5 * (np.log(2 * np.pi * variance) + (x - mean) ** 2 / variance)


def gaussian_denoiser(schedule, m, s):
    """eps*(x_t, t) = E[eps | x_t] for x_0 ~ N(m, s^2): regression of one Gaussian on another.

    s = 0: a point mass.
    """
    def eps_theta(x_t, t, cond=None):
        ab = schedule.alpha_bar[t]
        return np.sqrt(1 - ab) * (x_t - np.sqrt(ab) * m) / (ab * s**2 + 1 - ab)
    return eps_theta


def mixture_denoiser(schedule, weights, means, spreads):
    """eps* for a mixture of Gaussians: the average of the components' own.

    Each counts by its posterior probability.
    """
    def eps_theta(x_t, t, cond=None):
        ab = schedule.alpha_bar[t]
        logs = [np.log(w) + log_normal(x_t, np.sqrt(ab) * m, ab * s**2 + 1 - ab)
                for w, m, s in zip(weights, means, spreads)]
        share = np.exp(logs - np.max(logs, axis=0))
        share /= share.sum(0)
        return sum(p * gaussian_denoiser(schedule, m, s)(x_t, t)
                   for p, m, s in zip(share, means, spreads))
    return eps_theta


def assert_close(estimate, expected, standard_error, bias=0.0):
    """Monte Carlo estimates, numbers or arrays, are within 6.5 standard errors of the truth.

    bias: what else may part them, for instance finitely many steps. With other seeds a check of
    correct code fails with a probability of at most 7e-10, and any check of the suite with 1e-6.
    """
    estimates.append(np.size(estimate))
    assert sum(estimates) * FALSE_ALARM <= MOST_FALSE_ALARMS, "too many estimates for the suite"
    away = np.abs(estimate - expected) / standard_error
    allowed = STANDARD_ERRORS + bias / standard_error
    assert np.all(away <= allowed), (
        f"{estimate} is {np.max(away):.1f} standard errors away from {expected}")


class Impulses:
    """A random generator whose n-th noise is 1 for sample n+2 of the batch, and 0 for the rest.

    A chain that is affine in its noise then shows its whole law. Sample 0, without any noise, is
    the mean; sample 1 shows the coefficient of x_T, sample n+2 that of the n-th noise. The variance
    is the sum of the squared coefficients.
    """

    def __init__(self):
        self.calls = 0

    def standard_normal(self, shape, dtype=np.float64):
        z = np.zeros(shape, dtype)
        z[self.calls + 2] = 1
        self.calls += 1
        return z


def chain_law(sampler, schedule, eps_theta, calls, x_T_mean=0.0, x_T_std=1.0, **options):
    """Mean and variance of a chain at each of its steps, exactly, for x_T ~ N(mean, std^2).

    sampler: with the arguments of ancestral_sampling. calls: how often it takes noise, or more.
    """
    x_T = np.full((calls + 2, 1, 1), x_T_mean)
    x_T[1] += x_T_std
    chain = sampler(schedule, eps_theta, x_T, None, Impulses(), **options)
    steps = [x[:, 0, 0] for x in chain]
    means = np.array([x[0] for x in steps])
    variances = np.array([((x[1:] - x[0]) ** 2).sum() for x in steps])
    return means, variances
