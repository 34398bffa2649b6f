"""Plans where actions are late: real-time chunking (Black, Galliker & Levine 2025).

An action that is chosen now is carried out d steps of the world later. Until then the world carries
out d actions that were chosen before: these are committed. A plan that ignores them is made for a
state that will be gone when the plan begins. So here the first d actions of a plan are the
committed ones, and those that follow are carried out next. At each step of the denoising chain the
committed actions replace the predicted ones. Black et al. guide the chain by a gradient instead.
"""
import dataclasses

import numpy as np

from ..demos import frame_of
from ..diffusion import eps_from_x0, x0_from_eps

QUEUES = ("ignore", "skip", "hold")


class Held:
    """An eps_theta whose predicted x_0 begins with given actions, at every step of the chain.

    given: (B, d, D), in the network's units. From step to step of the chain less noise covers them
    in x_t, and the network predicts the other actions to fit them. Any sampler that denoises takes
    a Held as its eps_theta. A sampler's clip bounds the given actions, too.
    """

    def __init__(self, eps_theta, schedule, given):
        self.eps_theta = eps_theta
        self.schedule = schedule
        self.given = given

    def __call__(self, x_t, t, cond):
        return self.held(self.eps_theta(x_t, t, cond), x_t, t)

    def with_variance(self, x_t, t, cond):
        """eps with the given actions held, and v as it is."""
        eps_hat, v = self.eps_theta.with_variance(x_t, t, cond)
        return self.held(eps_hat, x_t, t), v

    def held(self, eps_hat, x_t, t):
        x0_hat = x0_from_eps(self.schedule, x_t, t, eps_hat)
        x0_hat[:, :self.given.shape[1]] = self.given
        return eps_from_x0(self.schedule, x_t, t, x0_hat)


def plan_after(policy, obs, rng, committed, queue):
    """Plans for obs (B, obs_horizon, S), to be carried out after the actions committed (B, d, D).

    queue says how:

        ignore    plans (B, H, D), as if no action were committed
        skip      plans (B, H-d, D): the first d actions are left out, as they would come too late
        hold      plans (B, H-d, D), sampled to continue the committed actions (see Held)

    ValueError for skip and hold where a plan has fewer than d + action_horizon actions.
    """
    d = committed.shape[1]
    if queue == "ignore" or d == 0:
        return policy.plan(obs, rng)
    check_length(policy, d)
    if queue == "hold":
        frame = frame_of(policy.task, obs)
        # a normaliser takes whole plans: any actions may fill the place after the committed ones
        rest = np.repeat(committed[:, -1:], policy.pred_horizon - d, 1)
        whole = np.concatenate([committed, rest], 1)
        given = policy.normaliser.normalise(whole, frame)[:, :d]
        held = Held(policy.eps_theta, policy.schedule, given)
        policy = dataclasses.replace(policy, eps_theta=held)
    return policy.plan(obs, rng)[:, d:]


def check_length(policy, d):
    """ValueError where a plan has fewer than d + action_horizon actions."""
    if d + policy.action_horizon > policy.pred_horizon:
        raise ValueError(f"a plan of {policy.pred_horizon} actions is too short: {d} are committed "
                         f"and {policy.action_horizon} are to follow; try a smaller "
                         "--action-horizon, --queue ignore or --estimate")
