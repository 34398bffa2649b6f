"""The receding-horizon policy: observe, plan a chunk of actions, carry out the first few, repeat.

A plan is a sampled chunk: x_0 ~ p_theta(x_0 | features of the observations) at temperature 1, in
the task's units.
"""
import dataclasses
import functools
from pathlib import Path
from typing import Callable

import numpy as np

from . import checkpoint
from .demos import Normaliser, Task, frame_of
from .diffusion import LOSSES, Schedule, ancestral_sampling, prior
from .training import Config, Diverged, build, check_numbers, check_progress


@dataclasses.dataclass
class DiffusionPolicy:
    """Plans by sampling from a denoiser. ValueError where the horizons do not fit together."""
    eps_theta: Callable
    schedule: Schedule
    task: Task
    normaliser: Normaliser
    obs_horizon: int = 1  # how many of the latest observations it is given
    pred_horizon: int = 8  # H, actions in a plan
    action_horizon: int = 4  # actions carried out before the next plan, see demos.Task
    sampler: Callable = ancestral_sampling  # or a function with the same arguments
    clip: float = 4.0  # bound on the predicted x_0, see diffusion.mean_from_eps
    temperature: float = 0.7  # factor on all noise: 1 samples p_theta, 0 draws no noise at all

    def __post_init__(self):
        if not 1 <= self.action_horizon <= self.pred_horizon:
            raise ValueError(f"action_horizon {self.action_horizon}: a plan has "
                             f"{self.pred_horizon} actions: choose from 1 to all of them")

    def plan(self, obs, rng):
        """A plan for each obs (B, obs_horizon, S) -> actions (B, H, D). rng: a NumPy Generator."""
        frame = self._frame(obs)
        *_, x0 = self._chain(obs, frame, rng)
        plan = self.normaliser.denormalise(x0, frame)
        if not np.isfinite(plan).all():
            raise ValueError("a plan is not finite: the observations or the weights are too large")
        return plan

    def denoise(self, obs, rng):
        """The same plans while they form: yields x_T, .., x_0 as actions (B, H, D)."""
        frame = self._frame(obs)
        for x in self._chain(obs, frame, rng):
            yield self.normaliser.denormalise(x, frame)

    def _frame(self, obs):
        """The frame of observations; ValueError if their shape does not fit the policy."""
        ranges = self.task.state_range
        S = obs.shape[-1] if ranges is None else len(ranges)
        if obs.shape[1:] != (self.obs_horizon, S):
            raise ValueError(f"this policy sees observations of shape (B, {self.obs_horizon}, {S}),"
                             f" not {obs.shape}")
        return frame_of(self.task, obs)

    def _chain(self, obs, frame, rng):
        """x_T, .., x_0 (B, H, D), in the network's units, as the sampler yields them."""
        cond = self.normaliser.standardise(self.task.features(obs, frame))
        shape = len(obs), self.pred_horizon, len(self.normaliser.centre)
        rng = Tempered(rng, self.temperature)
        return self.sampler(self.schedule, self.eps_theta, prior(shape, rng), cond, rng,
                            clip=self.clip)


class Tempered:
    """Normal random numbers with standard deviation `temperature`; below 1 plans vary less."""

    def __init__(self, rng, temperature):
        self.rng = rng
        self.temperature = temperature

    def standard_normal(self, shape, dtype=np.float64):
        return self.rng.standard_normal(shape, dtype) * np.asarray(self.temperature, dtype)


# ---- an episode ----------------------------------------------------------------------------------

def history(seen, count):
    """The last `count` observations seen, (count, S); early in an episode the first is repeated."""
    return np.stack([seen[max(0, len(seen) - k)] for k in range(count, 0, -1)])


def run_episode(policy, env, rng, seed=None, options=None, decide=None):
    """Observe, plan, act, until the environment ends the episode.

    env: reset(seed=, options=) -> obs, info; step(action) -> obs, reward, terminated, truncated,
    info (as Gymnasium has them). decide(env, obs (obs_horizon, S), rng) -> actions (H, D) replaces
    the policy's plan. Yields (obs, reward, info): after the reset, with reward 0, and after each
    step.
    """
    obs, info = env.reset(seed=seed, options=options)
    yield obs, 0.0, info
    seen = [np.copy(obs)]  # a copy: the environment may write into the same array again
    while True:
        latest = history(seen, policy.obs_horizon)
        plan = decide(env, latest, rng) if decide else policy.plan(latest[None], rng)[0]
        for action in plan[:policy.action_horizon]:
            obs, reward, terminated, truncated, info = env.step(action)
            seen.append(np.copy(obs))
            yield obs, reward, info
            if terminated or truncated:
                return


# ---- the file of a policy ------------------------------------------------------------------------

