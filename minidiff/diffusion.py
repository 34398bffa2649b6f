"""The paper: noise schedule, forward process, posterior, training objective, reverse process, variational bound.

One convention everywhere: t runs 1..T as in the paper, and every table has T+1 entries with alpha_bar[0] = 1, so the
code reads alpha_bar[t] and alpha_bar[t-1] and no index is ever shifted. "Eq." numbers are those of the table in the
README; Ho = Ho, Jain & Abbeel 2020 (DDPM).

Shapes, in every function: x0, x_t, eps are (B, H, D): batch, horizon, action dimension; t is an int array (B,), or one
int for the whole batch, in 1..T. Tables are float64; results have the precision of x. x0 may be an array or a Tensor.
"""
from types import SimpleNamespace

import numpy as np

from . import tensor as tn
from .layers import mse
from .tensor import Tensor, tensor


# ---- noise schedule -----------------------------------------------------------------------------------------------

class Schedule:
    """beta_1..beta_T and what follows from them. Eq. 3: alpha_t = 1 - beta_t, alpha_bar_t = prod_{s<=t} alpha_s.

    beta: (T,), each strictly between 0 and 1. All tables are (T+1,) and read table[t]; entry 0 says "no noise yet".
    """

    def __init__(self, beta):
        beta = np.asarray(beta, np.float64)
        if beta.ndim != 1 or not len(beta) or not ((beta > 0) & (beta < 1)).all():
            raise ValueError("a schedule takes a list of at least one beta, each strictly between 0 and 1")
        self.T, t = len(beta), np.arange(1, len(beta) + 1)
        self.beta = _table(0, beta)
        self.alpha = 1 - self.beta
        self.alpha_bar = np.cumprod(self.alpha)
        self.signal, self.noise = np.sqrt(self.alpha_bar), np.sqrt(1 - self.alpha_bar)  # x_t = signal x_0 + noise eps
        self.snr = _table(np.inf, self.alpha_bar[t] / (1 - self.alpha_bar[t]))  # signal-to-noise ratio of x_t
        # The posterior q(x_{t-1} | x_t, x_0), Ho eq. 6-7: variance beta_tilde, mean c_x0 x_0 + c_xt x_t
        remaining = (1 - self.alpha_bar[t - 1]) / (1 - self.alpha_bar[t])
        self.beta_tilde = _table(0, remaining * beta)
        self.c_x0 = _table(1, np.sqrt(self.alpha_bar[t - 1]) * beta / (1 - self.alpha_bar[t]))
        self.c_xt = _table(0, np.sqrt(self.alpha[t]) * remaining)
        self.log_beta = _table(-np.inf, np.log(beta))
        # beta_tilde_1 = 0 has no logarithm: that of t = 2 stands there (Nichol & Dhariwal 2021, section 3.1)
        floor = self.beta_tilde[min(2, self.T)] or beta[0]
        self.log_beta_tilde = np.log(np.where(self.beta_tilde > 0, self.beta_tilde, floor))
        self.posterior_entropy = 0.5 * (np.log(2 * np.pi) + 1 + self.log_beta_tilde)  # nats for each number of x_{t-1}
        self.posterior_entropy[:2] = 0  # x_0 given x_0


def _table(entry_0, entries):
    return np.concatenate([[entry_0], entries])


def linear_schedule(T):
    """beta from 1e-4 to 0.02 in equal steps (Ho, section 4). That was made for T = 1000; scaled by 1000/T the chain
    reaches the prior for any T. At most 0.999."""
    return Schedule(np.minimum(np.linspace(1e-4, 0.02, T) * 1000 / T, 0.999))


