"""Every picture of the README, made again.

    python -m minidiff.pusht.gallery        into minidiff/pusht/pictures, in a minute and a half

    rollouts.webp   three episodes, moving, with eight plans at each decision; by Pillow: pip install 'minidiff[film]'
    rollouts.png    four episodes as film strips, as eval.py --film draws them
    forward.png     a demonstrated plan on its way into the noise, and plans on their way out of it
    schedules.png   how much of a plan and how much noise is in x_t, by each noise schedule
    fork.png        all the ways that a policy sees at a state that is its own mirror image; a regression, trained for this
    steering.png    the same state, steered: by a cost, and by a last action that is settled
    second_task.png plans past a wall; trained and drawn by tests/test_second_task.py, which needs pytest
"""
import argparse
import copy
import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from .. import demos, guidance, policy as policies
from ..diffusion import SCHEDULES, q_sample
from . import EXPERT_DEMOS, SHIPPED_POLICY, chart, draw, modes, rollout
from .env import PushTEnv
from .features import PUSHT

PICTURES, ROOT = Path(__file__).parent / "pictures", Path(__file__).parents[2]
REGRESSION_STEPS = 1850  # half a minute: enough to see where its plans go
STATE = modes.symmetric_states(1, np.random.default_rng(35))[0]


def forward(path, policy):
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1-alpha_bar_t) eps (eq. 5) for 6 eps, above; the chain back (eq. 14), below."""
    data = demos.load(EXPERT_DEMOS, PUSHT)
    obs, actions = demos.windows(data, policy.obs_horizon, policy.pred_horizon)
    k = np.ptp(actions[:2000], 1).min(1).argmax()  # a plan that goes far, both in x and in y
    rng, shown = np.random.default_rng(0), (0, 5, 15, 30, 50, 70, 100)
    seen, frame = np.repeat(obs[k:k + 1], 6, 0), PUSHT.frame(obs[k:k + 1])
    x0 = policy.normaliser.chunk(np.repeat(actions[k:k + 1], 6, 0), frame)
    eps = rng.standard_normal(x0.shape, dtype=np.float32)
    to_noise = [policy.normaliser.actions(q_sample(policy.schedule, x0, t, eps) if t else x0, frame) for t in shown]
    back = list(policy.denoise(seen, rng))[::-1]  # back[t] holds x_t
    panel = lambda plans, t: (obs[k, -1], f"t = {t}", plans)
    draw.film_strip(path, [("forward", list(map(panel, to_noise, shown)), "one demonstrated\nplan, 6 noises"),
                           ("reverse", [panel(back[t], t) for t in shown], "6 plans: read\nfrom right to left")])


def schedules(path):
    lines = []
    for name, make in SCHEDULES.items():
        s = make(100)
        lines += [(f"{name}: signal", np.arange(101), s.signal), (f"{name}: noise", np.arange(101), s.noise)]
    chart.curves(path, lines, "What x_t is made of", "t", "share", log_y=False,
                 note="x_t = signal x_0 + noise eps, signal = sqrt(alpha_bar_t), noise = sqrt(1 - alpha_bar_t)")


def program(module, *arguments):
    """Run a program of this repository to its end. Its progress is shown, what it prints is not."""
    if subprocess.run([sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
        raise RuntimeError(f"python -m {module} failed, in {ROOT}")


def trained_regression():
    """A policy trained on the demonstrations that come with minidiff, by regression in place of diffusion."""
    with tempfile.TemporaryDirectory() as folder:
        program("train", "--objective", "mse", "--steps", REGRESSION_STEPS, "--lr", 1e-3,
                "--score-episodes", 0, "--out", folder)
        return policies.load(Path(folder) / "policy.npz", PUSHT)[0]


def fork(path, policy):
    rng, regression = np.random.default_rng(0), trained_regression()
    panels = [(STATE, "diffusion", modes.motions(policy, STATE, 32, rng)),
              (STATE, "regression", modes.motions(regression, STATE, 1, rng)),
              (STATE, "the demonstrator", modes.demonstrated(STATE, 16, rng))]
    draw.film_strip(path, [("a fork", panels, "left and right\nare equally good")], size=300)


def steered(policy, **changes):
    """The policy with some of its attributes changed."""
    policy = copy.copy(policy)
    for name, value in changes.items():
        setattr(policy, name, value)
    return policy


def to_one_side(policy, px=5.0):
    """A policy whose plans' probability at STATE rises by e for every `px` that they lie farther right on average."""
    right = modes.ACROSS @ PUSHT.frame(STATE[None, None])[1][0]  # as the plan's own axes see it
    weight = (policy.normaliser.scale * -right / len(policy.normaliser.scale) / px).astype(np.float32)  # (H, D)
    return steered(policy, eps_theta=guidance.cost_guided(policy.schedule, policy.eps_theta, lambda x0: x0 * weight))


def to_end_at(policy, state, point):
    """A policy whose plans end at a point (2,)."""
    plan = np.tile(np.asarray(point, np.float32), (1, policy.pred_horizon, 1))
    known = policy.normaliser.chunk(plan, PUSHT.frame(state[None, None]))
    last = (np.arange(policy.pred_horizon) == policy.pred_horizon - 1)[:, None]
    return steered(policy, sampler=functools.partial(guidance.inpainting, known=known, mask=last))


def steering(path, policy):
    rng = np.random.default_rng(0)
    before, after = (np.mean(((modes.motions(p, STATE, 200, rng) - STATE[:2]) @ modes.ACROSS).mean(1) > 0)
                     for p in (policy, to_one_side(policy)))
    end = STATE[:2] + 100 * modes.ACROSS
    panels = [(STATE, f"as learned: {before:.0%} to the right", modes.motions(policy, STATE, 24, rng)),
              (STATE, f"by a cost: {after:.0%} to the right", modes.motions(to_one_side(policy), STATE, 24, rng)),
              (STATE, "the last action settled", modes.motions(to_end_at(policy, STATE, end), STATE, 24, rng))]
    draw.film_strip(path, [("steering", panels, "one state,\n24 plans each")], size=300)


def main():
    parser = argparse.ArgumentParser(prog="python -m minidiff.pusht.gallery", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=PICTURES, help=f"a folder (default: {PICTURES})")
    parser.add_argument("--policy", default=SHIPPED_POLICY, help="a checkpoint (default: what comes with minidiff)")
    args = parser.parse_args()
    policy = policies.load(args.policy, PUSHT)[0]
    jobs = {"rollouts.webp": lambda path: rollout.animation(path, policy, range(300000, 300003)),
            "rollouts.png": lambda path: rollout.film(path, policy, range(300000, 300004)),
            "forward.png": lambda path: forward(path, policy), "schedules.png": schedules,
            "fork.png": lambda path: fork(path, policy), "steering.png": lambda path: steering(path, policy),
            "second_task.png": lambda path: program("tests.test_second_task", path)}
    for name, job in jobs.items():
        path = Path(args.out).resolve() / name
        try:
            job(path)
        except RuntimeError as error:  # no pygame, no Pillow, or a program that failed
            print(f"no {path}: {error}")
        else:
            print(f"picture: {path}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"gallery: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; each picture is whole, a new one or the old one")
