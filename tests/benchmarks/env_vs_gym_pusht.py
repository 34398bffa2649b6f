"""minidiff's PushT world compared with gym-pusht's: the same states, to the last bit, and how many
times faster.

Both worlds start from the same states and get the same targets, which lead the agent through the
block again and again. They take turns, so that whatever else the machine does meets both. A step is
everything that `step` returns, coverage included. Needs gym-pusht, which wants an older pymunk than
minidiff does (minidiff works with either):

    python -m venv gym && gym/bin/pip install numpy "gym-pusht==0.1.8" "pymunk<7"
    gym/bin/python tests/benchmarks/env_vs_gym_pusht.py
"""
import argparse
import os
import statistics
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs without an installation
from minidiff import stopping  # noqa: E402
from minidiff.pusht.env import PushTEnv  # noqa: E402

import numpy as np  # noqa: E402


def gym_pusht_env():
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from gym_pusht.envs.pusht import PushTEnv as GymPushTEnv
    except ImportError as error:
        sys.exit(f'needs gym-pusht ({error}): pip install "gym-pusht==0.1.8" "pymunk<7"')
    env = GymPushTEnv(obs_type="state")
    try:
        env.reset(seed=0)
    except AttributeError as error:  # pymunk 7 lacks the collision handlers it uses
        sys.exit(f'gym-pusht does not run with this pymunk ({error}): pip install "pymunk<7"')
    return env


def episode(rng, steps):
    """A start (5,) and targets (steps, 2) that jump about where the block stood, every five
    steps."""
    agent = rng.uniform(50, 450, 2)
    block = rng.uniform(150, 350, 2)
    start = np.array([*agent, *block, rng.uniform(-np.pi, np.pi)])
    targets = np.repeat(rng.normal(block, 80, (steps // 5 + 1, 2)), 5, axis=0)[:steps]
    return start, np.clip(targets, 0, 512)


def run(env, options, targets):
    """Live through an episode.

    Returns states (steps + 1, 5), coverages (steps,), seconds of each step (steps,).
    """
    states, coverages, seconds = [env.reset(options=options)[0]], [], []
    for target in targets:
        begin = time.perf_counter()
        state, _, _, _, info = env.step(target)
        seconds.append(time.perf_counter() - begin)
        states.append(state)
        coverages.append(info["coverage"])
    return np.array(states), np.array(coverages), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20,
                        help="episodes, each its own start (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50,
                        help="steps of an episode (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="of starts and targets (default: %(default)s)")
    args = parser.parse_args()

    theirs, ours = gym_pusht_env(), PushTEnv()
    rng = np.random.default_rng(args.seed)
    their_times, our_times = [], []
    apart, coverage_apart, moved = 0.0, 0.0, 0
    print("round  gym-pusht us/step  minidiff us/step  ratio   (medians)")
    for number in range(1, args.rounds + 1):
        stopping.safe_point()
        start, targets = episode(rng, args.steps)
        states, coverages, their = run(theirs, {"reset_to_state": start}, targets)
        our_states, our_coverages, our = run(ours, {"state": start, "order": "legacy"}, targets)
        their_times += their
        our_times += our
        apart = max(apart, abs(states - our_states).max())
        coverage_apart = max(coverage_apart, abs(coverages - our_coverages).max())
        moved += (states[1:, 2:] != states[:-1, 2:]).any(1).sum()
        print(row(f"{number:5d}", statistics.median(their), statistics.median(our)))

    print(row("  all", statistics.median(their_times), statistics.median(our_times)))
    print(row(" mean", np.mean(their_times), np.mean(our_times)))
    print(f"largest difference over {len(our_times)} steps ({moved} of them moved the block): "
          f"state {apart:g}, coverage {coverage_apart:.1e}")


def row(name, theirs, ours):
    """A line of the table; theirs, ours: seconds."""
    return f"{name}  {1e6 * theirs:17.1f}  {1e6 * ours:16.1f}  {theirs / ours:5.2f}"


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("env_vs_gym_pusht", main))