def cosine_schedule(T, s=0.008):
    """alpha_bar_t = f(t)/f(0), f(t) = cos^2(pi/2 (t/T + s)/(1 + s)), beta <= 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
    f = np.cos(np.pi / 2 * (np.arange(T + 1) / T + s) / (1 + s)) ** 2
    return Schedule(np.minimum(1 - f[1:] / f[:-1], 0.999))


SCHEDULES = {"cosine": cosine_schedule, "linear": linear_schedule}


def at(table, t, x):
    """table[t], in the precision of x and shaped to multiply it: (B, 1, 1) for t (B,), a number for one t."""
    values = np.asarray(table[t], x.dtype)
    return values.reshape(values.shape + (1,) * (len(x.shape) - 1)) if values.ndim else values


# ---- forward process ----------------------------------------------------------------------------------------------

def q_step(schedule, x_prev, t, eps):
    """Eq. 1: a draw from q(x_t | x_{t-1}) = N(sqrt(1-beta_t) x_{t-1}, beta_t I), from eps ~ N(0, I)."""
    return at(np.sqrt(1 - schedule.beta), t, x_prev) * x_prev + at(np.sqrt(schedule.beta), t, x_prev) * eps


def q_chain(schedule, x0, rng):
    """Eq. 2: q(x_{1:T} | x_0) = prod_t q(x_t | x_{t-1}), step by step; yields x_1, x_2, .., x_T."""
    x = x0
    for t in range(1, schedule.T + 1):
        x = q_step(schedule, x, t, rng.standard_normal(x0.shape, dtype=x0.dtype))
        yield x


def q_mean_variance(schedule, x0, t):
    """Eq. 4: mean and variance of q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1-alpha_bar_t) I)."""
    return at(schedule.signal, t, x0) * x0, at(1 - schedule.alpha_bar, t, x0)


def q_sample(schedule, x0, t, eps):
    """Eq. 5: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1-alpha_bar_t) eps, any t in one step; differentiable in x_0."""
    return at(schedule.signal, t, x0) * x0 + at(schedule.noise, t, x0) * eps


def q_posterior(schedule, x0, x_t, t):
    """Mean and variance of q(x_{t-1} | x_t, x_0), Gaussian by Bayes' rule (Ho eq. 6-7)."""
    mean = at(schedule.c_x0, t, x_t) * x0 + at(schedule.c_xt, t, x_t) * x_t
    return mean, at(schedule.beta_tilde, t, x_t)


def x0_from_eps(schedule, x_t, t, eps):
    """Eq. 5 solved for x_0: (x_t - sqrt(1-alpha_bar_t) eps) / sqrt(alpha_bar_t)."""
    return (x_t - at(schedule.noise, t, x_t) * eps) / at(schedule.signal, t, x_t)


def eps_from_x0(schedule, x_t, t, x0):
    """Eq. 5 solved for eps: (x_t - sqrt(alpha_bar_t) x_0) / sqrt(1-alpha_bar_t)."""
    return (x_t - at(schedule.signal, t, x_t) * x0) / at(schedule.noise, t, x_t)


def score_from_eps(schedule, t, eps):
    """Eq. 13: grad_{x_t} log q(x_t | x_0) = -eps / sqrt(1-alpha_bar_t): to predict the noise is to match the score."""
    return eps / -at(schedule.noise, t, eps)


# ---- training objective -------------------------------------------------------------------------------------------

def sample_t(schedule, batch, rng):
    """Eq. 12: t ~ U{1, .., T}, one for each of a batch, (B,)."""
    return rng.integers(1, schedule.T + 1, batch)


def bound_weight(schedule, variance="beta"):
    """lambda(t) with which the eps error *is* the bound's error term: beta^2 / (2 sigma^2 alpha (1-alpha_bar)), a table
    (T+1,), sigma^2 the variance of p_theta (Ho eq. 12). What else the terms hold does not depend on eps_theta."""
    sigma2 = VARIANCES[variance](schedule)[1:]
    with np.errstate(divide="ignore"):  # beta_tilde_1 = 0: the last step is deterministic, its density infinite
        return _table(0, schedule.beta[1:]**2 / (2 * sigma2 * schedule.alpha[1:] * (1 - schedule.alpha_bar[1:])))


