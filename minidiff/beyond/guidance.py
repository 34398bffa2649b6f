"""Guidance: steering a trained policy while its plans are sampled.

Conditioning on the observation is learned (nn.py). What is here needs no further training.

    ClassifierFree    the observation counts more than it did in training
    CostGuided        samples of low cost, by the gradient of the cost through our own autograd
    inpainting        a sampler: part of x_0 is given, the rest is sampled to fit

The first two wrap an eps_theta and are an eps_theta themselves, for any sampler. By eq. 13, adding
d to eps subtracts d / sqrt(1-alpha_bar_t) from the score.
"""
import numpy as np

from .. import tensor as tn
from ..diffusion import gather, p_sample, q_sample, q_step, x0_from_eps
from ..tensor import Tape, Tensor, constant


class ClassifierFree:
    """eps = (1 + scale) eps_theta(x_t, cond) - scale eps_theta(x_t, 0) (Ho & Salimans 2022, eq. 6).

    It stands for the score of q(x_t | cond)^(1+scale) / q(x_t)^scale. The network must have been
    trained with cond = 0 on a share of the windows (--drop-cond). scale 0 changes nothing; -1
    ignores the observation.
    """

    def __init__(self, eps_theta, scale):
        self.eps_theta = eps_theta
        self.scale = scale

    def __call__(self, x_t, t, cond):
        return self.guided(self.eps_theta(x_t, t, cond), x_t, t, cond)

    def with_variance(self, x_t, t, cond):
        """Guided eps, and v as it is for cond: guidance does not change a learned variance."""
        eps_hat, v = self.eps_theta.with_variance(x_t, t, cond)
        return self.guided(eps_hat, x_t, t, cond), v

    def guided(self, eps_hat, x_t, t, cond):
        return eps_hat * (1 + self.scale) - self.eps_theta(x_t, t, 0 * cond) * self.scale


class CostGuided:
    """eps = eps_theta + sqrt(1-alpha_bar_t) scale grad_{x_t} cost(x_0), x_0 as predicted from x_t.

    So scale grad cost is subtracted from the score. cost: a function of a Tensor (B, H, D), the
    predicted x_0, that returns a Tensor; its entries are summed. The target is the distribution
    q(x_0) exp(-scale cost(x_0)), up to a factor. The guided score is exact where the cost is linear
    and only the mean of q(x_0 | x_t) depends on x_t, as for Gaussian data. Elsewhere it is
    approximate.
    """

    def __init__(self, schedule, eps_theta, cost, scale=1.0):
        self.schedule = schedule
        self.eps_theta = eps_theta
        self.cost = cost
        self.scale = scale

    def __call__(self, x_t, t, cond):
        with Tape() as tape:
            x = Tensor(x_t)
            eps_hat = self.eps_theta(x, t, cond)
            total = tn.sum(self.cost(x0_from_eps(self.schedule, x, t, eps_hat)))
        tape.backward(total)
        return constant(eps_hat) + gather(self.scale * self.schedule.noise, t, x_t) * x.grad

    def with_variance(self, x_t, t, cond):
        """Guided eps, and v as it is: guidance does not change a learned variance."""
        return self(x_t, t, cond), self.eps_theta.with_variance(x_t, t, cond)[1]


def inpainting(schedule, eps_theta, x_T, cond, rng, given, mask, repeats=4,
               variance="beta-tilde", clip=None):
    """Ancestral sampling with a part of x_0 given (RePaint, Lugmayr et al. 2022, algorithm 1).

    given: (B, H, D), an x_0. mask: booleans that broadcast to it, True where it is given. At each t
    the given part of x_{t-1} is sampled from q(x_{t-1} | x_0 = given) and replaces what the
    denoiser made of it. The rest of x_{t-1} was sampled without it. So each step down the chain is
    taken `repeats` times, with a step back up in between, by eq. 1. The more repeats, the better
    the two parts agree.
    """
    x = x_T
    yield x
    for t in range(schedule.T, 0, -1):
        for again in range(repeats):
            if again:
                x = q_step(schedule, x, t, rng.standard_normal(x.shape, dtype=x.dtype))
            x = p_sample(schedule, eps_theta, x, t, cond, rng, variance, clip)
            noised = q_sample(schedule, given, t - 1, rng.standard_normal(x.shape, dtype=x.dtype))
            x = np.where(mask, noised, x)
        yield x