def contents(trainer):
    """What the file of a Trainer's policy holds -> arrays by name, meta (a dictionary of facts).

    arrays: the averaged weights (ema), beta, and the fields of the Normaliser. meta: the task's
    name, the config, the steps done, the CPU seconds, and a hash of the demonstrations.
    """
    arrays = {"ema": trainer.optimiser.ema, "beta": trainer.schedule.beta[1:],
              **trainer.normaliser._asdict()}
    meta = {"task": trainer.task.name, "config": dataclasses.asdict(trainer.config),
            "update": trainer.n, "cpu_seconds": trainer.cpu_seconds(),
            "demos_sha256": trainer.demos_sha256}
    return arrays, meta


def assemble(arrays, meta, task, sampler=ancestral_sampling, **options):
    """The DiffusionPolicy made of `contents`. ValueError where they do not fit together."""
    if meta.get("task") != task.name:
        raise ValueError(f"a policy for the task '{meta.get('task')}', not for '{task.name}'; "
                         "name its own task by --task (train.py, eval.py)")
    config = config_of(meta)
    check_progress(meta, config)
    if sampler is ancestral_sampling and config.objective not in LOSSES:
        raise ValueError(f"trained by --objective {config.objective}, so it predicts no noise: "
                         "minidiff.beyond.load knows its sampler")
    check_numbers({name: arrays[name] for name in ("ema", "beta", *Normaliser._fields)})
    normaliser = Normaliser(*(arrays[name].astype(np.float64) for name in Normaliser._fields))
    shapes = [array.shape for array in normaliser]
    H, D = config.pred_horizon, normaliser.centre.size
    if task.action_range is not None and D != len(task.action_range):
        raise ValueError(f"its actions are of {D} numbers, not of {len(task.action_range)}")
    per_step = (H, 1 if task.frame else D)
    if shapes != [(normaliser.mean.size,), (normaliser.mean.size,), (D,), per_step]:
        raise ValueError(f"mean, std, centre and scale have the shapes {shapes}, which do not fit")
    if (normaliser.std <= 0).any() or (normaliser.scale <= 0).any():
        raise ValueError("std and scale must be above 0")
    schedule, eps_theta = build(config, D, len(normaliser.mean), np.random.default_rng(0))
    theta = eps_theta.net.theta
    if theta.shape != arrays["ema"].shape or not np.allclose(schedule.beta[1:], arrays["beta"]):
        raise ValueError("the schedule or the weights do not fit the config in the same file")
    theta[:] = arrays["ema"]
    eps_theta.net.freeze()
    if eps_theta.learned and sampler is ancestral_sampling:
        sampler = functools.partial(ancestral_sampling, variance="learned")
    options = {"action_horizon": min(task.action_horizon, config.pred_horizon),
               "clip": config.clip} | options
    return DiffusionPolicy(eps_theta, Schedule(arrays["beta"]), task, normaliser,
                           config.obs_horizon, config.pred_horizon, sampler=sampler, **options)


def config_of(meta):
    """The Config in a file's meta. ValueError if it is not valid, or lacks fields."""
    try:
        config = Config(**meta["config"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"its config is not one of this version: {error!r}") from None
    missing = [name for name in dataclasses.asdict(config) if name not in meta["config"]]
    if missing:
        raise ValueError(f"its config lacks {', '.join(missing)}")
    return config


def from_trainer(trainer, sampler=ancestral_sampling, **options):
    """The policy of a Trainer, as far as it is trained. options: as for `load`."""
    return assemble(*contents(trainer), trainer.task, sampler, **options)


def save(path, trainer, resumable=False, **notes):
    """Write a Trainer's policy to a file. resumable: with all that training needs to go on.

    notes are kept in meta. Diverged, before it writes, if a number is not finite or too large.
    """
    arrays, meta = contents(trainer)
    going_on = trainer.state() | {"losses": trainer.losses[:trainer.n]}
    try:
        check_numbers(going_on)
    except ValueError as error:
        raise Diverged(f"diverged at step {trainer.n}: {error}") from None
    if resumable:
        arrays |= going_on
        meta |= {"rng": trainer.rng.bit_generator.state}
    checkpoint.save(path, arrays, meta | notes)


def load(path, task, sampler=ancestral_sampling, **options):
    """The policy in a file, or in a run's folder -> DiffusionPolicy, meta.

    options: action_horizon, clip, temperature of DiffusionPolicy. Raises ValueError with one
    sentence if the file is damaged, or does not fit the task or the sampler.
    """
    arrays, meta = read(path)
    try:
        return assemble(arrays, meta, task, sampler, **options), meta
    except ValueError as error:
        raise ValueError(f"{find(path)}: {error}") from None


def read(path, needs=()):
    """The arrays and the meta of a policy's file; path as for `load`. needs: further arrays."""
    return checkpoint.load(find(path), needs=("ema", "beta", *Normaliser._fields, *needs))


def find(path):
    """The file of a policy: path itself, or, where path is a run's folder, the file in it."""
    path = Path(path)
    if not path.is_dir():
        return path
    whole = path / "checkpoint.npz"
    return whole if whole.exists() else path / "policy.npz"
