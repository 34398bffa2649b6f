"""Baselines, with which diffusion is compared: other ways from an observation to a plan.

All but shooting use the same network on the same features. Its input x_t is 0 and its timestep t
is 0, so eps_theta.net is a function of the observation alone. The second step of MIP is the
exception.

    regression    behaviour cloning: the mean of all plans for an observation (--objective mse)
    mip           regression in two steps: the second improves the first (--objective mip)
    mixture       an explicit distribution: a mixture of Gaussians (--objective mixture)
    shooting      straight lines in random directions: it uses no network

Losses have the arguments of diffusion.l_simple and samplers those of diffusion.ancestral_sampling,
though there is no denoising chain here.
"""
import numpy as np

from ..layers import mse
from ..tensor import clip as bounded
from ..tensor import constant, exp, log, reshape, sum

COMPONENTS = 5  # of the mixture
MIP_SIGNAL = 0.9  # t* of Pan et al.: the share of the plan in the input of MIP's second step


def network_output(eps_theta, shape, cond, x=None, step=0):
    """The output F(x, step, cond) of the network inside eps_theta, (B, H, outputs D).

    shape: (H, D) of a plan. x (B, H, D): 0 if not given. step: the timestep that is embedded, one
    int or (B,).
    """
    x = np.zeros((len(cond), *shape), np.float32) if x is None else x
    embedding = eps_theta.embedding[np.broadcast_to(step, len(cond))]
    return eps_theta.net(x, embedding, cond)


def mse_loss(schedule, eps_theta, x0, t, eps, cond, weight=None):
    """E ||x_0 - F(0, 0, cond)||^2, the mean over all entries: least at E[x_0 | cond]."""
    return mse(network_output(eps_theta, x0.shape[1:], cond), x0)


def regression(schedule, eps_theta, x_T, cond, rng, clip=None, spread=0.0):
    """The plan F(0, 0, cond), the only thing yielded.

    spread: standard deviation, in the network's units, of a random offset that all actions of a
    plan share. With it, one observation has many candidate plans.
    """
    x0 = network_output(eps_theta, x_T.shape[1:], cond)
    if spread:
        x0 = x0 + np.float32(spread) * rng.standard_normal(x_T.shape, dtype=x_T.dtype)[:, :1]
    yield x0 if clip is None else np.clip(x0, -clip, clip)


def mip_loss(schedule, eps_theta, x0, t, eps, cond, weight=None):
    """The minimal iterative policy of Pan et al. 2025, with s for MIP_SIGNAL and up to a factor:

        E ||x_0 - F(0, 0, cond)||^2 + E ||x_0 - F(s x_0 + (1-s) eps, 1, cond)||^2

    Every second row of a batch is for the second term, the others are for the first. So a gradient
    step takes as long as with the other objectives.
    """
    second = np.arange(len(x0)) % 2
    noised = np.float32(MIP_SIGNAL) * x0 + np.float32(1 - MIP_SIGNAL) * eps
    x = noised * second[:, None, None].astype(np.float32)
    return mse(network_output(eps_theta, x0.shape[1:], cond, x, second), x0)


def mip(schedule, eps_theta, x_T, cond, rng, clip=None, spread=0.0):
    """Both steps of MIP: a = F(0, 0, cond), then x_0 = F(s a + (1-s) z, 1, cond). Yields a and x_0.

    spread: standard deviation of z: 0 as published, 1 in training.
    """
    x0 = network_output(eps_theta, x_T.shape[1:], cond)
    yield x0
    x = np.float32(MIP_SIGNAL) * x0 + np.float32(spread * (1 - MIP_SIGNAL)) * x_T
    x0 = network_output(eps_theta, x_T.shape[1:], cond, x, 1)
    yield x0 if clip is None else np.clip(x0, -clip, clip)


def shooting(schedule, eps_theta, x_T, cond, rng, clip=None):
    """A straight line in a random direction: each action of x_0 is the first action of x_T.

    These are in the network's units, in which demonstrated actions have the root mean square 1: in
    a frame, at each step of the plan. So on average the line leads as far as a demonstration.
    """
    x0 = np.repeat(x_T[:, :1], x_T.shape[1], 1)
    yield x0 if clip is None else np.clip(x0, -clip, clip)


# ---- a mixture of Gaussians ----------------------------------------------------------------------

def mixture_parts(eps_theta, shape, cond):
    """p(x_0 | cond) = sum_k w_k N(mu_k, s_k^2 I) over the whole plan (Bishop 1994).

    -> mu (B, H, K, D), log w and log s (B, K). For each number of a plan the network has 3 K
    outputs, three for each component: the mean, and two that are averaged over the plan. The
    averages are the logarithms of w_k, before the weights are normalised, and of s_k.
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
    # A term below e^-40 does not change a float32 sum, but its gradient could be a denormal number,
    # which is slow to compute with.
    return log(sum(exp(bounded(a - top, -40.0, 0.0)), axis=1, keepdims=True)) + top


def mixture_loss(schedule, eps_theta, x0, t, eps, cond, weight=None):
    """-log p(x_0 | cond), in nats for each number of x_0 and less log(2 pi)/2; the batch's mean."""
    mu, log_w, log_s = mixture_parts(eps_theta, x0.shape[1:], cond)
    error = mu - x0[:, :, None]
    n = x0[0].size
    squared = sum(error * error, axis=(1, 3))  # (B, K)
    log_p = log_w - squared * exp(log_s * -2.0) * 0.5 - log_s * float(n)
    return sum(log_sum_exp(log_p)) * (-1 / x0.size)


def mixture(schedule, eps_theta, x_T, cond, rng, clip=None, spread=0.0):
    """The mean mu_k of a component k that is sampled with probability w_k.

    spread: the standard deviation of the noise added to it, as a multiple of s_k.

    A sampler's rng offers standard_normal alone (see rollout.EpisodeNoise), so k is made from
    normal numbers. The sum of the squares of two is exponentially distributed. If exponential
    numbers have rates in proportion to w_k, the k-th is the least with probability w_k.
    """
    mu, log_w, log_s = mixture_parts(eps_theta, x_T.shape[1:], cond)
    B, K = log_w.shape
    normal = rng.standard_normal((B, K, 2), dtype=x_T.dtype)
    k = ((normal ** 2).sum(2) / np.exp(log_w)).argmin(1)
    rows = np.arange(B)
    s = np.exp(log_s)[rows, k, None, None]
    x0 = mu[rows, :, k] + np.float32(spread) * s * x_T
    yield x0 if clip is None else np.clip(x0, -clip, clip)
