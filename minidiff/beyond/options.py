"""Options of a command line: how plans are sampled, and the policy that samples them so."""
import argparse
import os
from pathlib import Path

from . import OBJECTIVES, SAMPLERS, load

FLAGS = {"sampler_steps": "steps", "ddim_eta": "eta", "variance": "variance",
         "langevin_repeats": "repeats", "langevin_size": "size",
         "spread": "spread"}  # option: the sampler's keyword

SEEDS = 2**32  # PushTEnv takes seeds from 0 to SEEDS - 1


def add_arguments(parser):
    """Add the positional RUN, and a group with the options of sampling."""
    parser.add_argument("run", nargs="?", metavar="RUN", type=named,
                        help="a run's folder, or a policy's file (default: the policy that comes "
                             "with minidiff)")
    group = parser.add_argument_group("how a plan is sampled")
    add = group.add_argument
    add("--sampler", choices=tuple(SAMPLERS),
        help="ancestral; ddim; sde: the reverse SDE; flow: the probability-flow ODE; langevin; "
             "pc: predictor-corrector; baselines: regression, mip, mixture; shooting: random "
             "straight lines (default: ancestral; for a baseline its own)")
    add("--sampler-steps", type=bounded(int, 1, 100_000), metavar="N",
        help="ddim, flow, sde, langevin: how many of the T timesteps are visited "
             "(default: 16, 8, T, T; at most T)")
    add("--ddim-eta", type=bounded(float, 0, 1), metavar="ETA",
        help="ddim: 0 adds no noise, 1 as much as ancestral (default: 0)")
    add("--variance", choices=("beta-tilde", "beta", "learned"),
        help="ancestral: Sigma_theta (default: learned if it was, else beta-tilde)")
    add("--langevin-repeats", type=bounded(int, 1, 1000), metavar="N",
        help="langevin, pc: Langevin steps at each noise level (default: 2, 1)")
    add("--langevin-size", type=bounded(float, 1e-6, 1), metavar="SIZE",
        help="langevin, pc: size of a Langevin step (default: 0.5, 0.1)")
    add("--spread", type=bounded(float, 0, 10), metavar="S",
        help="noise added by regression (1: as large as demonstrated actions), by mixture (1: that "
             "of its component), by mip before its second step (1: as in training) (default: 0)")
    add("--guidance", type=bounded(float, -100, 100), default=0.0, metavar="W",
        help="classifier-free guidance: above 0 the observation counts more than in training; "
             "needs --drop-cond in training (default: 0)")
    add("--temperature", type=bounded(float, 0, 100), metavar="S",
        help="factor on all noise that the sampler draws, x_T included; below 1 plans vary less "
             "(default: 0.7)")
    add("--action-horizon", type=bounded(int, 1, 100_000), metavar="N",
        help="actions carried out of each plan (default: the task's; PushT: 4)")
    add("--noise-seed", type=bounded(int, 0, 2**63), default=0, metavar="N",
        help="seed of the sampler's noise (default: 0)")


def named(text):
    """A type for argparse: the name of a file or a folder. An empty name is refused: it is what an
    unset variable of the shell leaves."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty: is a variable not set?")
    return text


def distinct(paths):
    """ValueError where two of these paths lead to one file or folder, even by a link or with
    another spelling."""
    seen = {}
    for path in filter(os.path.exists, paths):
        status = os.stat(path)
        place = status.st_dev, status.st_ino
        if place in seen:
            raise ValueError(f"{path} is the same as {seen[place]}: give it only once")
        seen[place] = path


def seed(text):
    """A type for argparse: a seed that PushTEnv takes, 0 to SEEDS - 1."""
    return bounded(int, 0, SEEDS - 1)(text)


def seeds(args):
    """The seeds of args.episodes episodes, from args.seed on. ValueError beyond SEEDS - 1."""
    if args.seed + args.episodes > SEEDS:
        raise ValueError(f"--seed {args.seed} --episodes {args.episodes}: "
                         f"the last seed is {SEEDS - 1}")
    return range(args.seed, args.seed + args.episodes)


def bounded(kind, least, most):
    """A type for argparse: a number of that kind, int or float, from least to most."""
    def parse(text):
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}, not {text}")
        return value
    parse.__name__ = {int: "whole number", float: "number"}[kind]  # argparse names it in its errors
    return parse


def load_policy(args, task, default):
    """-> policy, meta, and how it samples in words: "ddim, sampler steps 4".

    default: the path of the policy where args.run is None. ValueError, FileNotFoundError as `load`.
    """
    given = {flag: getattr(args, flag) for flag in FLAGS if getattr(args, flag) is not None}
    options = {FLAGS[flag]: value for flag, value in given.items()}
    path = Path(default if args.run is None else args.run)
    policy, meta = load(path, task, args.sampler, args.guidance, args.action_horizon,
                        args.temperature, **options)
    words = [sampler_name(args, meta)]
    words += [f"{flag.replace('_', ' ')} {value}" for flag, value in given.items()]
    if args.guidance:
        words.append(f"guidance {args.guidance:g}")
    if args.temperature is not None:
        words.append(f"temperature {args.temperature:g}")
    return policy, meta, ", ".join(words)


def sampler_name(args, meta):
    """The sampler that args ask for, by default that of the policy's objective."""
    return args.sampler or OBJECTIVES[meta["config"]["objective"]].samplers[0]
