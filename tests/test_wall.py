"""A second task, which shares nothing with PushT: a point has to get past a wall, by its left or by its right.

    python tests/test_second_task.py plans.png        draws the plans of diffusion and of regression

All that the method is told of a task is a Task; what trains, plans and keeps is minidiff as it is for PushT.
"""
import minidiff  # first: it decides how many threads NumPy's BLAS takes
import sys

import numpy as np
import pytest

from minidiff import demos
from minidiff.beyond.baselines import mse_loss
from minidiff.diffusion import cosine_schedule, l_simple, loss_weight, sample_t
from minidiff.nn import MLP, Denoiser
from minidiff.optim import AdamW, flat_gradient, learning_rate
from minidiff.policy import DiffusionPolicy
from minidiff.tensor import Tape

PASSING = demos.Task("passing", features=lambda obs: obs[:, -1], frame=lambda obs: (obs[:, -1], np.eye(2)[None]),
                     state_range=np.array([[-2, 2]] * 2), action_range=np.array([[-2, 2]] * 2))
WALL = 0.5  # it reaches from x = -0.5 to 0.5 at y = 0


def demonstrations(episodes, rng, H=16):
    """From somewhere near (0, -1) up to (0, 1), half of them on each side of the wall. One window each."""
    s = np.linspace(0, 1, H + 1)
    start = rng.normal((0, -1), 0.05, (episodes, 2))
    side = rng.choice([-1, 1], episodes)
    x = start[:, :1] * (1 - s) + (side * rng.normal(0.85, 0.05, episodes))[:, None] * np.sin(np.pi * s)
    path = np.stack([x, start[:, 1:] + (1 - start[:, 1:]) * s], -1)  # (episodes, H + 1, 2)
    arrays = {"state": path[:, :-1].reshape(-1, 2), "action": path[:, 1:].reshape(-1, 2),
              "episode_ends": H * np.arange(1, episodes + 1)}
    return demos.check(arrays, PASSING)


def train(objective, steps=2000, H=16, batch=128):
    rng = np.random.default_rng(0)
    cond, x0, normaliser = demos.training_set(demonstrations(300, rng), PASSING, 1, H, clip=4.0)
    schedule = cosine_schedule(50)
    net = MLP((H, 2), cond.shape[1], rng, width=64, blocks=2)
    eps_theta, optimiser, weight = Denoiser(net, schedule.alpha_bar), AdamW(net.theta, ema_decay=0.99), loss_weight(schedule, "inverse-alpha-bar")
    for n in range(steps):
        i = rng.integers(0, len(x0), batch)
        t, eps = sample_t(schedule, batch, rng), rng.standard_normal((batch, H, 2), dtype=np.float32)
        with Tape() as tape:
            loss = (l_simple(schedule, eps_theta, x0[i], t, eps, cond[i], weight) if objective == "simple"
                    else mse_loss(eps_theta, x0[i], cond[i]))
        tape.backward(loss)
        optimiser.step(flat_gradient(net.params), learning_rate(n, steps, 3e-3))
    net.theta[:] = optimiser.ema
    return DiffusionPolicy(eps_theta, schedule, PASSING, normaliser, obs_horizon=1, pred_horizon=H,
                           sampler="ancestral" if objective == "simple" else "regression")


def plans(objective, n=60):
    """n plans (n, 17, 2) from the middle, (0, -1), and where each crosses the height of the wall (n,)."""
    obs = np.tile([0.0, -1.0], (n, 1, 1))
    paths = np.concatenate([obs, train(objective).plan(obs, np.random.default_rng(1))], 1)
    return paths, np.array([np.interp(0, path[:, 1], path[:, 0]) for path in paths])


@pytest.mark.slow
def test_diffusion_passes_on_both_sides_where_regression_runs_into_the_wall():
    _, crossing = plans("simple")
    assert (np.abs(crossing) > WALL).mean() > 0.9
    assert 10 <= (crossing > 0).sum() <= 50  # 60 fair draws leave this with a probability of 3e-8
    _, crossing = plans("mse", n=1)
    assert abs(crossing[0]) < WALL / 2


if __name__ == "__main__":
    from minidiff.pusht import chart  # for its brushes only
    wall = ("the wall", [-WALL, WALL], [0, 0])
    joined = lambda paths: np.concatenate([np.vstack([path, [np.nan] * 2]) for path in paths]).T
    lines = [("diffusion, 24 plans", *joined(plans("simple", 24)[0])), ("regression", *joined(plans("mse", 1)[0])), wall]
    chart.curves(sys.argv[1], lines, "Past a wall", "x", "y", log_y=False, note="All plans are for the same observation.")
