"""Where several motions are equally good, does a policy plan all of them?

    python -m minidiff.pusht forks runs/a runs/b
    python -m minidiff.pusht forks runs/a --off 5

The goal is its own mirror image, and so are some states: block and agent on the mirror's axis, the
block upside down. There every good motion to the left has its equal to the right, and no good one
leads straight on, through the block. With --off the agent stands so many px to the right of the
axis, where the way on the right is a little shorter. Diffusion samples at temperature 1 here. For
each policy, over many such states and many plans of 16 actions at each:

    left, right  the shares of plans that are more than 10 px off the axis on average, by side
    between      the share of the others
    both         of the states at which the demonstrator goes both ways, the share at which the
                 policy does: at least a tenth of the plans go to either side
    difference   between the policy's share to the right and the demonstrator's at a state, the mean
                 over the states
    distance     px, root mean square over the 16 actions: from a plan to the nearest of the motions
                 that the demonstrator makes there; the median over all plans

The first line printed is the share of the states at which the demonstrator goes both ways (forks).
The second is the demonstrator itself, with other random numbers.
"""
import dataclasses
import functools

import numpy as np

from ... import beyond, checkpoint, stopping
from ...beyond.options import bounded, distinct, named
from ...policy import find, history
from ...progress import Progress
from ..data import expert
from ..env import PushTEnv
from ..features import PUSHT
from ..geometry import GOAL_POSE, WORLD_SIZE

ALONG = np.array([1, -1]) / np.sqrt(2)  # the direction of the mirror's axis
ACROSS = np.array([1, 1]) / np.sqrt(2)  # to the right of someone who looks along it
STEPS = 16  # actions of a motion
SHOWN = 64  # motions of the demonstrator at each state


def symmetric_states(count, rng, off=0.0):
    """States (count, 5) that are their own mirror images. The block is upside down and up to 60 px
    from its goal; the agent stands beyond one end of it. off: px by which the agent is moved across
    the axis, so that the mirror image differs."""
    block = np.array(GOAL_POSE[:2]) + rng.uniform(-60, 60, (count, 1)) * ALONG
    side = rng.choice([-1, 1], (count, 1))
    gap = rng.uniform(90, 140, (count, 1))
    agent = block + (-45 + side * gap) * -ALONG  # 45: from the block's origin to its middle
    agent = agent + off * ACROSS
    return np.hstack([agent, block, np.full((count, 1), 5 * np.pi / 4)])


def motions(policy, state, count, rng):
    """What a policy does next from a state at rest, `count` times: actions (count, STEPS, 2).

    A policy whose plans are shorter than STEPS carries each out whole in a copy of the world,
    observes, and plans again.
    """
    world = PushTEnv(state_order="exact")
    obs = np.tile(state, (count, policy.obs_horizon, 1))
    actions = policy.plan(obs, rng)
    while actions.shape[1] < STEPS:
        stopping.safe_point()
        for k in range(count):
            start, _ = world.reset(options={"state": state})
            obs[k] = history([start, *world.simulate(actions[k])], policy.obs_horizon)
        actions = np.concatenate([actions, policy.plan(obs, rng)], 1)
    return actions[:, :STEPS]


def demonstrated(state, count, rng):
    """The demonstrator's motions from a state: (count, STEPS, 2). At a state that is its own mirror
    image it makes half of them, and the others are their mirror images; then an odd count gives one
    motion less."""
    scratch = PushTEnv(state_order="exact")
    is_symmetric = abs((state[:2] - state[2:4]) @ ACROSS) < 1e-6
    shown = []
    for _ in range(count // 2 if is_symmetric else count):
        stopping.safe_point()
        actions, _ = expert.plan(state, scratch, rng, samples=24, refine=2)
        missing = max(STEPS - len(actions), 0)
        shown.append(np.pad(actions[:STEPS], ((0, missing), (0, 0)), mode="edge"))
    if is_symmetric:
        shown += [WORLD_SIZE - motion[:, ::-1] for motion in shown]
    return np.array(shown)


def shares(plans, state):
    """The shares of motions (plans, STEPS, 2) that go left, between and right."""
    off = ((plans - state[2:4]) @ ACROSS).mean(1)  # (plans,) px from the axis, where the block is
    return (off < -10).mean(), (np.abs(off) <= 10).mean(), (off > 10).mean()


def measure(move, states, shown):
    """The figures explained above, by name, for move(state, rng=...) -> actions (plans, STEPS, 2).

    states: (S, 5). shown: what `demonstrated` returns for each of them. `both` is NaN where the
    demonstrator goes both ways at no state.
    """
    rng = np.random.default_rng([0, 1])  # not the numbers of any `shown`
    progress = Progress("states", len(states))
    rows, distances = [], []
    for state, references in zip(states, shown):
        stopping.safe_point()
        plans = move(state, rng=rng)
        rows.append(shares(plans, state))
        squares = ((plans[:, None] - references) ** 2).sum(-1)  # (plans, references, STEPS)
        distances.append(np.sqrt(squares.mean(-1).min(1)))
        progress.show(len(rows))
    own = np.array(rows)
    wanted = np.array([shares(references, state) for state, references in zip(states, shown)])
    is_fork = wanted[:, [0, 2]].min(1) >= 0.1
    both = own[is_fork][:, [0, 2]].min(1) >= 0.1
    left, between, right = own.mean(0)
    return {"left": left, "between": between, "right": right, "forks": is_fork.mean(),
            "both": both.mean() if len(both) else np.nan,
            "difference": np.abs(own - wanted)[:, 2].mean(), "distance": np.median(distances)}


def sentence(name, row):
    return (f"{name}: left {row['left']:.0%}, between {row['between']:.0%}, "
            f"right {row['right']:.0%}; both ways at {row['both']:.0%} of the forks; "
            f"share to the right off by {100 * row['difference']:.0f} points at a state; "
            f"{row['distance']:.0f} px from the nearest demonstrated motion")


def main(arguments):
    parser = stopping.Parser(prog="python -m minidiff.pusht forks", description=__doc__)
    parser.add_argument("runs", nargs="+", type=named, metavar="RUN",
                        help="runs' folders, or policies' files")
    parser.add_argument("--states", type=bounded(int, 1, 10_000), default=50,
                        help="how many (default: 50)")
    parser.add_argument("--plans", type=bounded(int, 2, 10_000), default=100,
                        help="at each (default: 100)")
    parser.add_argument("--off", type=bounded(float, 0, 40), default=0.0, metavar="PX",
                        help="from the agent to the axis (default: 0)")
    parser.add_argument("--json", type=named, metavar="FILE", help="write the figures there, too")
    args = parser.parse_args(arguments)
    distinct(map(find, args.runs))
    if args.json:
        checkpoint.check_writable(args.json)
    policies = [dataclasses.replace(beyond.load(run, PUSHT)[0], temperature=1.0)
                for run in args.runs]  # samples of p_theta
    states = symmetric_states(args.states, np.random.default_rng(0), args.off)
    shown = [demonstrated(state, SHOWN, np.random.default_rng(k)) for k, state in enumerate(states)]
    moves = {"the demonstrator again": demonstrated}
    moves |= {run: functools.partial(motions, policy) for run, policy in zip(args.runs, policies)}
    figures = {}
    for name, move in moves.items():
        figures[name] = measure(functools.partial(move, count=args.plans), states, shown)
        if len(figures) == 1:
            print(f"{figures[name]['forks']:.0%} of the states are forks: the demonstrator goes "
                  "both ways")
        print(sentence(name, figures[name]))
        if args.json:
            checkpoint.write_json(args.json, figures)
