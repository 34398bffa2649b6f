"""How large is the network's error at each timestep, and what does the bound on x_0 cut?

    python tests/benchmarks/errors.py RUN held-out.npz

The network is preconditioned (nn.Denoiser): it predicts v = sqrt(abar) eps - sqrt(1-abar) x_0. Of
plans that nobody was trained on, at a few timesteps: the variance of v; the mean squares of the
errors of v, of eps and of x_0, for each number of a plan, in standard deviations; and the share of
the numbers of the predicted x_0 that exceed the bound `clip`. Then the largest number of all plans
of the demonstrations that come with minidiff.
"""
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import beyond, demos, stopping  # noqa: E402
from minidiff.beyond import formats  # noqa: E402
from minidiff.diffusion import q_sample, x0_from_eps  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.study.bound import in_network_units  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks.measuring import Sheet, parser  # noqa: E402

TIMESTEPS = (1, 2, 5, 10, 25, 50, 75, 90, 100)
PLANS = 2000


def main(arguments):
    options = parser("errors", __doc__)
    options.add_argument("run", help="a run's folder, or a policy's file")
    options.add_argument("held_out", help="demonstrations")
    args = options.parse_args(arguments)
    sheet = Sheet(args.json)
    policy, _ = beyond.load(args.run, PUSHT)
    data = PUSHT.relabel(formats.load(args.held_out, PUSHT))
    obs, actions = demos.windows(data, policy.obs_horizon, policy.pred_horizon)
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(obs))[:PLANS]
    x0, cond = in_network_units(policy, obs[chosen], actions[chosen])
    schedule = policy.schedule
    for t in TIMESTEPS:
        stopping.safe_point()
        abar = schedule.alpha_bar[t]
        eps = rng.standard_normal(x0.shape).astype(np.float32)
        x_t = q_sample(schedule, x0, t, eps)
        predicted = policy.eps_theta(x_t, np.full(len(x_t), t), cond)
        of_eps = float(((predicted - eps) ** 2).mean())
        v = np.sqrt(abar) * eps - np.sqrt(1 - abar) * x0
        of_x0 = of_eps * (1 - abar) / abar
        beyond_clip = np.abs(x0_from_eps(schedule, x_t, t, predicted)) > policy.clip
        sheet.add(str(t), {"variance of v": float(v.var()), "v": of_eps / abar, "eps": of_eps,
                           "x_0": of_x0, "clipped": float(beyond_clip.mean())})
    shown = demos.windows(PUSHT.relabel(demos.own(PUSHT)), policy.obs_horizon, policy.pred_horizon)
    sheet.add("largest", float(np.abs(in_network_units(policy, *shown)[0]).max()))


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("errors", main, sys.argv[1:]))
