"""Does a policy go both ways at forks when demonstrations show it? Some that start there.

    python tests/benchmarks/at_forks.py forks.npz
    python train.py --demos minidiff/pusht/expert.npz forks.npz --out runs/forks
    python -m minidiff.pusht forks runs/forks

300 demonstrations from states like those of study/forks.py, but others: the agent is up to 10 px
off the axis, to either side.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from minidiff import checkpoint, stopping  # noqa: E402
from minidiff.pusht.data import collect  # noqa: E402
from minidiff.pusht.study import forks  # noqa: E402
from minidiff.scoring.workers import Workers  # noqa: E402

import numpy as np  # noqa: E402

EPISODES = 300


def main(path):
    rng = np.random.default_rng(1)
    states = forks.symmetric_states(EPISODES, rng)
    states[:, :2] += rng.uniform(-10, 10, (EPISODES, 1)) * forks.ACROSS
    with Workers(2) as executor:
        arrays = collect.make(range(EPISODES), executor, starts=states)
    checkpoint.write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
    print(f"{len(arrays['episode_ends'])} demonstrations in {path}")


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("at_forks", main, *sys.argv[1:]))
