"""Do pauses in the demonstrations stop a policy? The demonstrations that come with minidiff, with pauses put in.

    python tests/benchmarks/pauses.py paused.npz
    python train.py --demos paused.npz --out runs/paused                                               diffusion
    python train.py --demos paused.npz --out runs/paused-mse --objective mse --lr 1e-3
    python train.py --demos paused.npz --out runs/paused-one --objective mse --lr 1e-3 --pred-horizon 1
    python eval.py runs/paused --sampler ddim --steps 4 --episodes 300 --seed 300000                   and the others

Twice in each episode the agent stays where it is for 10 to 30 steps, then goes on: about a quarter of all steps are
pauses. Each episode is lived again in the world, so that what is recorded is what happened.
"""
import minidiff  # first: one BLAS thread
import sys

import numpy as np

from minidiff.pusht import EXPERT_DEMOS
from minidiff.pusht.env import PushTEnv


def paused(seed, actions, noise, rng):
    """-> states (n, 5) and actions (n, 2) of the episode from `seed`, with two pauses in it."""
    env, states, taken = PushTEnv(), [], []
    state, _ = env.reset(seed=int(seed))
    pauses = dict(zip(rng.choice(len(actions), 2, replace=False), rng.integers(10, 31, 2)))
    for k, (action, added) in enumerate(zip(actions, noise)):
        for order, extra in [(state[:2], 0)] * pauses.get(k, 0) + [(action, added)]:
            states.append(state)
            taken.append(order)
            state, *_ = env.step(order + extra)
    return np.float32(states), np.float32(taken)


if __name__ == "__main__":
    with np.load(EXPERT_DEMOS, allow_pickle=False) as file:
        demos, rng = dict(file), np.random.default_rng(0)
    starts = np.r_[0, demos["episode_ends"]]
    episodes = [paused(demos["seed"][e], *(demos[name][starts[e]:starts[e + 1]] for name in ("action", "noise")), rng)
                for e in np.flatnonzero(np.isnan(demos["start"]).any(1))]
    states, actions = map(np.concatenate, zip(*episodes))
    np.savez_compressed(sys.argv[1], state=states, action=actions, episode_ends=np.cumsum([len(s) for s, _ in episodes]))
    print(f"{len(episodes)} episodes, {len(states):,} steps, of which pauses: {1 - starts[len(episodes)] / len(states):.0%}")
