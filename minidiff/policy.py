"""The receding-horizon policy: observe, plan a chunk of actions, carry out its first few, plan again."""
import inspect

import numpy as np

from . import checkpoint
from .beyond.baselines import COMPONENTS, mixture, regression, shooting
from .demos import Normaliser
from .diffusion import SCHEDULES, Schedule, ancestral_sampling, prior, variational_bound
from .beyond.guidance import classifier_free
from .nn import NETWORKS, Denoiser
from .beyond.samplers import (annealed_langevin, ddim_sampling, log_likelihood, predictor_corrector, probability_flow,
                       reverse_sde)

SAMPLERS = {"ancestral": ancestral_sampling, "ddim": ddim_sampling, "sde": reverse_sde, "flow": probability_flow,
            "langevin": annealed_langevin, "pc": predictor_corrector, "regression": regression, "mixture": mixture,
            "shooting": shooting}
BASELINES = {"mse": ["regression", "shooting"], "mixture": ["mixture", "shooting"]}  # objective -> samplers
OBJECTIVES = ("simple", "hybrid", "bound", *BASELINES)  # what is trained; hybrid and bound learn the variance too


def build(config, task, cond_dim, rng):
    """The noise schedule and a fresh denoiser for a config (a dict, see train.py) -> schedule, eps_theta."""
    schedule = SCHEDULES[config["schedule"]](config["T"])
    learned = config["objective"] in ("hybrid", "bound")
    answers = 3 * COMPONENTS if config["objective"] == "mixture" else 1 + learned
    net = NETWORKS[config["net"]](chunk_shape(config, task), cond_dim, rng, config["width"], config["blocks"], answers)
    return schedule, Denoiser(net, schedule.alpha_bar, config["skip"], learned)


def chunk_shape(config, task):
    return config["pred_horizon"], len(task.action_range)


def load(path, task, **options):
    """The policy in a checkpoint, with the averaged weights -> policy, meta. options: see DiffusionPolicy."""
    arrays, meta = checkpoint.load(path, needs=("ema", "mean", "std", "scale", "beta"))
    config = meta["config"]
    if meta["task"] != task.name:
        raise ValueError(f"{path}: a policy for the task '{meta['task']}', not for '{task.name}'")
    normaliser = Normaliser(*(arrays[name] for name in Normaliser._fields))
    schedule, eps_theta = build(config, task, len(normaliser.mean), np.random.default_rng(0))
    if not np.allclose(schedule.beta[1:], arrays["beta"]) or eps_theta.net.theta.shape != arrays["ema"].shape:
        raise ValueError(f"{path}: the schedule or the weights do not fit the config that stands beside them")
    eps_theta.net.theta[:] = arrays["ema"]
    for param in eps_theta.net.params.values():
        param.needs_grad = False  # from here on gradients go to samples, not to weights
    samplers = BASELINES.get(config["objective"], [s for s in SAMPLERS if s not in ("regression", "mixture")])
    options = {"obs_horizon": config["obs_horizon"], "pred_horizon": config["pred_horizon"], "sampler": samplers[0],
               "action_horizon": min(2, config["pred_horizon"]), "clip": config["clip"]} | options
    if options["sampler"] in SAMPLERS and options["sampler"] not in samplers:
        raise ValueError(f"{path}: trained by --objective {config['objective']}, so its plans come from the sampler "
                         f"{' or '.join(samplers)}, not from {options['sampler']}")
    if options.get("guidance") and not config["drop_cond"]:
        raise ValueError(f"{path}: guidance needs a network that was trained with --drop-cond above 0")
    if eps_theta.learned and options["sampler"] == "ancestral":
        options = {"variance": "learned"} | options
    elif options.get("variance") == "learned" and not eps_theta.learned:
        raise ValueError(f"{path}: trained by --objective {config['objective']}, which learns no variance")
    return DiffusionPolicy(eps_theta, Schedule(arrays["beta"]), task, normaliser, **options), meta


