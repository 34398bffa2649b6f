"""Steering the distribution after training: where a plan should lie, what it should avoid, which part of it is settled.

Conditioning on the observation is learned (nn.py). What is here is added when samples are drawn. Two functions wrap
eps_theta and give another eps_theta, which any sampler takes; by eq. 13, to add to the noise is to add to the score:

    classifier_free    the observation counts more than it did in training
    cost_guided        samples of low cost, by the gradient of the cost through our own autograd
    inpainting         a sampler: part of x_0 is known, the rest is drawn to fit
"""
import numpy as np

from .. import tensor as tn
from ..diffusion import at, p_sample, q_sample, q_step, x0_from_eps
from ..tensor import Tape, Tensor


def classifier_free(eps_theta, scale):
    """eps = (1 + scale) eps_theta(x_t, cond) - scale eps_theta(x_t, 0) (Ho & Salimans 2022, eq. 6): the score of
    q(x_t | cond)^(1+scale) / q(x_t)^scale. For a network that saw cond = 0 in some of its training (train.py --drop-cond);
    scale 0 changes nothing, -1 forgets the observation."""
    def eps(x_t, t, cond):
        return eps_theta(x_t, t, cond) * (1 + scale) - eps_theta(x_t, t, 0 * cond) * scale
    return eps


def cost_guided(schedule, eps_theta, cost, scale=1.0):
    """eps = eps_theta + sqrt(1-alpha_bar_t) scale grad_{x_t} cost(x_0): the score less the gradient of a cost.

    x_0 is what eps_theta sees from x_t; cost takes it, a Tensor (B, H, D), and gives a Tensor whose sum counts. It aims
    at the law q(x_0) exp(-scale cost(x_0)), and hits it where the cost is linear and q(x_0 | x_t) has the same spread
    for every x_t, as for Gaussian data.
    """
    def eps(x_t, t, cond):
        with Tape() as tape:
            x = Tensor(x_t, needs_grad=True)
            seen = eps_theta(x, t, cond)
            total = tn.sum(cost(x0_from_eps(schedule, x, t, seen)))
        tape.backward(total)
        return Tensor(seen.data + at(scale * schedule.noise, t, x_t) * x.grad)
    return eps


def inpainting(schedule, eps_theta, x_T, cond, rng, known, mask, repeats=4, variance="beta-tilde", clip=None):
    """Ancestral sampling with a part of x_0 settled (RePaint, Lugmayr et al. 2022, algorithm 1).

    known: (B, H, D); mask: what of it is settled, booleans that broadcast to it. At each t the settled part of x_{t-1} is
    put in from q(x_{t-1} | known). The rest did not know of it when it was drawn, so each step is taken `repeats` times:
    one step back up the chain, by eq. 1, and down again; the more often, the better the two parts agree.
    """
    x = x_T
    yield x
    for t in range(schedule.T, 0, -1):
        for again in range(repeats):
            if again:
                x = q_step(schedule, x, t, rng.standard_normal(x.shape, dtype=x.dtype))
            x = p_sample(schedule, eps_theta, x, t, cond, rng, variance, clip).data
            settled = q_sample(schedule, known, t - 1, rng.standard_normal(x.shape, dtype=x.dtype))
            x = np.where(mask, settled, x)
        yield x
