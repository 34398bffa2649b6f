"""What diffusion is measured against: behaviour cloning by regression, with the same network on the same features."""
import numpy as np

from .layers import mse
from .nn import EMBEDDING
from .tensor import tensor


def regressed(eps_theta, shape, cond):
    """The chunk x_0 that the network inside eps_theta answers when it is shown no noise: F(0, 0, cond), (B, H, D)."""
    nothing = np.zeros((len(cond), *shape), np.float32)
    return eps_theta.net(tensor(nothing), np.broadcast_to(eps_theta.embedding[0], (len(cond), EMBEDDING)), cond)


def mse_loss(eps_theta, x0, cond):
    """E ||x_0 - F(0, 0, cond)||^2, as a mean over all entries: least at the conditional mean E[x_0 | cond]."""
    return mse(regressed(eps_theta, x0.shape[1:], cond), x0)


def regression(schedule, eps_theta, x_T, cond, rng, clip=None):
    """The answer of the regression, in the place of a sampler: no noise enters, so every plan for `cond` is the same."""
    x0 = regressed(eps_theta, x_T.shape[1:], cond).data
    yield x0 if clip is None else np.clip(x0, -clip, clip)
