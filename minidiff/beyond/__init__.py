"""Beyond the paper: other samplers, guidance, real-time chunking, the baselines; their names.

    SAMPLERS      how a plan is sampled, by name
    OBJECTIVES    what a network is trained for, by name, and which samplers fit it
    bind          a sampler by its name, with its own options set
    load          a policy with a sampler by its name
"""
import functools
from typing import Callable, NamedTuple

from .. import policy as policies
from ..diffusion import LOSSES, ancestral_sampling
from . import baselines, samplers
from .guidance import ClassifierFree


class Sampler(NamedTuple):
    """function: with the arguments of ancestral_sampling. options: its own keywords."""
    function: Callable
    options: tuple


class Objective(NamedTuple):
    """loss: with the arguments of l_simple. outputs: of the network for each number of a chunk.
    samplers: those that fit; the first is the default. ignores: fields of Config without a use."""
    loss: Callable
    outputs: int
    samplers: tuple
    ignores: tuple = ()


SAMPLERS = {
    "ancestral": Sampler(ancestral_sampling, ("variance",)),
    "ddim": Sampler(samplers.ddim_sampling, ("steps", "eta")),
    "sde": Sampler(samplers.reverse_sde, ("steps",)),
    "flow": Sampler(samplers.probability_flow, ("steps",)),
    "langevin": Sampler(samplers.annealed_langevin, ("steps", "repeats", "size")),
    "pc": Sampler(samplers.predictor_corrector, ("repeats", "size")),
    "regression": Sampler(baselines.regression, ("spread",)),
    "mip": Sampler(baselines.mip, ("spread",)),
    "mixture": Sampler(baselines.mixture, ("spread",)),
    "shooting": Sampler(baselines.shooting, ()),
}
BASELINES = ("regression", "mip", "mixture", "shooting")  # they denoise nothing
DENOISING = ("ancestral", "ddim", "sde", "flow", "langevin", "pc", "shooting")  # fit a denoiser
CHAIN = ("precondition", "schedule", "T", "weight", "drop_cond")  # of use to a denoiser alone
OBJECTIVES = {
    "simple": Objective(LOSSES["simple"], 1, DENOISING),
    "hybrid": Objective(LOSSES["hybrid"], 2, DENOISING),
    "bound": Objective(LOSSES["bound"], 2, DENOISING, ("weight",)),
    "mse": Objective(baselines.mse_loss, 1, ("regression", "shooting"), CHAIN),
    "mip": Objective(baselines.mip_loss, 1, ("mip", "shooting"), CHAIN),
    "mixture": Objective(baselines.mixture_loss, 3 * baselines.COMPONENTS,
                         ("mixture", "shooting"), CHAIN),
}


def bind(name, **options):
    """The sampler of that name, with some of its own options set.

    ValueError for another name, and for an option that this sampler does not take.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler '{name}': choose from {', '.join(SAMPLERS)}")
    takes = SAMPLERS[name].options
    for option in options:
        if option not in takes:
            raise ValueError(f"the sampler {name} takes no {option}, "
                             f"but {' and '.join(takes) or 'no options'}")
    function = SAMPLERS[name].function
    return functools.partial(function, **options) if options else function


def config_of(path, meta):
    """The Config in the meta of a file. ValueError, unless its objective is one of OBJECTIVES."""
    try:
        config = policies.config_of(meta)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if config.objective not in OBJECTIVES:
        raise ValueError(f"{path}: trained for '{config.objective}', which is no objective here")
    return config


def load(path, task, sampler=None, guidance=0.0, action_horizon=None, temperature=None,
         **options):
    """policy.load, with the sampler by its name (by default that of the objective) -> policy, meta.

    guidance: the scale of guidance.ClassifierFree; 0 for none.
    action_horizon, temperature: of DiffusionPolicy; None for the default, which is temperature 1
    with a baseline. options: the sampler's own.
    ValueError where the network was not trained for what is asked; FileNotFoundError.
    """
    _, meta = policies.read(path)
    config = config_of(path, meta)
    fitting = OBJECTIVES[config.objective].samplers
    name = sampler or fitting[0]
    function = bind(name, **options)
    trained = f"{path}: trained by --objective {config.objective}"
    if name not in fitting:
        raise ValueError(f"{trained}, so its plans come from the sampler {' or '.join(fitting)}, "
                         f"not from {name}")
    if options.get("variance") == "learned" and config.outputs != 2:
        raise ValueError(f"{trained}, which learns no variance")
    if "steps" in options and not 1 <= options["steps"] <= config.T:
        raise ValueError(f"{path}: its chain takes 1 to T = {config.T} steps, "
                         f"not {options['steps']}")
    if name in BASELINES:
        for option, given in (("guidance", guidance), ("temperature", temperature is not None)):
            if given:
                raise ValueError(f"the sampler {name} takes no {option}: it denoises nothing")
        temperature = 1.0
    if guidance and not config.drop_cond:
        raise ValueError(f"{path}: guidance needs a network that was trained with --drop-cond "
                         "above 0")
    changes = {"temperature": temperature, "action_horizon": action_horizon}
    changes = {key: value for key, value in changes.items() if value is not None}
    policy, meta = policies.load(path, task, function, **changes)
    if guidance:
        policy.eps_theta = ClassifierFree(policy.eps_theta, guidance)
    return policy, meta
