"""Score a trained policy in PushT or in another task, with 95 % confidence intervals.

    python eval.py                                    the policy that comes with minidiff
    python eval.py runs/pusht-mlp-0                   a run of yours: 100 episodes
    python eval.py runs/pusht-mlp-0 --sampler ddim --sampler-steps 4
    python eval.py runs/pusht-mlp-0 --episodes 500 --seed 300000 --json scores.json
    python eval.py runs/pusht-mlp-0 --candidates 16   the best of 16 plans, tried in the simulator
    python eval.py runs/pusht-mlp-0 --kick-block 50 45    the block is kicked: 50 px, 45 degrees
    python eval.py --action-latency 8 --estimate 0    actions come 8 steps late; a model predicts
    python eval.py runs/wall-mlp-0 --task minidiff/wall.py        the task that it was trained for

In PushT, coverage is the share of the goal that the T covers. success is the share of episodes with
coverage above 0.95 at some step. score is the mean over episodes of the highest min(coverage/0.95,
1). Use seeds 3000 to 9999 for tuning (the demonstrations that come with minidiff start from seeds
below 3000), and seeds from 100,000 on for the result that you report.

Ctrl-C ends it. It then prints the results of the finished episodes, marked as incomplete.

To watch a policy, film it, or compare two files of --json: python -m minidiff.pusht
"""
import signal

if __name__ == "__main__":  # until there is work to save, Ctrl-C ends the program at once
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from minidiff import checkpoint, stopping  # minidiff first: it decides BLAS's threads
from minidiff.beyond import BASELINES, options, tasks
from minidiff.beyond.realtime import QUEUES, check_length
from minidiff.policy import find
from minidiff.progress import Progress, say
from minidiff.pusht import SHIPPED_POLICY
from minidiff.pusht.estimate import EstimatingEnv
from minidiff.pusht.features import PUSHT, make_env
from minidiff.pusht.study import compare
from minidiff.pusht.study.candidates import BestOf
from minidiff.pusht.study.disturbances import DisturbedEnv
from minidiff.scoring import scores
from minidiff.scoring.cluster import executor
from minidiff.scoring.rollout import CHUNK, Unfinished, blaming_the_world, evaluate, numbers

import functools
import math
import os
import sys
import time
from pathlib import Path

import numpy as np

DISTURBANCES = ("kick_block", "kick_agent", "obs_noise", "action_latency")
PUSHT_ONLY = (*DISTURBANCES, "seeding", "candidates", "budget_ms", "queue", "estimate")


def parse_arguments():
    parser = stopping.Parser(prog="python eval.py", usage="%(prog)s [RUN] [OPTIONS]",
                             description=__doc__)
    count = options.bounded(int, 1, 1_000_000)
    pixels = options.bounded(float, 0, 512)

    add = parser.add_argument_group("what to run").add_argument
    add("--episodes", type=count, default=100, metavar="N", help="how many (default: 100)")
    add("--seed", type=options.seed, default=5000,
        help="start of the first episode; the next ones follow (default: 5000)")
    add("--max-steps", type=count, metavar="N",
        help="an episode ends after so many steps, or with success (default: 300 in PushT, else "
             "the task decides)")
    add("--task", type=options.named, metavar="NAME",
        help="the task that RUN was trained for, named as for train.py (default: PushT)")
    add("--seeding", choices=("legacy", "modern"), default="legacy",
        help="how a seed becomes a start; published seeds are legacy (default: legacy)")
    add("--workers", type=options.bounded(int, 1, 1000), default=os.cpu_count(), metavar="N",
        help="processes; the scores do not depend on it (default: one for each core)")
    add("--scheduler", type=options.named, metavar="ADDRESS",
        help="instead of --workers: those of a dask.distributed cluster, at tcp://HOST:8786")

    options.add_arguments(parser)

    group = parser.add_argument_group("how a plan is chosen")
    add = group.add_mutually_exclusive_group().add_argument
    add("--candidates", type=options.bounded(int, 1, 10_000), default=1, metavar="K",
        help="plans sampled for each decision; each is tried in a copy of the simulator, and the "
             "best is carried out; a real robot has no such copy (default: 1)")
    add("--budget-ms", type=options.bounded(float, 0, 1_000_000), metavar="MS",
        help="instead of --candidates: as many plans as can be tried in this time")

    add = parser.add_argument_group("what goes wrong in the world").add_argument
    add("--kick-block", type=pixels, nargs=2, metavar=("PX", "DEGREES"), default=(0.0, 0.0),
        help="once, in mid-episode, the block jumps by PX pixels and turns by DEGREES; from there "
             "the policy has --max-steps more")
    add("--kick-agent", type=pixels, default=0.0, metavar="PX",
        help="at that moment the agent jumps by PX pixels")
    add("--obs-noise", type=pixels, default=0.0, metavar="PX",
        help="standard deviation of the noise on observed positions (default: 0)")
    add("--action-latency", type=options.bounded(int, 0, 100), default=0, metavar="STEPS",
        help="steps from choosing an action to carrying it out (default: 0)")

    group = parser.add_argument_group("what helps against noise and latency")
    add = group.add_mutually_exclusive_group().add_argument
    add("--queue", choices=QUEUES, default="ignore",
        help="what a plan does about actions that are chosen, but not yet carried out. ignore: "
             "nothing; skip: it leaves out as many of its own first actions; hold: it starts with "
             "them (real-time chunking) (default: ignore)")
    add("--estimate", type=pixels, metavar="PX",
        help="show the policy the state in which its action will be carried out, as estimated with "
             "a model of the world; PX: standard deviation of the observation noise, 0 for none")

    add = parser.add_argument_group("output").add_argument
    add("--json", metavar="FILE", type=options.named,
        help="write every episode and the summary to FILE; an existing file is replaced only if "
             "eval.py wrote it")
    args = parser.parse_args()
    if args.task and not args.run:
        parser.error("--task: name the folder of the run that is to be scored, too")
    for name in PUSHT_ONLY if args.task else ():
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} is for PushT alone: leave it out with --task")
    return args


