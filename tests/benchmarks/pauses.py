"""Do pauses in the demonstrations stop a policy? Some of the shipped ones, with pauses put in.

    python tests/benchmarks/pauses.py paused.npz 2        two pauses in each episode
    python tests/benchmarks/pauses.py as-before.npz 0     the same episodes without any

At each pause the agent stays where it is for 10 to 30 steps, then goes on: with two, about a
quarter of all steps are pauses. Each episode is lived again in the world, so what is recorded is
what happened. They are the 1,100 episodes that start from their seeds.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from minidiff import demos, stopping  # noqa: E402
from minidiff.pusht import EXPERT_DEMOS  # noqa: E402
from minidiff.pusht.env import PushTEnv  # noqa: E402

import numpy as np  # noqa: E402


def paused(seed, actions, noises, count, rng):
    """-> states (n, 5) and actions (n, 2) of the episode from `seed`, with `count` pauses in it."""
    env = PushTEnv()
    state, _ = env.reset(seed=int(seed))
    begins = rng.choice(len(actions), count, replace=False)
    lengths = dict(zip(begins, rng.integers(10, 31, count)))
    states, taken = [], []
    for k, (action, noise) in enumerate(zip(actions, noises)):
        rest = state[:2]
        for _ in range(lengths.get(k, 0)):
            states.append(state)
            taken.append(rest)
            state, *_ = env.step(rest)
        states.append(state)
        taken.append(action)
        state, *_ = env.step(action + noise)
    return np.float32(states), np.float32(taken)


def main(path, count):
    names = ("state", "action", "episode_ends", "noise", "seed", "start")
    shipped = demos.read(EXPERT_DEMOS, names)
    rng = np.random.default_rng(0)
    rows = np.r_[0, shipped["episode_ends"]]
    states, actions, ends, before = [], [], [], 0
    for e in np.flatnonzero(np.isnan(shipped["start"]).any(1)):  # those that start from their seed
        stopping.safe_point()
        part = slice(rows[e], rows[e + 1])
        seen, taken = paused(shipped["seed"][e], shipped["action"][part], shipped["noise"][part],
                             int(count), rng)
        states.append(seen)
        actions.append(taken)
        ends.append(len(seen) + (ends[-1] if ends else 0))
        before += rows[e + 1] - rows[e]
    np.savez_compressed(path, state=np.concatenate(states), action=np.concatenate(actions),
                        episode_ends=np.array(ends))
    print(f"{len(ends)} episodes, {ends[-1]:,} steps, of which pauses: {1 - before / ends[-1]:.0%}")


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("pauses", main, *sys.argv[1:3]))
