"""Every picture of the pages, made again.

    python tests/benchmarks/gallery.py                  all, in a minute and a half
    python tests/benchmarks/gallery.py --only fork.png

    hero.webp        moving, as the window shows it: noise becomes a plan, then the policy pushes;
                     needs Pillow: pip install 'minidiff[film]'
    rollouts.png     four episodes as film strips
    forward.png      a demonstrated plan on its way into the noise, and plans on their way out of it
    schedules.png    how much of a plan and how much noise is in x_t, by each noise schedule
    fork.png         the motions that a policy sees at a state that is its own mirror image, with
                     those of a regression, which is trained for this
    rests.png        three states at which a regression rests: its plan, which leads nowhere, those
                     of diffusion and those of the demonstrator
    steering.png     the same state, steered: by a cost, and by a last action that is given
    ladder.png       what a draw is worth, from the figures of results.py --only ladder
    second_task.png  plans past a wall (minidiff/wall.py), by diffusion and by regression
"""
import argparse
import dataclasses
import functools
import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from minidiff import beyond, demos, stopping, wall  # noqa: E402
from minidiff.beyond import baselines, guidance  # noqa: E402
from minidiff.diffusion import SCHEDULES, ancestral_sampling, l_simple, q_sample  # noqa: E402
from minidiff.policy import from_trainer  # noqa: E402
from minidiff.progress import Progress  # noqa: E402
from minidiff.pusht import EXPERT_DEMOS, SHIPPED_POLICY  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.geometry import coverage  # noqa: E402
from minidiff.pusht.study import forks, rests  # noqa: E402
from minidiff.pusht.view import charts, drawing, films, scene, watch, windows  # noqa: E402
from minidiff.pusht.view.player import Player  # noqa: E402
from minidiff.training import Config, Trainer  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks import ladder, results, tables  # noqa: E402

FOLDER = ROOT / "minidiff" / "pusht" / "pictures"
REGRESSION = Config(objective="mse")
SEEDS = range(300000, 301000)
HERO_STEPS = 300  # at most, of the episode of hero.webp
STATE = forks.symmetric_states(1, np.random.default_rng(35))[0]


# ---- what has to be trained for a picture --------------------------------------------------------

def trained(config, task, data, loss, sampler):
    """A policy, after config.steps of training."""
    trainer = Trainer(config, task, data, loss)
    progress = Progress("training", config.steps)
    for mean_loss in trainer:
        stopping.safe_point()
        progress.show(trainer.n, f"loss {mean_loss:.5f}")
    return from_trainer(trainer, sampler)


@functools.cache
@functools.cache
def trained_regression():
    """Behaviour cloning of the demonstrations that come with minidiff."""
    data = demos.load(EXPERT_DEMOS, PUSHT)
    return trained(REGRESSION, PUSHT, data, baselines.mse_loss, baselines.regression)


# ---- steering ------------------------------------------------------------------------------------

def to_one_side(policy, px=5.0):
    """A policy whose plans' probability at STATE rises by a factor of e for every `px` that they
    lie farther right on average."""
    _, (axes,) = PUSHT.frame(STATE[None, None])
    scale = policy.normaliser.scale  # (H, 1)
    weight = (scale * -(forks.ACROSS @ axes) / len(scale) / px).astype(np.float32)  # (H, 2)

    def cost(x0):
        return x0 * weight

    guided = guidance.CostGuided(policy.schedule, policy.eps_theta, cost)
    return dataclasses.replace(policy, eps_theta=guided)


def to_end_at(policy, state, point):
    """A policy whose plans from a state end at a point (2,)."""
    H = policy.pred_horizon
    plan = np.tile(np.asarray(point, np.float32), (1, H, 1))
    given = policy.normaliser.normalise(plan, PUSHT.frame(state[None, None]))
    last = (np.arange(H) == H - 1)[:, None]
    sampler = functools.partial(guidance.inpainting, given=given, mask=last)
    return dataclasses.replace(policy, sampler=sampler)


# ---- the pictures --------------------------------------------------------------------------------

