"""Score a trained policy in PushT, with confidence intervals.

    python eval.py                                                      the policy that comes with minidiff
    python eval.py runs/pusht-mlp-0                                     100 episodes by ancestral sampling
    python eval.py runs/pusht-mlp-0 --sampler ddim --steps 4            the same by DDIM in 4 steps
    python eval.py runs/pusht-mlp-0 --episodes 500 --seed 300000 --json scores.json
    python eval.py runs/pusht-mlp-0 --film film.png                     a picture of the first episodes
    python eval.py runs/pusht-mlp-0 --candidates 16                     the best of 16 plans, tried in the simulator
    python eval.py runs/pusht-mlp-0 --kick-block 50 45                  the block is kicked 50 px and 45 degrees
    python eval.py --compare a.json b.json                              two of --json, episode by episode
    python eval.py runs/pusht-mlp-0 --bound FILE                        how likely it finds other demonstrations
    python eval.py runs/pusht-mlp-0 --watch                             a window: see it think, take the T away from it
    python eval.py --policy mouse --record FILE.npz                     a window: demonstrations of your own, by the mouse

Score is the mean over episodes of the highest min(coverage / 0.95, 1) that was reached; success is coverage above 0.95
at some step. Seeds below 10,000 are for tuning (the demonstrations that come with minidiff start from others); those
from 100,000 on are for the result that you report.
"""
import minidiff  # first: it decides how many threads NumPy's BLAS takes
import argparse
import concurrent.futures
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from minidiff import checkpoint, demos, policy
from minidiff.progress import Progress
from minidiff.pusht import SHIPPED_POLICY, rollout
from minidiff.pusht.view import drawing as draw, record, watch, windows as live
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT

