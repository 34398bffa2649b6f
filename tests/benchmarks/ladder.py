"""From regression to diffusion, one thing changed at a time: what makes a policy succeed?

    python tests/benchmarks/ladder.py runs/ladder
    python tests/benchmarks/ladder.py runs/ladder-human --demos human.npz
    python tests/benchmarks/ladder.py runs/ladder-wall --wall
    python tests/benchmarks/ladder.py runs/ladder --draw ladder.png

Each rung is a trained network and a way to draw plans from it. All networks are trained with the
defaults of train.py. Networks and results are kept in the folder: what is there is not done again.
results-SEED.json says of each rung, for each episode: solved, score, steps, and whether it ended at
rest (pusht/study/rests.py).
"""
import dataclasses
import functools
import itertools
import json
import sys
from pathlib import Path
from typing import Callable, NamedTuple

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import beyond, demos, policy, stopping, wall  # noqa: E402
from minidiff.beyond import baselines, formats  # noqa: E402
from minidiff.beyond.samplers import ddim_sampling  # noqa: E402
from minidiff.checkpoint import write_json  # noqa: E402
from minidiff.diffusion import ancestral_sampling  # noqa: E402
from minidiff.progress import Progress, say  # noqa: E402
from minidiff.pusht import EXPERT_DEMOS  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.study.disturbances import DisturbedEnv  # noqa: E402
from minidiff.pusht.study.rests import rests  # noqa: E402
from minidiff.scoring import rollout  # noqa: E402
from minidiff.training import Config, Trainer  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks.measuring import FIRST, TRAINING_SEEDS  # noqa: E402

BLUR = 0.05  # standard deviation of the noise on the features of the objective "blurred"


# ---- ways to draw a plan: samplers, with the arguments of diffusion.ancestral_sampling -----------

def kept_for_an_episode(sampler, schedule, eps_theta, x_T, cond, rng, clip=None):
    """x_T is drawn at the first decision of each episode only."""
    episodes = rng.rng  # rollout.EpisodeNoise, all of whose episodes are active at first
    first = vars(episodes).setdefault("first", x_T)
    return sampler(schedule, eps_theta, first[episodes.active], cond, rng, clip=clip)


def one_for_all(sampler, seed, schedule, eps_theta, x_T, cond, rng, clip=None):
    """x_T is the same at all decisions of all episodes."""
    one = np.random.default_rng(seed).standard_normal(x_T.shape[1:], dtype=x_T.dtype)
    return sampler(schedule, eps_theta, np.repeat(one[None], len(x_T), 0), cond, rng, clip=clip)


def gaussian(factor, schedule, eps_theta, x_T, cond, rng, clip=None):
    """N(regression, factor factor^T), the simplest distribution; factor (H D, H D)."""
    mean, = baselines.regression(schedule, eps_theta, x_T, cond, rng)
    noise = x_T.reshape(len(x_T), -1) @ factor.T
    yield np.clip(mean + noise.reshape(x_T.shape), -clip, clip)


def likeliest(schedule, eps_theta, x_T, cond, rng, clip=None):
    """Of the mixture always the mean of the component with the largest weight."""
    mu, log_w, _ = baselines.mixture_parts(eps_theta, x_T.shape[1:], cond)
    yield np.clip(mu[np.arange(len(mu)), :, log_w.argmax(1)], -clip, clip)


def residual_factor(trainer, planner):
    """A factor of the covariance of what a regression leaves of its demonstrations, (H D, H D)."""
    predicted = baselines.network_output(planner.eps_theta, trainer.x0.shape[1:], trainer.cond)
    left = (trainer.x0 - predicted).reshape(len(predicted), -1).astype(np.float64)
    return np.linalg.cholesky(left.T @ left / len(left)).astype(np.float32)


def blurred_loss(schedule, eps_theta, x0, t, eps, cond, weight=None):
    """That of regression, with noise on the features in training alone."""
    noise = np.resize(eps, cond.shape)
    return baselines.mse_loss(schedule, eps_theta, x0, t, eps, cond + np.float32(BLUR) * noise)


# ---- the rungs -----------------------------------------------------------------------------------

class Rung(NamedTuple):
    """objective: what the network is trained for, by name. sampler(trainer, planner) -> a sampler.
    obs_noise: px on all that is observed (PushT)."""
    objective: str
    sampler: Callable
    temperature: float = 1.0
    obs_noise: float = 0.0


def plain(sampler, **options):
    return lambda trainer, planner: functools.partial(sampler, **options)


def ddim(steps):
    return lambda trainer, planner: functools.partial(
        ddim_sampling, steps=min(steps, trainer.config.T))


