"""How probable does a policy find demonstrations? The variational bound of -log p(plan), eq. 10.

    python -m minidiff.pusht bound runs/pusht-mlp-0 other.npz

Give it demonstrations that the policy was not trained on. Printed are the bound, lower is better,
and where along the chain it comes from; and on a few of the plans the exact likelihood of what the
probability-flow ODE samples. All figures are nats for each number of a plan. For a policy that was
trained with --relabel, the default, these demonstrations are relabelled, too.
"""
import numpy as np

from ... import beyond, demos, stopping
from ...beyond import formats, samplers
from ...beyond.options import named
from ...diffusion import variational_bound
from ..features import PUSHT

PLANS = 2000  # on which the bound is evaluated
EXACTLY = 32  # of them, on which the likelihood is


def in_network_units(policy, obs, actions):
    """obs (B, obs_horizon, S), actions (B, H, D) -> x_0 (B, H, D), cond (B, F), normalised."""
    frame = demos.frame_of(policy.task, obs)
    cond = policy.normaliser.standardise(policy.task.features(obs, frame))
    return policy.normaliser.normalise(actions, frame), cond


def bound(policy, obs, actions, rng):
    """Eq. 10: the terms [L_0, .., L_T] (T+1,) of the bound of -log p(plan), averaged over B plans.

    obs (B, obs_horizon, S), actions (B, H, D). Nats for each number of a plan, in the network's
    units; in the task's, `log_scale` more. The variance is the learned one, or else beta.
    """
    x0, cond = in_network_units(policy, obs, actions)
    variance = "learned" if policy.eps_theta.learned else "beta"
    return variational_bound(policy.schedule, policy.eps_theta, x0, cond, rng, variance)


def log_likelihood(policy, obs, actions, steps=None):
    """log p(plan) (B,), where p is the law that the probability-flow ODE samples from.

    obs (B, obs_horizon, S), actions (B, H, D); steps of the ODE: T if None. Nats for a whole plan,
    in the network's units.
    """
    x0, cond = in_network_units(policy, obs, actions)
    return samplers.log_likelihood(policy.schedule, policy.eps_theta, x0, cond, steps)


def log_scale(policy):
    """The mean log of what a plan's numbers are divided by. For each number of a plan, -log p in
    the task's units is larger by this than in the network's."""
    return float(np.log(policy.normaliser.scale).mean())


def main(arguments):
    parser = stopping.Parser(prog="python -m minidiff.pusht bound", description=__doc__)
    parser.add_argument("run", type=named, metavar="RUN", help="a run's folder, or a policy's file")
    parser.add_argument("demos", type=named, metavar="DEMOS", help="a file of demonstrations")
    args = parser.parse_args(arguments)
    policy, meta = beyond.load(args.run, PUSHT)
    objective = meta["config"]["objective"]
    if "ancestral" not in beyond.OBJECTIVES[objective].samplers:
        raise ValueError(f"{args.run}: trained by --objective {objective}, not to predict noise; "
                         "it has no p(plan)")
    data = formats.load(args.demos, PUSHT)
    if meta["config"]["relabel"]:
        data = PUSHT.relabel(data)
    obs, actions = demos.windows(data, policy.obs_horizon, policy.pred_horizon)
    rng = np.random.default_rng(0)
    many = rng.permutation(len(obs))[:PLANS]
    few = many[:EXACTLY]
    terms = bound(policy, obs[many], actions[many], rng)
    stopping.safe_point()
    exact = -log_likelihood(policy, obs[few], actions[few]).mean() / actions[0].size
    stopping.safe_point()
    bound_there = bound(policy, obs[few], actions[few], rng).sum()
    total = terms.sum()
    if not np.isfinite([total, exact, bound_there]).all():
        raise ValueError(f"{args.run}: the bound is not finite: the weights are too large")
    print(f"-log p(plan) <= {total:.3f} nats for each number of a plan, in standard deviations; "
          f"{total + log_scale(policy):.3f} in pixels  ({len(many)} plans of {args.demos})\n"
          f"    L_0 {terms[0]:.3f}, L_1 .. L_T-1 {terms[1:-1].sum():.3f}, L_T {terms[-1]:.5f}\n"
          f"exactly, along the probability-flow ODE: {exact:.3f} on {len(few)} of them, "
          f"where the bound is {bound_there:.3f}")