SAMPLER_OPTIONS = ("steps", "eta", "variance", "repeats", "size", "spread")  # handed on to the sampler


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a run's folder, or a checkpoint (default: the policy that comes with "
                                               "minidiff, made by: python train.py --seed 0)")
    plan, wrong, other = map(parser.add_argument_group, ("how a plan is drawn and chosen", "what goes wrong",
                                                         "instead of scores"))
    parser.add_argument("--episodes", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--seed", type=int, help="seed of the first episode; the next ones follow (default: 5000; "
                                                 "--record: one that the file does not have)")
    plan.add_argument("--sampler", choices=tuple(policy.SAMPLERS),
                      help="how a plan is drawn: ancestral sampling, ddim, sde (reverse SDE), flow (its ODE), langevin, pc "
                           "(predictor-corrector); of the baselines regression, mixture, or shooting (straight lines at "
                           "random) (default: ancestral; for a baseline its own)")
    plan.add_argument("--steps", type=int, help="ddim, flow, sde, langevin: how many of the T timesteps to visit "
                                                "(default: 16, 8, T, T)")
    plan.add_argument("--eta", type=float, help="ddim: 0 deterministic, 1 as noisy as ancestral (default: 0)")
    plan.add_argument("--variance", choices=("beta-tilde", "beta", "learned"),
                      help="ancestral: Sigma_theta (default: learned where it was, else beta-tilde)")
    plan.add_argument("--repeats", type=int, help="langevin, pc: Langevin steps at each noise level (default: 2, 1)")
    plan.add_argument("--size", type=float, help="langevin, pc: size of a Langevin step (default: 0.5, 0.1)")
    plan.add_argument("--guidance", type=float, help="classifier-free: by how much more than in training the observation "
                                                     "counts, for a policy trained with --drop-cond (default: 0)")
    plan.add_argument("--start-noise", type=float, help="standard deviation of x_T; below 1 plans vary less (default: 1)")
    plan.add_argument("--spread", type=float, help="regression, mixture: noise added to a plan, 1 as large as plans vary "
                                                   "(default: 0)")
    plan.add_argument("--candidates", type=int, default=1, help="plans drawn for each decision; each is tried in a copy "
                      "of the simulator, which a policy alone does not have, and the best is kept (default: 1)")
    plan.add_argument("--budget-ms", type=float, help="in place of --candidates: as many as can be tried in this time")
    wrong.add_argument("--kick-block", type=float, nargs=2, metavar=("PX", "DEGREES"), default=(0.0, 0.0),
                       help="in mid-episode the block jumps so far and turns; 300 steps more from there")
    wrong.add_argument("--kick-agent", type=float, default=0.0, metavar="PX", help="in mid-episode the agent jumps")
    wrong.add_argument("--obs-noise", type=float, default=0.0, metavar="PX", help="noise on what the policy sees")
    wrong.add_argument("--delay", type=int, default=0, metavar="STEPS", help="from choosing an action to carrying it out")
    plan.add_argument("--action-horizon", type=int, help="actions carried out of each plan (default: 2)")
    plan.add_argument("--noise-seed", type=int, default=0, help="seed of the sampler's noise (default: 0)")
    parser.add_argument("--max-steps", type=int, default=300, help="length of an episode (default: 300)")
    parser.add_argument("--seeding", choices=("legacy", "modern"), default="legacy",
                        help="how a seed becomes a start; published seeds are legacy (default: legacy)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one for each core)")
    parser.add_argument("--json", metavar="FILE", help="write every episode and the summary to FILE")
    parser.add_argument("--film", metavar="FILE", help="draw the first four episodes to FILE: .png, a strip; .webp or .gif, "
                                                 "moving, with the plans (needs pip install 'minidiff[film]')")
    other.add_argument("--bound", metavar="DEMOS", help="no episodes: the variational bound of -log p(plan), eq. 10, on "
                                                        "plans of a file of demonstrations that it was not trained on")
    other.add_argument("--watch", action="store_true", help="no scores: a window in which the policy plays, the best of "
                       "--candidates plans (here 16 by default); the mouse drags and turns the T; h tells the keys")
    other.add_argument("--policy", choices=("mouse",), help="mouse: no trained policy, but you, in a window; with --record")
    other.add_argument("--record", metavar="FILE", help="--policy mouse: add the episodes to FILE (.npz), as "
                                                        "demonstrations for train.py --demos")
    other.add_argument("--compare", nargs=2, metavar=("A", "B"), help="no episodes: two files of --json with the same "
                       "seeds; the differences B - A with their intervals")
    args = parser.parse_args()
    if bool(args.policy) != bool(args.record) or not (args.record or ".npz").endswith(".npz"):
        parser.error("--policy mouse and --record FILE.npz go together")
    others = [name for name in ("json", "film", "bound", "compare", "budget_ms", "kick_block", "kick_agent", "obs_noise",
                                "delay") if np.any(getattr(args, name))] + ["watch"] * bool(args.record and args.watch)
    if (args.watch or args.record) and others:
        parser.error(f"a window shows; it takes no --{others[0].replace('_', '-')}")
    if args.seed is None and not args.record:
        args.seed = 5000
    for name in ("episodes", "workers", "max_steps", "candidates"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    for name, most in {"start_noise": float("inf"), "eta": 1, "size": 1, "repeats": 1000, "spread": 10, "budget_ms": 1e6,
                       "kick_block": 512, "kick_agent": 512, "obs_noise": 512, "delay": 100}.items():
        if getattr(args, name) is not None and not all(0 <= value <= most for value in np.atleast_1d(getattr(args, name))):
            parser.error(f"--{name.replace('_', '-')} must be from 0 to {most}")
    return args


def main():
    args = parse_arguments()
    if args.record:
        return play(lambda: record.Record(args.record, args.seed, args.seeding))
    if args.compare:
        return compare(*args.compare)
    path = Path(args.run or SHIPPED_POLICY)
    path = path / "checkpoint.npz" if path.is_dir() else path
    given = ("sampler", "action_horizon", "start_noise", "guidance", *SAMPLER_OPTIONS)
    options = {name: getattr(args, name) for name in given if getattr(args, name) is not None}
    trained, meta = policy.load(path, PUSHT, **options)
    print("the policy that comes with minidiff" if args.run is None else path, end=": ")
    print(f"{meta['config']['net']}, {meta['update']:,} of {meta['config']['steps']:,} steps, "
          f"{meta['cpu_seconds']:.0f} CPU seconds, seed {meta['config']['seed']}")
    if args.bound:
        if meta["config"]["objective"] in policy.BASELINES:
            raise ValueError(f"--bound: {path} was trained by --objective {meta['config']['objective']}; it has no p(plan)")
        return bound(trained, args.bound)
    if args.watch:
        policies = {watch.label(trained): trained} | others(path, trained, options)
        candidates = args.candidates if args.candidates > 1 else watch.CANDIDATES
        return play(lambda: watch.Watch(policies, args.seed, args.noise_seed, args.max_steps, args.seeding, candidates))
    seeds = range(args.seed, args.seed + args.episodes)
    world = {"max_steps": args.max_steps, "seeding": args.seeding, "candidates": args.candidates,
             "budget_ms": args.budget_ms}
    disturb = {name: getattr(args, name) for name in ("kick_block", "kick_agent", "obs_noise", "delay")}
    if any(map(np.any, disturb.values())):
        world["disturb"] = disturb
    started = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(args.workers) as executor:
        episodes = rollout.evaluate(trained, seeds, executor, args.noise_seed, Progress("episodes", len(seeds)).show,
                                    **world)
    result = rollout.summary(episodes) | {"seconds": time.monotonic() - started, "plan_ms": plan_ms(trained)}
    how = [trained.sampler.__name__.removesuffix("_sampling")]
    how += [f"{name.replace('_', ' ')} {options[name]}" for name in given[2:] if name in options]
    how += [f"{name.replace('_', ' ')} {value}" for name, value in world.get("disturb", {}).items() if np.any(value)]
    if result["decision_ms"] is not None:
        how += [f"the best of {result['candidates']:.0f} plans tried in the simulator, "
                f"{result['decision_ms']:.0f} ms a decision"]
    print(f"{', '.join(how)}, executing {trained.action_horizon} of {trained.pred_horizon} actions: "
          f"{result['plan_ms']:.0f} ms a plan, {result['seconds']:.0f} s in all\n{rollout.sentence(result)}")
    if args.json:
        checkpoint.write_json(args.json, {"checkpoint": str(path), "options": vars(args), "config": meta["config"],
                                          "summary": result, "episodes": [e._asdict() for e in episodes]})
        print(f"every episode: {args.json}")
    if args.film:
        try:
            draw_film = rollout.film if args.film.endswith(".png") else rollout.animation
            draw_film(args.film, trained, seeds[:4], args.noise_seed, max_steps=args.max_steps, seeding=args.seeding)
        except RuntimeError as error:  # no pygame, or no Pillow
            sys.exit(f"no picture {args.film}: {error}")
        print(f"picture: {args.film}")


def play(make):
    """A window for the game that make() gives, until it is closed."""
    try:
        window = draw.Window()
    except RuntimeError as error:  # no display, or no pygame
        sys.exit(f"eval.py: {error}")
    game = make()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell's background jobs ignore it
    live.play(game, window)
    print(game.summary())


def others(path, trained, options):
    """The same policy by every other sampler that its training allows: label -> DiffusionPolicy."""
    found = {}
    for name in policy.SAMPLERS:
        same = {key: options[key] for key in ("action_horizon", "start_noise", "guidance") if key in options}
        same |= {"steps": min(4, trained.schedule.T)} if name == "ddim" else {}
        with contextlib.suppress(ValueError):
            other, _ = policy.load(path, PUSHT, sampler=name, **same)
            found[watch.label(other)] = other
    return found


def compare(a, b):
    """Print the paired difference of two files of --json."""
    sheets = []
    for path in (a, b):
        try:
            sheets.append([rollout.Episode(**episode) for episode in json.loads(Path(path).read_text())["episodes"]])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f"{path}: not a file that eval.py --json wrote") from None
    d = rollout.compare(*sheets)
    print(f"{b} against {a}, {d['n']} episodes in both:\n"
          f"score {d['score']:+.4f} [{d['score_ci95'][0]:+.4f}, {d['score_ci95'][1]:+.4f}]   success {100 * d['success']:+.1f} "
          f"[{100 * d['success_ci95'][0]:+.1f}, {100 * d['success_ci95'][1]:+.1f}] points   "
          f"(only the first succeeds: {d['only_a']}, only the second: {d['only_b']})")


def bound(trained, path, plans=2000, exactly=32):
    """Print the variational bound on some plans of a file of demonstrations, where along the chain it comes from, and on
    a few of them the exact likelihood of the probability-flow ODE."""
    rng = np.random.default_rng(0)
    obs, actions = demos.windows(demos.load(path, PUSHT), trained.obs_horizon, trained.pred_horizon)
    pick = rng.permutation(len(obs))[:plans]
    terms = trained.bound(obs[pick], actions[pick], rng)
    few = pick[:exactly]
    exact = -trained.log_likelihood(obs[few], actions[few]).mean() / actions[0].size
    bound = trained.bound(obs[few], actions[few], rng).sum()
    print(f"-log p(plan) <= {terms.sum():.3f} nats for each number of a plan, in standard deviations; "
          f"{terms.sum() + trained.log_scale:.3f} in pixels  ({len(pick)} plans of {path})\n"
          f"    L_0 {terms[0]:.3f}, L_1 .. L_T-1 {terms[1:-1].sum():.3f}, L_T {terms[-1]:.5f}\n"
          f"exactly, along the probability-flow ODE: {exact:.3f} on {len(few)} of them, where the bound is {bound:.3f}")


def plan_ms(trained):
    """The time of one plan for one observation: the median of five, in milliseconds."""
    obs = np.repeat(PushTEnv().reset(seed=0)[0][None, None], trained.obs_horizon, 1)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        trained.plan(obs, np.random.default_rng(0))
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"eval.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; nothing was written")
