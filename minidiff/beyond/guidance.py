"""Steering after training: where a plan should lie, what it should avoid, which part is given.

Conditioning on the observation is learned (nn.py). What is here is added when plans are sampled.
Two wrap eps_theta and are another eps_theta, which any sampler takes: by eq. 13, what is added to
eps is subtracted from the score.

    ClassifierFree    the observation counts more than it did in training
    CostGuided        samples of low cost, by the gradient of the cost through our own autograd
    inpainting        a sampler: part of x_0 is given, the rest is sampled to fit
"""
import numpy as np

from .. import tensor as tn
from ..diffusion import gather, p_sample, q_sample, q_step, x0_from_eps
from ..tensor import Tape, Tensor, constant


class ClassifierFree:
    """eps = (1 + scale) eps_theta(x_t, cond) - scale eps_theta(x_t, 0) (Ho & Salimans 2022, eq. 6).

    The score of q(x_t | cond)^(1+scale) / q(x_t)^scale. For a network that saw cond = 0 in some of
    its training (--drop-cond). scale 0 changes nothing, -1 forgets the observation.
    """

    def __init__(self, eps_theta, scale):
        self.eps_theta = eps_theta
        self.scale = scale

    def __call__(self, x_t, t, cond):
        return self.guided(self.eps_theta(x_t, t, cond), x_t, t, cond)

    def with_variance(self, x_t, t, cond):
        """A learned variance stays that of the observation."""
        eps_hat, v = self.eps_theta.with_variance(x_t, t, cond)
        return self.guided(eps_hat, x_t, t, cond), v

    def guided(self, eps_hat, x_t, t, cond):
        return eps_hat * (1 + self.scale) - self.eps_theta(x_t, t, 0 * cond) * self.scale


class CostGuided:
    """eps = eps_theta + sqrt(1-alpha_bar_t) scale grad_{x_t} cost(x_0), the score less a gradient.

    x_0 is predicted from x_t; cost takes it, a Tensor (B, H, D), and gives a Tensor whose sum
    counts. The target distribution is q(x_0) exp(-scale cost(x_0)). It is hit exactly where the
    cost is linear and q(x_0 | x_t) has the same spread for every x_t, as for Gaussian data.
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
        """A learned variance stays as it is."""
        return self(x_t, t, cond), self.eps_theta.with_variance(x_t, t, cond)[1]


def inpainting(schedule, eps_theta, x_T, cond, rng, given, mask, repeats=4,
               variance="beta-tilde", clip=None):
    """Ancestral sampling with a part of x_0 given (RePaint, Lugmayr et al. 2022, algorithm 1).

    given: (B, H, D). mask: which of it is given, booleans that broadcast to it. At each t the given
    part of x_{t-1} is put in, from q(x_{t-1} | given). The rest was sampled without knowing it, so
    each step is taken `repeats` times: one step back up the chain, by eq. 1, and down again. The
    more often, the better the two parts agree.
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
