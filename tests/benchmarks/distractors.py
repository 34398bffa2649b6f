"""Diffusion beside regression when the policy also sees features that say nothing of use.

    python tests/benchmarks/distractors.py 100 runs/distractors-100       100 useless features

A useless feature is the sine of a random projection of the state, with a period of some pixels: as
good as noise, yet the same each time. Everything else is as in ladder.py, which trains and plays.
"""
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import stopping  # noqa: E402
from minidiff.progress import say  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks.ladder import climb, pusht  # noqa: E402
from benchmarks.measuring import TRAINING_SEEDS  # noqa: E402

RUNGS = ("regression", "DDIM, 4 steps")


class Distracted:
    """PushT's features, and `count` more that say nothing of use."""

    def __init__(self, count):
        rng = np.random.default_rng(count)
        self.waves = rng.standard_normal((5, count))  # one radian for a move of about a pixel
        self.phase = rng.uniform(0, 2 * np.pi, count)

    def __call__(self, obs, frame):
        useless = np.sin(obs[:, -1].astype(np.float64) @ self.waves + self.phase)
        return np.hstack([PUSHT.features(obs, frame), useless])


def main(arguments):
    parser = stopping.Parser(prog="python tests/benchmarks/distractors.py", description=__doc__)
    parser.add_argument("count", type=int, help="useless features")
    parser.add_argument("folder", type=Path, help="for networks and results")
    parser.add_argument("--episodes", type=int, default=500, help="of each seed (default: 500)")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    setting = pusht(None)._replace(task=PUSHT._replace(features=Distracted(args.count)))
    for seed in TRAINING_SEEDS:
        results = climb(setting, RUNGS, seed, args.episodes, args.folder)
        for name in RUNGS:
            say(f"{name}, seed {seed}: {np.mean([e[0] for e in results[name]]):.1%} solved")


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("distractors", main, sys.argv[1:]))