def kept(make):
    return lambda *trained: functools.partial(kept_for_an_episode, make(*trained))


def fixed(make):
    return lambda trainer, planner: functools.partial(
        one_for_all, make(trainer, planner), trainer.config.seed)


def around_regression(trainer, planner):
    return functools.partial(gaussian, residual_factor(trainer, planner))


def on_actions(px):
    """Noise of so many pixels on each action of a regression."""
    def make(trainer, planner):
        scale = planner.normaliser.scale  # (H, 1)
        width = np.repeat(px / scale, trainer.x0.shape[2], 1).ravel()
        return functools.partial(gaussian, np.diag(width).astype(np.float32))
    return make


REGRESSION = plain(baselines.regression)
RUNGS = {
    "regression": Rung("mse", REGRESSION),
    "regression, noise on features in training": Rung("blurred", REGRESSION),
    "regression, 1 px noise on observations": Rung("mse", REGRESSION, 1, 1.0),
    "regression, 2 px noise on observations": Rung("mse", REGRESSION, 1, 2.0),
    "regression, 1 px noise on actions": Rung("mse", on_actions(1)),
    "regression, 4 px noise on actions": Rung("mse", on_actions(4)),
    "MIP": Rung("mip", plain(baselines.mip)),
    "MIP, noise at test": Rung("mip", plain(baselines.mip, spread=1.0)),
    "Gaussian": Rung("mse", around_regression),
    "Gaussian, x 0.5": Rung("mse", around_regression, 0.5),
    "Gaussian, x 0.25": Rung("mse", around_regression, 0.25),
    "Gaussian, kept": Rung("mse", kept(around_regression)),
    "Gaussian, x 0.5, kept": Rung("mse", kept(around_regression), 0.5),
    "Gaussian, x 0.25, kept": Rung("mse", kept(around_regression), 0.25),
    "mixture": Rung("mixture", plain(baselines.mixture)),
    "mixture, the likeliest component": Rung("mixture", plain(likeliest)),
    "DDIM, 1 step": Rung("simple", ddim(1)),
    "DDIM, 2 steps": Rung("simple", ddim(2)),
    "DDIM, 3 steps": Rung("simple", ddim(3)),
    "DDIM, 4 steps": Rung("simple", ddim(4)),
    "DDIM, 16 steps": Rung("simple", ddim(16)),
    "DDIM, all steps": Rung("simple", ddim(100)),
    "ancestral": Rung("simple", plain(ancestral_sampling)),
    "DDIM, 4 steps, x 0.5": Rung("simple", ddim(4), 0.5),
    "DDIM, 4 steps, x 0.25": Rung("simple", ddim(4), 0.25),
    "DDIM, 4 steps, x 0": Rung("simple", ddim(4), 0.0),
    "DDIM, 4 steps, kept": Rung("simple", kept(ddim(4))),
    "DDIM, 4 steps, x 0.5, kept": Rung("simple", kept(ddim(4)), 0.5),
    "DDIM, 4 steps, x 0.25, kept": Rung("simple", kept(ddim(4)), 0.25),
    "DDIM, 4 steps, one x_T for all": Rung("simple", fixed(ddim(4))),
}


# ---- a rung, trained and played ------------------------------------------------------------------

def play(planner, seeds, obs_noise):
    """PushT -> [success, score, steps, rests] of each episode."""
    make_env = functools.partial(DisturbedEnv, obs_noise=obs_noise)
    episodes, paths = rollout.rollout(planner, seeds, make_env=make_env, record=True)
    return [[bool(e.success), float(e.score), e.steps,
             not e.success and rests(path, planner.action_horizon)]
            for e, path in zip(episodes, paths)]


def play_wall(planner, seeds, obs_noise):
    """The task of wall.py, where touching the wall ends the episode -> the same."""
    results = []
    for seed in seeds:
        episode, = rollout.rollout(planner, [seed])
        results.append([episode.success, episode.score, episode.steps, False])
    return results


class Setting(NamedTuple):
    """Which task: its demonstrations, its defaults, and how episodes are played."""
    task: demos.Task
    data: demos.Demos
    defaults: Config
    play: Callable


def pusht(files):
    data = demos.join([formats.load(file, PUSHT) for file in files or [EXPERT_DEMOS]])
    return Setting(PUSHT, data, Config(), play)


def past_a_wall():
    return Setting(wall.TASK, demos.own(wall.TASK), Config(**wall.TASK.recipe), play_wall)


