"""What diffusion is compared with: other ways to learn a plan from an observation.

The same network on the same features. But for MIP it is shown no noise: x_t is 0 and t is 0, so
eps_theta.net is a function of the observation alone.

    regression    behaviour cloning: the mean of all plans for an observation (--objective mse)
    mip           regression in two steps: the second improves the first (--objective mip)
    mixture       the simplest explicit distribution: Gaussians, mixed (--objective mixture)
    shooting      straight lines in random directions: nothing is learned

Losses have the arguments of diffusion.l_simple and samplers those of diffusion.ancestral_sampling,
though there is no chain here.
"""
import numpy as np

from ..layers import mse
from ..tensor import clip as bounded
from ..tensor import constant, exp, log, reshape, sum

COMPONENTS = 5  # of the mixture
MIP_SIGNAL = 0.9  # t* of Pan et al.: the share of a plan in what the second step sees


def network_output(eps_theta, shape, cond, x=None, step=0):
    """The network inside eps_theta, F(x, step, cond), (B, H, outputs D); x: 0 if not given."""
    x = np.zeros((len(cond), *shape), np.float32) if x is None else x
    embedding = eps_theta.embedding[np.broadcast_to(step, len(cond))]
    return eps_theta.net(x, embedding, cond)


def mse_loss(schedule, eps_theta, x0, t, eps, cond, weight=None):
    """E ||x_0 - F(0, 0, cond)||^2, the mean over all entries: least at E[x_0 | cond]."""
    return mse(network_output(eps_theta, x0.shape[1:], cond), x0)


def regression(schedule, eps_theta, x_T, cond, rng, clip=None, spread=0.0):
    """The output of the regression.

    spread: standard deviation of an offset of the whole plan; it makes many candidates of one plan.
    """
    x0 = network_output(eps_theta, x_T.shape[1:], cond)
    if spread:
        x0 = x0 + np.float32(spread) * rng.standard_normal(x_T.shape, dtype=x_T.dtype)[:, :1]
    yield x0 if clip is None else np.clip(x0, -clip, clip)


def mip_loss(schedule, eps_theta, x0, t, eps, cond, weight=None):
    """E ||x_0 - F(0, 0, c)||^2 + E ||x_0 - F(s x_0 + (1-s) eps, 1, c)||^2, s = MIP_SIGNAL, up to a
    factor: the minimal iterative policy of Pan et al. 2025. Either half of the batch learns one of
    the two, so a step costs what it costs the others."""
    second = np.arange(len(x0)) % 2
    noised = np.float32(MIP_SIGNAL) * x0 + np.float32(1 - MIP_SIGNAL) * eps
    x = noised * second[:, None, None].astype(np.float32)
    return mse(network_output(eps_theta, x0.shape[1:], cond, x, second), x0)


def mip(schedule, eps_theta, x_T, cond, rng, clip=None, spread=0.0):
    """Both steps of MIP: a = F(0, 0, c), then F(s a + (1-s) z, 1, c).

    spread: standard deviation of z, which is 0 as published and 1 in training. Yields a, then x_0.
    """
    x0 = network_output(eps_theta, x_T.shape[1:], cond)
    yield x0
    x = np.float32(MIP_SIGNAL) * x0 + np.float32(spread * (1 - MIP_SIGNAL)) * x_T
    x0 = network_output(eps_theta, x_T.shape[1:], cond, x, 1)
    yield x0 if clip is None else np.clip(x0, -clip, clip)


def shooting(schedule, eps_theta, x_T, cond, rng, clip=None):
    """Away from the origin in a straight line, as far at each step as the demonstrations go."""
    x0 = np.repeat(x_T[:, :1], x_T.shape[1], 1)
    yield x0 if clip is None else np.clip(x0, -clip, clip)


# ---- a mixture of Gaussians ----------------------------------------------------------------------

def mixture_parts(eps_theta, shape, cond):
    """p(x_0 | cond) = sum_k w_k N(mu_k, s_k^2 I) over the whole plan (Bishop 1994).

    -> mu (B, H, K, D), log w and log s (B, K). The network has 3 K outputs: a mean for
    each component, and two whose averages over the plan are its log weight and log spread.
    """
    H, D = shape
    K = COMPONENTS
    F = reshape(network_output(eps_theta, shape, cond), -1, H, 3, K, D)
    logit = sum(F[:, :, 1], axis=(1, 3)) * (1 / (H * D))
    log_s = sum(F[:, :, 2], axis=(1, 3)) * (1 / (H * D))
    return F[:, :, 0], logit - log_sum_exp(logit), bounded(log_s, -5.0, 5.0)


def log_sum_exp(a):
    """log sum_k exp(a_k) over the last axis, (B, K) -> (B, 1), without overflow."""
    top = constant(a).max(1, keepdims=True)
    # Adding less than e^-40 changes no float32, but its gradient would be denormal, which is slow.
    return log(sum(exp(bounded(a - top, -40.0, 0.0)), axis=1, keepdims=True)) + top


def mixture_loss(schedule, eps_theta, x0, t, eps, cond, weight=None):
    """-log p(x_0 | cond) less log(2 pi)/2, in nats for each number of x_0; mean over the batch."""
    mu, log_w, log_s = mixture_parts(eps_theta, x0.shape[1:], cond)
    error = mu - x0[:, :, None]
    n = x0[0].size
    squared = sum(error * error, axis=(1, 3))  # (B, K)
    log_p = log_w - squared * exp(log_s * -2.0) * 0.5 - log_s * float(n)
    return sum(log_sum_exp(log_p)) * (-1 / x0.size)


def mixture(schedule, eps_theta, x_T, cond, rng, clip=None, spread=0.0):
    """The mean of a component that is sampled by its weight.

    spread: the share of the component's own standard deviation that is added as noise.

    A sampler is given normal numbers alone (rollout.EpisodeNoise), so the choice is made of them.
    The sum of two squared normal numbers is exponential. Of exponentials with the rates w_k the
    k-th is the least with probability w_k.
    """
    mu, log_w, log_s = mixture_parts(eps_theta, x_T.shape[1:], cond)
    B, K = log_w.shape
    normal = rng.standard_normal((B, K, 2), dtype=x_T.dtype)
    k = ((normal ** 2).sum(2) / np.exp(log_w)).argmin(1)
    rows = np.arange(B)
    s = np.exp(log_s)[rows, k, None, None]
    x0 = mu[rows, :, k] + np.float32(spread) * s * x_T
    yield x0 if clip is None else np.clip(x0, -clip, clip)
