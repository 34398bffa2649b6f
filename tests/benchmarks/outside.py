"""A T that sticks out through a wall: how far may it, until the policy cannot fetch it back?

    python tests/benchmarks/outside.py        the policy that comes with minidiff, DDIM in 4 steps

Starts are those of the seeds from 300000 on, but the T is moved out through the right or the lower
wall, until its farthest corner is so many px beyond the line of the wall's middle.
"""
import functools
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import beyond, stopping  # noqa: E402
from minidiff.pusht import SHIPPED_POLICY  # noqa: E402
from minidiff.pusht.env import PushTEnv  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.geometry import keypoints  # noqa: E402

from benchmarks.measuring import Sheet, parser, played  # noqa: E402

WALL = 506  # px, its middle
COUNT = 400  # starts for each distance


class Outside(PushTEnv):
    """PushT whose starts have the T sticking out so many px."""

    def __init__(self, distance):
        super().__init__()
        self.distance = distance

    def reset(self, *, seed=None, options=None):
        state, _ = super().reset(seed=seed)
        axis = seed % 2
        state[2 + axis] += WALL + self.distance - keypoints(state[2:])[:, axis].max()
        return super().reset(options={"state": state, "order": "exact"})


def main(arguments):
    sheet = Sheet(parser("outside", __doc__).parse_args(arguments).json)
    policy, _ = beyond.load(SHIPPED_POLICY, PUSHT, sampler="ddim", steps=4)
    for distance in (0, 10, 20, 30, 40, 60):
        make_env = functools.partial(Outside, distance)
        sheet.add(f"{distance} px", played(policy, COUNT, make_env=make_env))


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("outside", main, sys.argv[1:]))
