"""How probable does a policy find demonstrations? -log p(plan), and its variational bound, eq. 10.

    python -m minidiff.pusht bound runs/pusht-mlp-0 other.npz

Give it demonstrations that the policy was not trained on. It prints (lower is better):

    diffusion    the bound, and the parts of it that come from t = 1, t = 2..T and the prior; and on
                 a few plans -log p, where p is what the probability-flow ODE samples
    mixture      -log p itself
    regression   -log p of a Gaussian: its mean is the regression, its covariance is that of the
                 errors on every second plan, and it is evaluated on the other plans

All figures are nats for each number of a plan. For a policy that was trained with --relabel, the
default, these demonstrations are relabelled, too.
"""
import numpy as np

from ... import beyond, checkpoint, demos, stopping
from ...beyond import baselines, formats, samplers
from ...beyond.options import named
from ...diffusion import variational_bound
from ..features import PUSHT

PLANS = 2000  # on which the bound is evaluated
EXACTLY = 200  # of these plans, on which the likelihood along the ODE is evaluated


def in_network_units(policy, obs, actions):
    """obs (B, obs_horizon, S), actions (B, H, D) -> x_0 (B, H, D), cond (B, F), as the network sees
    them."""
    frame = demos.frame_of(policy.task, obs)
    cond = policy.normaliser.standardise(policy.task.features(obs, frame))
    return policy.normaliser.normalise(actions, frame), cond


def bound(policy, obs, actions, rng):
    """Eq. 10: the terms [L_0, .., L_T] (T+1,) of the bound of -log p(plan), averaged over B plans.

    obs (B, obs_horizon, S), actions (B, H, D). In nats for each number of a plan, and for the
    network's units; for the task's units the sum is larger by `log_scale`. The variance is the
    learned one where it was learned, else beta.
    """
    x0, cond = in_network_units(policy, obs, actions)
    variance = "learned" if policy.eps_theta.learned else "beta"
    return variational_bound(policy.schedule, policy.eps_theta, x0, cond, rng, variance)


def log_likelihood(policy, obs, actions, steps=None):
    """log p(plan) (B,), where p is the distribution that the probability-flow ODE samples from.

    obs (B, obs_horizon, S), actions (B, H, D); steps of the ODE: T if None. In nats for a whole
    plan, and for the network's units.
    """
    x0, cond = in_network_units(policy, obs, actions)
    return samplers.log_likelihood(policy.schedule, policy.eps_theta, x0, cond, steps)


def log_scale(policy):
    """The mean of log(normaliser.scale). For each number of a plan, -log p in the task's units is
    larger by this than in the network's."""
    return float(np.log(policy.normaliser.scale).mean())


def mixture_nats(policy, obs, actions):
    """-log p(plan) in nats for each number of a plan, the mean over B plans; p is the mixture."""
    x0, cond = in_network_units(policy, obs, actions)
    loss = baselines.mixture_loss(policy.schedule, policy.eps_theta, x0, None, None, cond)
    return float(loss) + np.log(2 * np.pi) / 2


def gaussian_nats(policy, obs, actions):
    """The same for p = N(regression, C). C is the covariance of the errors on every second plan;
    the mean is over the other plans. ValueError for too few plans to estimate C."""
    x0, cond = in_network_units(policy, obs, actions)
    left = x0 - baselines.network_output(policy.eps_theta, x0.shape[1:], cond)
    left = left.reshape(len(left), -1).astype(np.float64)  # (B, n)
    fitted, others = left[::2], left[1::2]
    n = left.shape[1]
    if len(fitted) <= n:
        raise ValueError(f"a covariance of {n} numbers takes more than {2 * n} plans, "
                         f"not {len(left)}")
    C = fitted.T @ fitted / len(fitted)
    squares = (others * np.linalg.solve(C, others.T).T).sum(1)  # Mahalanobis distances
    return (squares.mean() + np.linalg.slogdet(C)[1]) / (2 * n) + np.log(2 * np.pi) / 2


def main(arguments):
    parser = stopping.Parser(prog="python -m minidiff.pusht bound", description=__doc__)
    parser.add_argument("run", type=named, metavar="RUN", help="a run's folder, or a policy's file")
    parser.add_argument("demos", type=named, metavar="DEMOS", help="a file of demonstrations")
    parser.add_argument("--json", type=named, metavar="FILE", help="write the figures there, too")
    args = parser.parse_args(arguments)
    if args.json:
        checkpoint.check_writable(args.json)
    policy, meta = beyond.load(args.run, PUSHT)
    objective = meta["config"]["objective"]
    is_diffusion = "ancestral" in beyond.OBJECTIVES[objective].samplers
    exact = {"mixture": mixture_nats, "mse": gaussian_nats}.get(objective)
    if not is_diffusion and exact is None:
        raise ValueError(f"{args.run}: trained by --objective {objective}; it has no p(plan)")
    data = formats.load(args.demos, PUSHT)
    if meta["config"]["relabel"]:
        data = PUSHT.relabel(data)
    obs, actions = demos.windows(data, policy.obs_horizon, policy.pred_horizon)
    rng = np.random.default_rng(0)
    many = rng.permutation(len(obs))[:PLANS]
    obs, actions = obs[many], actions[many]
    if is_diffusion:
        figures, lines = of_diffusion(policy, obs, actions, rng)
    else:
        figures = {"exact": float(exact(policy, obs, actions))}
        lines = [f"-log p(plan) = {in_both_units(policy, figures['exact'])}"]
    if not np.isfinite(list(figures.values())).all():
        raise ValueError(f"{args.run}: the density is not finite: the weights are too large")
    print(f"{len(many)} plans of {args.demos}", *lines, sep="\n")
    if args.json:
        checkpoint.write_json(args.json, figures | {"plans": len(many)})


def of_diffusion(policy, obs, actions, rng):
    """The bound and the likelihood of a diffusion policy -> figures by name, and lines to print."""
    terms = bound(policy, obs, actions, rng)
    stopping.safe_point()
    few = obs[:EXACTLY], actions[:EXACTLY]
    exact = -log_likelihood(policy, *few).mean() / actions[0].size
    stopping.safe_point()
    bound_there = bound(policy, *few, rng).sum()
    total = terms.sum()
    return {"bound": float(total), "exact": float(exact), "bound there": float(bound_there)}, [
        f"-log p(plan) <= {in_both_units(policy, total)}",
        f"    L_0 {terms[0]:.3f}, L_1 .. L_T-1 {terms[1:-1].sum():.3f}, L_T {terms[-1]:.5f}",
        f"exactly, along the probability-flow ODE: {in_both_units(policy, exact)}, "
        f"on {len(few[0])} of them, where the bound is {bound_there:.3f}"]


def in_both_units(policy, nats):
    return (f"{nats:.3f} nats for each number of a plan, in standard deviations; "
            f"{nats + log_scale(policy):.3f} in pixels")