def network(setting, objective, seed, folder):
    """The Trainer and the policy of an objective; trained if the folder does not have it yet."""
    name = "mse" if objective == "blurred" else objective
    known = beyond.OBJECTIVES[name]
    loss = blurred_loss if objective == "blurred" else known.loss
    changes = {"objective": name, "outputs": known.outputs, "seed": seed}
    config = dataclasses.replace(setting.defaults, **changes)
    trainer = Trainer(config, setting.task, setting.data, loss)
    path = folder / f"{objective}-{seed}.npz"
    if not path.exists():
        progress = Progress(f"training {objective}, seed {seed}", config.steps)
        for mean in trainer:
            stopping.safe_point()
            progress.show(trainer.n, f"loss {mean:.4f}")
        policy.save(path, trainer)
    planner, _ = policy.load(path, setting.task, baselines.regression)
    return trainer, planner


def planner_of(setting, name, seed, folder):
    """The policy of a rung."""
    rung = RUNGS[name]
    trainer, planner = network(setting, rung.objective, seed, folder)
    return dataclasses.replace(planner, sampler=rung.sampler(trainer, planner),
                               temperature=rung.temperature)


def climb(setting, names, seed, count, folder):
    """{rung: results of `play`} for one training seed; what is missing is played now."""
    path = folder / f"results-{seed}.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in sorted(names, key=lambda name: RUNGS[name].objective):
        if len(results.get(name, ())) >= count:
            continue
        planner = planner_of(setting, name, seed, folder)
        progress = Progress(f"{name}, seed {seed}", count)
        played = []
        for first in range(FIRST, FIRST + count, rollout.CHUNK):
            stopping.safe_point()
            chunk = range(first, min(first + rollout.CHUNK, FIRST + count))
            played += setting.play(planner, chunk, RUNGS[name].obs_noise)
            progress.show(len(played))
        results[name] = played
        write_json(path, results)
    return results


LINES = {  # of the picture: the rungs at the factors of the noise
    "diffusion, redrawn": "DDIM, 4 steps{}", "diffusion, kept": "DDIM, 4 steps{}, kept",
    "Gaussian, redrawn": "Gaussian{}", "Gaussian, kept": "Gaussian{}, kept"}
WITHOUT = {"DDIM, 4 steps{}": "DDIM, 4 steps, x 0", "Gaussian{}": "regression"}


def draw(path, results):
    """Success by the size of the noise, for two distributions, redrawn or kept; results: those of
    `climb` for each training seed."""
    from minidiff.pusht.view import charts  # pygame is needed for nothing else
    lines = []
    for label, pattern in LINES.items():
        names = [WITHOUT[pattern.removesuffix(", kept")]]
        names += [pattern.format(", x 0.25"), pattern.format(", x 0.5"), pattern.format("")]
        solved = [np.mean([[e[0] for e in of_seed[name]] for of_seed in results])
                  for name in names]
        lines.append((label, [0, 0.25, 0.5, 1], 100 * np.array(solved)))
    charts.curves(path, lines, "What a draw is worth", "factor on the noise", "success, %",
                  log_y=False, styles=list(itertools.product(charts.SERIES[:2], (False, True))),
                  note="At 1 the noise is as learned; at 0 there is one plan for each observation. "
                       "Noise is redrawn at each decision, or kept for an episode (dashed). "
                       "Diffusion: DDIM in 4 steps. Gaussian: one around the plan of regression.")


def main(arguments):
    parser = stopping.Parser(prog="python tests/benchmarks/ladder.py", description=__doc__)
    parser.add_argument("folder", type=Path, help="for networks and results")
    parser.add_argument("--demos", nargs="+", help="files (default: those of minidiff)")
    parser.add_argument("--wall", action="store_true", help="the task of minidiff/wall.py instead")
    parser.add_argument("--episodes", type=int, default=500, help="of each seed (default: 500)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(TRAINING_SEEDS),
                        help="of the training (default: 0 1 2)")
    parser.add_argument("--only", nargs="+", choices=tuple(RUNGS), metavar="RUNG",
                        default=tuple(RUNGS), help="these: " + "; ".join(RUNGS))
    parser.add_argument("--draw", metavar="FILE", help="a picture of the rungs with noise")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    setting = past_a_wall() if args.wall else pusht(args.demos)
    names = args.only
    if args.wall:
        names = [name for name in names if not RUNGS[name].obs_noise]
    results = [climb(setting, names, seed, args.episodes, args.folder) for seed in args.seeds]
    for name in names:
        solved = [np.mean([episode[0] for episode in of_seed[name]]) for of_seed in results]
        say(f"{name}: {', '.join(f'{share:.1%}' for share in solved)} solved")
    if args.draw:
        draw(args.draw, results)


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("ladder", main, sys.argv[1:]))