def hero(path, policy, seed=300013):
    """Eight plans come out of the noise; the first is carried out, and so on until the goal."""
    drawing.load_pillow()
    pg = drawing.load_pygame()
    screen = pg.Surface((800, 469))
    player = Player(policy, 0, HERO_STEPS, "legacy", candidates=8)
    player.start(seed)
    frames, seconds = [], []

    def shoot(duration):
        screen.fill(drawing.PAPER)
        scene.world(pg, screen, player)
        first = f"coverage {player.coverage:4.0%}    step {player.steps}"
        windows.panel(pg, screen, first, player.ended, "", "")
        scene.chain(pg, screen, player)
        windows.overlay(pg, screen, (), watch.COLOURS, scene.LOWER + 20)
        frames.append(drawing.to_pixels(screen))
        seconds.append(duration)

    while not player.ended:
        player.decide()
        player.chosen = 0  # the policy's first, not the best
        looked_at = [100, 90, 80, 70, 60, 55, 50, 45, 40, 35, 30, 25, 20, 15, 10, 7, 4, 2, 0]
        for t in {0: looked_at, 4: looked_at[::3]}.get(player.steps, (40, 10)):
            player.look(t)
            shoot(0.25 if player.steps == 0 else 0.1)
        player.shown = -1
        for _ in range(policy.action_horizon):
            if not player.ended:
                player.step()
                shoot(0.1)
    shoot(2.0)
    drawing.save_animation(path, frames, 1 / np.array(seconds))


def strips(path, policy):
    films.film(path, policy, SEEDS[:4], frames=6)


def forward(path, policy):
    """Above x_t by eq. 5 for one plan and 6 eps, below the chain back (eq. 14)."""
    policy = dataclasses.replace(policy, temperature=1.0)
    data = demos.load(EXPERT_DEMOS, PUSHT)
    obs, actions = demos.windows(data, policy.obs_horizon, policy.pred_horizon)
    k = np.ptp(actions[:2000], 1).min(1).argmax()  # a plan that goes far, both in x and in y
    obs = np.repeat(obs[k:k + 1], 6, 0)
    frame = PUSHT.frame(obs)
    x0 = policy.normaliser.normalise(np.repeat(actions[k:k + 1], 6, 0), frame)
    rng = np.random.default_rng(0)
    eps = rng.standard_normal(x0.shape, dtype=np.float32)
    plans = list(policy.denoise(obs, rng))[::-1]  # plans[t] holds x_t
    into_noise, out_of_noise = [], []
    for t in (0, 5, 20, 50, 100):
        x_t = q_sample(policy.schedule, x0, t, eps) if t else x0
        noised = policy.normaliser.denormalise(x_t, frame)
        what = {0: ": plan", 100: ": noise"}.get(t, "")
        into_noise.append((obs[0, -1], f"t = {t}{what}", noised))
        out_of_noise.append((obs[0, -1], f"t = {t}{what}", plans[t]))
    drawing.film_strip(path, [
        ("forward", into_noise, "adds noise\nto one\ndemonstrated\nplan, 6 times"),
        ("reverse", out_of_noise[::-1], "removes\nnoise: 6 plans\nof the policy")], near=True)


def schedules(path, policy):
    lines = []
    for name, make in SCHEDULES.items():
        schedule = make(100)
        lines.append((f"{name}: signal", np.arange(101), schedule.signal))
        lines.append((f"{name}: noise", np.arange(101), schedule.noise))
    styles = list(itertools.product(charts.SERIES, (False, True)))  # a colour for each schedule
    charts.curves(path, lines, "What x_t is made of", "t, from the plan to noise", "coefficient",
                  log_y=False, styles=styles, note="x_t = signal x_0 + noise eps; signal = "
                  "sqrt(alpha_bar_t), noise = sqrt(1 - alpha_bar_t), dashed")


def fork(path, policy):
    policy = dataclasses.replace(policy, temperature=1.0)
    rng = np.random.default_rng(0)
    panels = []
    for name, shown in (("diffusion", forks.motions(policy, STATE, 32, rng)),
                        ("regression", forks.motions(trained_regression(), STATE, 1, rng)),
                        ("demonstrator", forks.demonstrated(STATE, 16, rng))):
        panels.append((STATE, f"{name}: {sides(shown)}", shown))
    row = "a fork", panels, "left and\nright are\nequally good"
    drawing.film_strip(path, [row], size=300, near=True)


def resting(path, policy):
    """A row for each of the first three episodes in which the regression rests."""
    policy = dataclasses.replace(policy, temperature=1.0)
    regression = trained_regression()
    rng = np.random.default_rng(0)
    rows = []
    for episode, states in itertools.islice(rests.resting(regression, SEEDS), 3):
        state = states[-1]
        panels = [(state, "regression", plans(regression, state, 1, rng)),
                  (state, "diffusion", plans(policy, state, 16, rng)),
                  (state, "the demonstrator", forks.demonstrated(state, 16, rng)[:, :8])]
        rows.append((f"seed {episode.seed}", panels, f"{coverage(state[2:]):.1%} covered"))
    drawing.film_strip(path, rows, size=200, near=True)


