"""Diffusion beside regression as the problem grows, and over many training seeds.

    python tests/benchmarks/claims.py distractors runs/distractors   10, 100, 1,000 useless features
    python tests/benchmarks/claims.py chunks runs/chunks             plans of 4 to 64 actions
    python tests/benchmarks/claims.py seeds runs/seeds               20 training seeds, two rates

Everything else is as in ladder.py, which trains and plays. A useless feature is the sine of a
random projection of the state, with a period of some pixels: as good as noise, yet the same each
time. Diffusion is sampled by DDIM in 4 steps at temperature 1.
"""
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import stopping  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.training import Config  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks.ladder import TITLE, climb, pusht, row  # noqa: E402

BOTH = ("regression", "DDIM, 4 steps")


class Distracted:
    """PushT's features, and `count` more that say nothing of use."""

    def __init__(self, count):
        rng = np.random.default_rng(count)
        self.waves = rng.standard_normal((5, count))  # one radian for a move of about a pixel
        self.phase = rng.uniform(0, 2 * np.pi, count)

    def __call__(self, obs, frame):
        useless = np.sin(obs[:, -1].astype(np.float64) @ self.waves + self.phase)
        return np.hstack([PUSHT.features(obs, frame), useless])


def distractors(setting):
    for count in (10, 100, 1000):
        task = PUSHT._replace(features=Distracted(count))
        yield f"{count:,} useless features", setting._replace(task=task), BOTH, range(3)


def chunks(setting):
    for length in (4, 8, 16, 32, 64):
        defaults = Config(pred_horizon=length)
        yield f"plans of {length} actions", setting._replace(defaults=defaults), BOTH, range(3)


def seeds(setting):
    for rate in (Config.lr, 2 * Config.lr):
        defaults = Config(lr=rate)
        yield f"learning rate {rate:g}", setting._replace(defaults=defaults), BOTH[1:], range(20)


CLAIMS = {"distractors": distractors, "chunks": chunks, "seeds": seeds}


def main(arguments):
    parser = stopping.Parser(prog="python tests/benchmarks/claims.py", description=__doc__)
    parser.add_argument("claim", choices=tuple(CLAIMS))
    parser.add_argument("folder", type=Path, help="for networks and results")
    parser.add_argument("--demos", nargs="+", help="files (default: those of minidiff)")
    parser.add_argument("--episodes", type=int, default=500, help="of each seed (default: 500)")
    args = parser.parse_args(arguments)
    lines = []
    for name, setting, rungs, training_seeds in CLAIMS[args.claim](pusht(args.demos)):
        folder = args.folder / name.replace(" ", "-").replace(",", "")
        folder.mkdir(parents=True, exist_ok=True)
        results = climb(setting, rungs, training_seeds, args.episodes, folder)
        lines += [row(f"{name}: {rung}", results[rung]) for rung in rungs]
    print(TITLE, *lines, sep="\n")


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("claims", main, sys.argv[1:]))