WEIGHTS = {  # name -> function(schedule) -> lambda at t = 1..T, up to a factor
    "uniform": lambda s: np.ones(s.T),  # Ho eq. 14: every timestep's eps error counts the same
    "inverse-alpha-bar": lambda s: np.minimum(1 / s.alpha_bar[1:], 1e4),  # the error of v, see nn.Denoiser
    "min-snr": lambda s: np.minimum(s.snr[1:], 5) / s.snr[1:],  # Hang et al. 2023: the x_0 error by its SNR, up to 5
    "bound": lambda s: bound_weight(s)[1:],  # the variational bound with the variance beta, eq. 10
}


def loss_weight(schedule, name):
    """lambda(t) by its name in WEIGHTS as a table (T+1,), scaled to mean one over t = 1..T."""
    weight = WEIGHTS[name](schedule)
    return _table(0, weight / weight.mean())


def l_simple(schedule, eps_theta, x0, t, eps, cond, weight):
    """Eq. 11: L_simple = E[lambda(t) ||eps - eps_theta(x_t, t)||^2], as the mean over batch, horizon and dimensions.

    t (B,) by eq. 12 and eps ~ N(0, I) are the draws that the expectation is over; cond (B, F) is what the network may
    know besides; weight is a table of lambda (T+1,). Returns a Tensor with one number.
    """
    x_t = q_sample(schedule, x0, t, eps)
    return mse(eps_theta(x_t, t, cond), eps, at(weight, t, x0))


# ---- reverse process ----------------------------------------------------------------------------------------------

def p_mean_variance(schedule, eps_theta, x_t, t, cond, variance="beta-tilde", clip=None):
    """Eq. 6: mean and variance, two Tensors, of p_theta(x_{t-1} | x_t) = N(mu_theta, Sigma_theta).

    mu_theta is the posterior's mean with x_0 as eps_theta sees it (Ho eq. 11). Sigma_theta is fixed to beta_t or
    beta_tilde_t, or "learned": exp(v log beta_t + (1-v) log beta_tilde_t), v from the network (Nichol & Dhariwal 2021,
    eq. 15). clip bounds that x_0 to [-clip, clip]: near t = T a small error of eps is a large one of x_0.
    """
    if variance == "learned":
        eps, v = eps_theta.with_variance(x_t, t, cond)
        low = at(schedule.log_beta_tilde, t, x_t)
        sigma2 = tn.exp(v * (at(schedule.log_beta, t, x_t) - low) + low)
    else:
        eps, sigma2 = eps_theta(x_t, t, cond), tensor(at(VARIANCES[variance](schedule), t, x_t))
    x0 = x0_from_eps(schedule, x_t, t, eps)
    if clip is not None:
        x0 = tn.clip(x0, -clip, clip)
    return q_posterior(schedule, x0, x_t, t)[0], sigma2


VARIANCES = {"beta-tilde": lambda s: s.beta_tilde, "beta": lambda s: s.beta}  # the best for a point, and for N(0, I)


def prior(shape, rng, dtype=np.float32):
    """Eq. 7: x_T ~ p(x_T) = N(0, I)."""
    return rng.standard_normal(shape, dtype=dtype)


def p_sample(schedule, eps_theta, x_t, t, cond, rng, variance="beta-tilde", clip=None):
    """A draw from p_theta(x_{t-1} | x_t), a Tensor, differentiable as eq. 5 is: mean + sigma z, z ~ N(0, I).

    The last step, t = 1, takes the mean alone: noise would only blur a finished sample (Ho, algorithm 2).
    """
    mean, var = p_mean_variance(schedule, eps_theta, x_t, t, cond, variance, clip)
    return mean + tn.sqrt(var) * rng.standard_normal(mean.shape, dtype=mean.dtype) if t > 1 else mean


def ancestral_sampling(schedule, eps_theta, x_T, cond, rng, variance="beta-tilde", clip=None):
    """Eq. 14: from x_T through the learned transitions down to x_0; yields x_T, x_{T-1}, .., x_0.

    If x_T is a Tensor, so is all that comes out, and x_0 can be differentiated through the whole chain.
    """
    x = x_T
    yield x
    for t in range(schedule.T, 0, -1):
        x = p_sample(schedule, eps_theta, x, t, cond, rng, variance, clip)
        x = x if isinstance(x_T, Tensor) else x.data
        yield x


