"""What diffusion is measured against, with the same network on the same features: other ways to learn a plan from an
observation, and one that learns nothing. No noise is shown to these networks, x_t is 0 and t is 0, so eps_theta.net is
a function of the observation alone.

    regression    behaviour cloning: the mean of all plans for an observation (train.py --objective mse)
    mixture       the simplest explicit distribution: a mixture of Gaussians (train.py --objective mixture)
    shooting      straight lines in random directions

Each has the signature of a sampler (diffusion.ancestral_sampling), though there is no chain here.
"""
import numpy as np

from ..layers import mse
from ..nn import EMBEDDING
from ..tensor import clip as bounded, exp, log, reshape, sum, tensor

COMPONENTS = 5  # of the mixture


def answer(eps_theta, shape, cond):
    """What the network inside eps_theta says when it is shown no noise: F(0, 0, cond), (B, H, answers D)."""
    nothing = np.zeros((len(cond), *shape), np.float32)
    return eps_theta.net(tensor(nothing), np.broadcast_to(eps_theta.embedding[0], (len(cond), EMBEDDING)), cond)


def mse_loss(eps_theta, x0, cond):
    """E ||x_0 - F(0, 0, cond)||^2, as a mean over all entries: least at the conditional mean E[x_0 | cond]."""
    return mse(answer(eps_theta, x0.shape[1:], cond), x0)


def regression(schedule, eps_theta, x_T, cond, rng, clip=None, spread=0.0):
    """The answer of the regression. spread: standard deviation of one offset for a whole plan, to make candidates of it."""
    x0 = answer(eps_theta, x_T.shape[1:], cond).data
    if spread:
        x0 = x0 + np.float32(spread) * rng.standard_normal(x_T.shape, dtype=x_T.dtype)[:, :1]
    yield x0 if clip is None else np.clip(x0, -clip, clip)


def shooting(schedule, eps_theta, x_T, cond, rng, clip=None):
    """Away from the origin in a straight line, as far at each step as the demonstrations go: nothing is learned."""
    x0 = np.repeat(x_T[:, :1], x_T.shape[1], 1)
    yield x0 if clip is None else np.clip(x0, -clip, clip)


# ---- a mixture of Gaussians ---------------------------------------------------------------------------------------

def mixture_parts(eps_theta, shape, cond):
    """p(x_0 | cond) = sum_k w_k N(mu_k, s_k^2 I) over the whole plan: mu (B, H, K, D), log w and log s (B, K), Tensors.

    The network has 3 K answers: a mean for each component, and two whose averages are its log weight and log spread.
    """
    (H, D), K = shape, COMPONENTS
    F = reshape(answer(eps_theta, shape, cond), -1, H, 3, K, D)
    logit, log_s = (sum(F[:, :, i], axis=(1, 3)) * (1 / (H * D)) for i in (1, 2))
    return F[:, :, 0], logit - log_sum_exp(logit), bounded(log_s, -5.0, 5.0)


def log_sum_exp(a):
    top = a.data.max(1, keepdims=True)
    # below e^-40 no float32 is changed by adding it, but its gradient would be denormal numbers, which are slow
    return log(sum(exp(bounded(a - top, -40.0, 0.0)), axis=1, keepdims=True)) + top


def mixture_loss(eps_theta, x0, cond):
    """-log p(x_0 | cond) in nats for each number of x_0, but for log(2 pi)/2, as a mean over the batch (Bishop 1994)."""
    mu, log_w, log_s = mixture_parts(eps_theta, x0.shape[1:], cond)
    error, n = mu - x0[:, :, None], x0[0].size
    log_p = log_w - sum(error * error, axis=(1, 3)) * exp(log_s * -2.0) * 0.5 - log_s * float(n)  # (B, K)
    return sum(log_sum_exp(log_p)) * (-1 / x0.size)


def mixture(schedule, eps_theta, x_T, cond, rng, clip=None, spread=0.0):
    """A component drawn by its weight, at its mean; `spread` times its own standard deviation is added as noise.

    The sum of two squared normal numbers is exponential, and of exponentials with the rates w_k the k-th is the first
    with probability w_k: so a choice is drawn from a generator of normal numbers.
    """
    mu, log_w, log_s = (part.data for part in mixture_parts(eps_theta, x_T.shape[1:], cond))
    B, K = log_w.shape
    times = (rng.standard_normal((B, K, 2), dtype=x_T.dtype) ** 2).sum(2) / np.exp(log_w)
    k = times.argmin(1)
    x0 = mu[np.arange(B), :, k] + np.float32(spread) * np.exp(log_s)[np.arange(B), k, None, None] * x_T
    yield x0 if clip is None else np.clip(x0, -clip, clip)