class DiffusionPolicy:
    """Plans by drawing x_0 ~ p_theta( . | features of the observations).

    obs_horizon: observations seen; pred_horizon: actions planned (H); action_horizon: actions carried out before the
    next plan. sampler: a name in SAMPLERS, to which `options` are handed on (ancestral: variance; ddim: steps, eta).
    start_noise scales x_T: below 1 the plans are less diverse. clip: bound on the x_0 that the chain may aim at.
    guidance: by how much more than in training the observation counts (guidance.classifier_free).
    """

    def __init__(self, eps_theta, schedule, task, normaliser, obs_horizon=1, pred_horizon=16, action_horizon=2,
                 sampler="ancestral", clip=4.0, start_noise=1.0, guidance=0.0, **options):
        if not 1 <= action_horizon <= pred_horizon:
            raise ValueError(f"action_horizon {action_horizon}: a plan has {pred_horizon} actions to choose from")
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler '{sampler}': choose from {', '.join(SAMPLERS)}")
        takes = [*inspect.signature(SAMPLERS[sampler]).parameters][5:]  # after the five that all samplers take
        for name in options:
            if name not in takes:
                raise ValueError(f"the sampler {sampler} takes no {name}, but {' and '.join(takes)}")
        self.eps_theta, self.schedule, self.task, self.normaliser = eps_theta, schedule, task, normaliser
        self.obs_horizon, self.pred_horizon, self.action_horizon = obs_horizon, pred_horizon, action_horizon
        self.sampler, self.clip, self.options = SAMPLERS[sampler], clip, options
        self.start_noise, self.guidance = start_noise, guidance

    def plan(self, obs, rng):
        """obs: (B, obs_horizon, S); rng: a Generator, or anything with its standard_normal -> actions (B, H, D)."""
        for x in self._chain(obs, rng):
            pass  # the last one is x_0
        return self.normaliser.actions(x, self.task.frame(obs))

    def denoise(self, obs, rng):
        """The same plans while they come out of the noise: yields actions (B, H, D) at each step of the chain, to watch."""
        for x in self._chain(obs, rng):
            yield self.normaliser.actions(x, self.task.frame(obs))

    def _chain(self, obs, rng):
        """x_T, .., x_0 (B, H, D), in the network's units, as the sampler yields them."""
        if obs.shape[1:] != (self.obs_horizon, len(self.task.state_range)):
            raise ValueError(f"this policy sees observations of shape (B, {self.obs_horizon}, {len(self.task.state_range)}), "
                             f"not {obs.shape}")
        cond = self.normaliser.cond(self.task.features(obs))
        shape = (len(obs), self.pred_horizon, len(self.task.action_range))
        x_T = np.float32(self.start_noise) * prior(shape, rng)
        eps_theta = classifier_free(self.eps_theta, self.guidance) if self.guidance else self.eps_theta
        return self.sampler(self.schedule, eps_theta, x_T, cond, rng, clip=self.clip, **self.options)

    def bound(self, obs, actions, rng):
        """The terms (T+1,) of the variational bound (eq. 10) on demonstrated plans, actions (B, H, D) after obs.

        Nats for each number of a plan, in the network's units; `log_scale` more if actions are in the task's.
        """
        x0 = self.normaliser.chunk(actions, self.task.frame(obs))
        return variational_bound(self.schedule, self.eps_theta, x0, self.normaliser.cond(self.task.features(obs)), rng,
                                 "learned" if self.eps_theta.learned else "beta")

    def log_likelihood(self, obs, actions, steps=None):
        """log p(plan) (B,) in nats, exactly (samplers.log_likelihood), of demonstrated plans, actions (B, H, D) after obs."""
        x0 = self.normaliser.chunk(actions, self.task.frame(obs))
        cond = self.normaliser.cond(self.task.features(obs))
        return log_likelihood(self.schedule, self.eps_theta, x0, cond, steps)

    @property
    def log_scale(self):
        """The mean log of what a plan's numbers were divided by: what a density in nats gains in the task's units."""
        return float(np.log(self.normaliser.scale).mean())