def main():
    args = parse_arguments()
    seeds = options.seeds(args)
    if args.json:
        checkpoint.check_writable(args.json)
        if Path(args.json).is_file() and Path(args.json).stat().st_size:
            compare.read(args.json)  # raises if eval.py did not write it, so it is kept
    task = tasks.load(args.task) if args.task else PUSHT
    if not task.make_env:
        raise ValueError(f"the task '{task.name}' has no make_env, so nothing can be scored in it")
    if args.task and args.max_steps:
        task = task._replace(max_steps=args.max_steps)
    policy, meta, sampling = options.load_policy(args, task, SHIPPED_POLICY)
    config = meta["config"]
    path = find(args.run or SHIPPED_POLICY)
    name = path if args.run else "the policy that comes with minidiff"
    say(f"{name}: {config['net']}, {meta['update']:,} of {config['steps']:,} steps, "
        f"{meta['cpu_seconds']:.0f} CPU seconds, seed {config['seed']}")

    world = {"max_steps": args.max_steps or 300, "seeding": args.seeding}
    worlds = task.make_env if args.task else functools.partial(make_env, **world)
    disturbances = {name: getattr(args, name) for name in DISTURBANCES}
    if any(np.any(value) for value in disturbances.values()):
        worlds = functools.partial(DisturbedEnv, **disturbances, **world)
        worlds()  # impossible values raise now
    decide = None
    if args.candidates > 1 or args.budget_ms is not None:
        decide = BestOf(policy, args.candidates, args.budget_ms)
        if args.queue != "ignore":
            raise ValueError("--queue: many plans are tried as if no action waited; leave it out")
    if args.estimate is not None:
        worlds = functools.partial(EstimatingEnv, worlds, args.estimate)
    elif args.queue != "ignore":
        if args.queue == "hold" and options.sampler_name(args, meta) in BASELINES:
            raise ValueError("--queue hold: this sampler denoises nothing, so it cannot hold "
                             "actions; try --queue skip or --estimate")
        check_length(policy, args.action_latency)

    chunks = math.ceil(len(seeds) / CHUNK)
    milliseconds = plan_ms(policy)
    progress = Progress("episodes", len(seeds))
    started = time.monotonic()
    incomplete = None
    try:
        with executor(args.scheduler, min(args.workers, chunks), task) as pool:
            episodes = evaluate(policy, seeds, pool, args.noise_seed, progress.show,
                                make_env=worlds, decide=decide, queue=args.queue)
    except Unfinished as error:
        episodes = error.episodes
        incomplete = str(error)
        if not episodes:
            raise
    seconds = time.monotonic() - started
    out_of_range = None
    try:
        summary = scores.summary(episodes, task.score_range)
    except ValueError as error:  # the episodes are kept all the same
        summary, out_of_range = scores.summary(episodes, None), error
    summary |= {"seconds": seconds, "plan_ms": milliseconds}
    if args.json:  # before printing, which may fail
        checkpoint.write_json(args.json, {
            "checkpoint": str(path), "task": task.name, "options": vars(args), "config": config,
            "incomplete": incomplete, "summary": summary,
            "episodes": [episode._asdict() for episode in episodes]})
    if out_of_range:
        raise out_of_range

    how = [sampling]
    for name, value in disturbances.items():
        if np.any(value):
            how.append(f"{name.replace('_', ' ')} {value}")
    if args.estimate is not None:
        how.append(f"the state estimated for noise of {args.estimate:g} px")
    elif args.action_latency and not decide:
        how.append(f"queue {args.queue}")
    if decide:
        how.append(f"the best of {summary['candidates']:.0f} plans tried in the simulator, "
                   f"{summary['decision_ms']:.0f} ms a decision")
    say(f"{', '.join(how)}, executing {policy.action_horizon} of {policy.pred_horizon} actions: "
        f"{summary['plan_ms']:.0f} ms a plan, {seconds:.0f} s in all")
    say(scores.sentence(summary))
    if args.json:
        say(f"every episode: {args.json}")
    if incomplete:
        raise RuntimeError(f"incomplete, {incomplete}. Success ends an episode early, so there "
                           "are too many successes among them")


def plan_ms(policy):
    """The time of one plan for one observation: the median of five, in milliseconds."""
    env = policy.task.make_env()
    with blaming_the_world(policy.task, 0, 0):
        state = numbers(env.reset(seed=0)[0])
    obs = np.repeat(state[None, None], policy.obs_horizon, 1)  # (1, obs_horizon, S)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        policy.plan(obs, np.random.default_rng(0))
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("eval.py", main))