def steering(path, policy):
    policy = dataclasses.replace(policy, temperature=1.0)
    rng = np.random.default_rng(0)
    guided = to_one_side(policy)
    point = STATE[:2] + 100 * forks.ACROSS
    ending = to_end_at(policy, STATE, point)
    panels = []
    for steered, name, *target in ((policy, "as learned"), (guided, "led by a cost"),
                                   (ending, "ends at the target", point)):
        shown = plans(steered, STATE, 24, rng)
        panels.append((STATE, f"{name}: {sides(shown)}", shown, *target))
    row = "steering", panels, "one state,\n24 plans\neach"
    drawing.film_strip(path, [row], size=300, near=True)


def plans(policy, state, count, rng):
    """(count, H, 2) from a state at rest."""
    return policy.plan(np.tile(state, (count, policy.obs_horizon, 1)), rng)


def sides(plans):
    """Of plans (n, H, 2) from STATE, as `forks` counts them: two lines."""
    left, between, right = [round(len(plans) * share) for share in forks.shares(plans, STATE)]
    return f"{left} left of the T,\n{right} right of the T, {between} between"


def passing(plans):
    """Which way plans (n, H, 2) with rising y pass the wall, counted."""
    at_wall = np.array([np.interp(0, y, x) for x, y in plans.swapaxes(1, 2)])
    left, right = (at_wall <= -wall.WALL).sum(), (at_wall >= wall.WALL).sum()
    return f"{left} pass left, {right} right, {len(plans) - left - right} hit it"


def second_task(path, policy):
    """Plans past the wall from the middle, (0, -1)."""
    data = demos.own(wall.TASK)
    config = Config(**wall.TASK.recipe)
    regression_config = dataclasses.replace(config, objective="mse")
    diffusion = trained(config, wall.TASK, data, l_simple, ancestral_sampling)
    regression = trained(regression_config, wall.TASK, data, baselines.mse_loss,
                         baselines.regression)
    lines, counted = [], []
    for name, planner, count in (("24 plans of diffusion", diffusion, 24),
                                 ("1 plan of regression", regression, 1)):
        obs = np.tile([0.0, -1.0], (count, 1, 1))
        plans = np.concatenate([obs, planner.plan(obs, np.random.default_rng(1))], 1)
        counted.append(f"{name}: {passing(plans)}.")
        gap = np.full((count, 1, 2), np.nan)  # between one plan's line and the next
        x, y = np.concatenate([plans, gap], 1).reshape(-1, 2).T
        lines.append((name, x, y))
    lines.append(("start, wall, goal", [0, np.nan, -wall.WALL, wall.WALL, np.nan, 0],
                  [-1, np.nan, 0, 0, np.nan, 1]))
    words = [("start", 0, -0.85), ("wall", wall.WALL, 0), ("goal", 0, 1)]
    charts.curves(path, lines, "Past a wall: plans for one observation", "x", "y", log_y=False,
                  note=" ".join(counted), words=words,
                  styles=[(drawing.BLUE, False), (drawing.VERMILLION, True), (charts.BLACK, False)])


def climbed(path, policy):
    """Success by the size of the noise, from the kept figures of ladder.py."""
    if not all((results.FOLDER / step.output).exists() for step in tables.LADDER["own"]):
        raise RuntimeError("first run python tests/benchmarks/results.py --only ladder")
    ladder.draw(path, [results.read(results.FOLDER / step.output)
                       for step in tables.LADDER["own"]])


PICTURES = {"hero.webp": hero, "rollouts.png": strips, "forward.png": forward,
            "schedules.png": schedules, "fork.png": fork, "rests.png": resting,
            "steering.png": steering, "ladder.png": climbed, "second_task.png": second_task}


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=FOLDER, help=f"a folder (default: {FOLDER})")
    parser.add_argument("--run", default=SHIPPED_POLICY,
                        help="a run's folder, or a policy's file (default: the shipped policy)")
    parser.add_argument("--only", choices=tuple(PICTURES), nargs="+", metavar="NAME",
                        default=tuple(PICTURES), help="these pictures: " + ", ".join(PICTURES))
    args = parser.parse_args(arguments)
    policy, _ = beyond.load(args.run, PUSHT)
    for name in args.only:
        path = Path(args.out).resolve() / name
        try:
            PICTURES[name](path, policy)
        except RuntimeError as error:  # a package or figures are missing
            print(f"no {path}: {error}")
        else:
            print(f"picture: {path}")


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("gallery", main, sys.argv[1:]))
