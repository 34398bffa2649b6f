"""Training's other half: AdamW, the learning-rate schedule, and the exponential moving average (EMA) of the weights."""
import ctypes
import math

import numpy as np

BLOCK = 32_768  # numbers worked through at a time, so that a block stays in the cache through every line of the update


def learning_rate(step, steps, peak, warmup=100):
    """Linear warm-up to `peak` over `warmup` steps, then half a cosine down to 0 at `steps`. step counts from 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), and the EMA of the weights in the same pass.

        m     <- b1 m + (1-b1) grad                     v <- b2 v + (1-b2) grad^2
        theta <- theta - lr (m_hat / (sqrt(v_hat) + eps) + weight_decay theta),   m_hat = m/(1-b1^n), v_hat = v/(1-b2^n)
        ema   <- d ema + (1-d) theta,   d = min(ema_decay, (1+n)/(10+n)), so that the start is soon forgotten

    theta: the flat array of a network's parameters, changed in place. n counts the updates from 1.
    """

    def __init__(self, theta, weight_decay=1e-4, betas=(0.9, 0.999), eps=1e-8, ema_decay=0.999):
        self.theta, self.weight_decay, self.betas, self.eps, self.ema_decay = theta, weight_decay, betas, eps, ema_decay
        self.m, self.v, self.ema, self.n = np.zeros_like(theta), np.zeros_like(theta), theta.copy(), 0

    def step(self, grad, lr):
        """One update along the flat gradient `grad` with learning rate `lr`."""
        self.n += 1
        b1, b2 = self.betas
        rate, root = lr / (1 - b1**self.n), 1 / math.sqrt(1 - b2**self.n)
        d = min(self.ema_decay, (1 + self.n) / (10 + self.n))
        for i in range(0, len(self.theta), BLOCK):
            theta, m, v, ema, g = (a[i:i + BLOCK] for a in (self.theta, self.m, self.v, self.ema, grad))
            m *= b1
            m += (1 - b1) * g
            v *= b2
            g = g * g
            g *= 1 - b2
            v += g
            theta *= 1 - lr * self.weight_decay
            np.sqrt(v, out=g)
            g *= root
            g += self.eps
            np.divide(m, g, out=g)
            g *= rate
            theta -= g
            ema *= d
            ema += (1 - d) * theta


def flat_gradient(params):
    """The gradients of a network's parameters as one flat array, in the order of theta; then forget them."""
    grads = [p.grad.ravel() if p.grad is not None else np.zeros(p.data.size, p.dtype) for p in params.values()]
    for p in params.values():
        p.grad = None
    return np.concatenate(grads)


def keep_freed_memory():
    """Ask glibc to keep freed memory for the next step, not return it to the system (which then zeroes every page).

    A training step frees and takes the same megabytes again; elsewhere than on glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD, at the largest value that glibc takes
