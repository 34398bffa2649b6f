"""How many motions does a policy see where several are equally good?

    python -m minidiff.pusht.study.forks runs/a runs/b                  a table, and a picture with --picture FILE

The goal is its own mirror image, and so are some states: block and agent on the axis of the mirror, the block the wrong
way round. There every good motion to the left has its equal to the right, and no good one leads straight on, through
the block. For each policy, over many such states and plans of 16 actions for each:

    left, right   the shares of plans that leave the axis by more than 10 px on average, to either side
    between       the share of the others
    both          the share of states at which a tenth of the plans or more go either way
    distance      px, root mean square over the 16 actions: from a plan to the nearest of what the demonstrator does there
"""
import argparse
import sys

import numpy as np

from ... import policy as policies
from ...progress import Progress
from ..data import expert
from ..env import PushTEnv
from ..features import PUSHT
from ..view import drawing as draw

ALONG, ACROSS = np.array([1, -1]) / np.sqrt(2), np.array([1, 1]) / np.sqrt(2)  # the axis of the mirror runs along
MIDDLE = np.array([256.0, 256.0])
STEPS = 16


def symmetric_states(count, rng):
    """States (count, 5) on the axis: the block upside down and up to 60 px from its goal, the agent behind either end."""
    block = MIDDLE + rng.uniform(-60, 60, (count, 1)) * ALONG
    side = rng.choice([-1, 1], (count, 1))
    agent = block + (-45 + side * rng.uniform(90, 140, (count, 1))) * -ALONG  # 45: from the block's origin to its middle
    return np.hstack([agent, block, np.full((count, 1), 5 * np.pi / 4)])


def motions(policy, state, count, rng):
    """What a policy does next from a state at rest, so many times over: actions (count, STEPS, 2).

    A policy that plans fewer steps sees in between where its own actions led it.
    """
    if policy.pred_horizon >= STEPS:
        return policy.plan(np.tile(state, (count, policy.obs_horizon, 1)), rng)[:, :STEPS]
    result = []
    for _ in range(count):
        env, actions = PushTEnv(state_order="exact"), []
        seen = [env.reset(options={"state": state})[0]] * policy.obs_horizon
        while len(actions) < STEPS:
            for action in policy.plan(np.array(seen[-policy.obs_horizon:])[None], rng)[0]:
                actions.append(action)
                seen.append(env.step(action)[0])
        result.append(actions[:STEPS])
    return np.array(result)


def demonstrated(state, count, rng):
    """The demonstrator's motions from a state, and their mirror images: (2 count, STEPS, 2)."""
    scratch, result = PushTEnv(state_order="exact"), []
    for _ in range(count):
        actions = expert.plan(state, scratch, rng, samples=24, refine=2)[0][:STEPS]
        result.append(np.pad(actions, ((0, STEPS - len(actions)), (0, 0)), mode="edge"))
    return np.concatenate([result, 512 - np.array(result)[..., ::-1]])


def measure(move, states, shown):
    """The row of the table, as a dictionary, for move(state, rng) -> actions (plans, STEPS, 2). shown: for each state what
    `demonstrated` gave."""
    rng, sides, distances, progress = np.random.default_rng(0), [], [], Progress("states", len(states))
    for k, (state, known) in enumerate(zip(states, shown)):
        made = move(state, rng)
        away = ((made - state[:2]) @ ACROSS).mean(1)
        sides.append([(away < -10).mean(), (np.abs(away) <= 10).mean(), (away > 10).mean()])
        off = ((made[:, None] - known[None]) ** 2).sum(-1).mean(-1)  # (plans, known)
        distances.append(np.sqrt(off.min(1)))
        progress.show(k + 1)
    left, between, right = np.mean(sides, 0)
    return {"left": left, "between": between, "right": right, "distance": float(np.median(distances)),
            "both": np.mean([min(s[0], s[2]) >= 0.1 for s in sides])}


def sentence(name, row):
    return (f"{name}: left {row['left']:.0%}, between {row['between']:.0%}, right {row['right']:.0%}; both ways at "
            f"{row['both']:.0%} of the states; {row['distance']:.0f} px from the nearest demonstrated motion")


def main():
    parser = argparse.ArgumentParser(prog="python -m minidiff.pusht.study.forks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="checkpoints (policy.npz) to compare")
    parser.add_argument("--states", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--plans", type=int, default=100, help="at each (default: 100)")
    parser.add_argument("--picture", metavar="FILE", help="draw the plans of all policies at the first state (PNG)")
    args = parser.parse_args()
    states = symmetric_states(args.states, np.random.default_rng(0))
    shown = [demonstrated(state, 32, np.random.default_rng(k)) for k, state in enumerate(states)]
    again = measure(lambda state, rng: demonstrated(state, args.plans // 2, rng), states, shown)
    print(sentence("the demonstrator, drawn again", again))
    panels = []
    for path in args.runs:
        policy, meta = policies.load(path, PUSHT)
        print(sentence(path, measure(lambda state, rng: motions(policy, state, args.plans, rng), states, shown)))
        panels.append((states[0], meta["config"]["objective"], motions(policy, states[0], 24, np.random.default_rng(0))))
    if args.picture:
        draw.film_strip(args.picture, [("one state,\n24 plans", panels, "")])
        print(f"picture: {args.picture}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"modes: {error}")