# ---- variational bound --------------------------------------------------------------------------------------------

def gaussian_kl(mean, variance, other_mean, other_variance):
    """KL(N(mean, variance) || N(other_mean, other_variance)) in nats, element by element."""
    ratio = variance / other_variance
    return 0.5 * (ratio - 1 - np.log(ratio) + (mean - other_mean) ** 2 / other_variance)


def bound_term(schedule, eps_theta, x0, x_t, t, cond, variance="beta"):
    """Eq. 9: the bound's term for t (Ho eq. 5), in nats, a Tensor (B, H, D): -E_q[log p_theta(x_{t-1} | x_t)] less the
    entropy of q(x_{t-1} | x_t, x_0), which is

        t = 2..T:  L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p_theta(x_{t-1} | x_t))
        t = 1:     L_0 = -log p_theta(x_0 | x_1), as x_0 is known; with the variance beta-tilde, 0 there, it has no value
    """
    mean, sigma2 = p_mean_variance(schedule, eps_theta, x_t, t, cond, variance)
    q_mean, q_variance = q_posterior(schedule, x0, x_t, t)
    error = mean - q_mean
    cross_entropy = 0.5 * (tn.log(2 * np.pi * sigma2) + (error * error + q_variance) / sigma2)
    return cross_entropy - at(schedule.posterior_entropy, t, x_t)


def variational_bound(schedule, eps_theta, x0, cond, rng, variance="beta"):
    """Eq. 10: terms [L_0, .., L_{T-1}, L_T] (T+1,) whose sum bounds -log p_theta(x_0), in nats for each number of x_0.

    L_T = KL(q(x_T | x_0) || p(x_T)). Averages over the batch, with one draw of x_t for every term and sample.
    Eq. 8: in expectation over x_0 the sum is KL(q(x_{0:T}) || p_theta(x_{0:T})) plus the entropy of q(x_0), which no
    model can change: so to lower the bound is to lower that divergence, and it never falls below the entropy.
    """
    terms = [bound_term(schedule, eps_theta, x0, q_sample(schedule, x0, t, rng.standard_normal(x0.shape, dtype=x0.dtype)),
                        t, cond, variance).data.mean() for t in range(1, schedule.T + 1)]
    prior_term = gaussian_kl(*q_mean_variance(schedule, x0, schedule.T), 0, 1)
    return np.array([*terms, prior_term.mean()], np.float64)


def l_vlb(schedule, eps_theta, x0, t, eps, cond, variance="learned"):
    """Eq. 10 to be trained on: T E_t[L_{t-1}] for t as in eq. 12, which is L_0 + .. + L_{T-1}; what is left, L_T, has no
    theta. With a fixed variance it has the gradient of L_simple under `bound_weight`. Returns a Tensor, one number."""
    terms = bound_term(schedule, eps_theta, x0, q_sample(schedule, x0, t, eps), t, cond, variance)
    return tn.sum(terms) * (schedule.T / terms.data.size)


def l_hybrid(schedule, eps_theta, x0, t, eps, cond, weight, share=1e-3):
    """L_simple + share L_vlb (Nichol & Dhariwal 2021, eq. 16): eps_theta learns from the first term alone, the learned
    variance from the second, in which the mean is held fixed. Returns a Tensor with one number."""
    x_t = q_sample(schedule, x0, t, eps)
    seen, v = eps_theta.with_variance(x_t, t, cond)
    mean_held = SimpleNamespace(with_variance=lambda *_: (Tensor(seen.data), v))
    terms = bound_term(schedule, mean_held, x0, x_t, t, cond, "learned")
    return mse(seen, eps, at(weight, t, x0)) + tn.sum(terms) * (share * schedule.T / terms.data.size)
