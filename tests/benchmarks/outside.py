"""A T that sticks out through a wall: how far may it, until the policy cannot fetch it back?

    python tests/benchmarks/outside.py    a minute on two cores: shipped policy, DDIM in 4 steps

Starts are those of the seeds from 300000 on, but the T is moved out through the right or the lower
wall, until its farthest corner is so many px beyond the line of the wall's middle.
"""
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from minidiff import beyond  # noqa: E402
from minidiff.pusht import SHIPPED_POLICY  # noqa: E402
from minidiff.pusht.env import PushTEnv  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.geometry import keypoints  # noqa: E402
from minidiff.scoring import rollout, scores  # noqa: E402
from minidiff.scoring.workers import Workers  # noqa: E402

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


def main():
    policy, _ = beyond.load(SHIPPED_POLICY, PUSHT, sampler="ddim", steps=4)
    with Workers(2) as executor:
        for distance in (0, 10, 20, 30, 40, 60):
            episodes = rollout.evaluate(policy, range(300_000, 300_000 + COUNT), executor,
                                        make_env=functools.partial(Outside, distance))
            print(f"{distance:3} px: {scores.sentence(scores.summary(episodes))}", flush=True)


if __name__ == "__main__":
    main()
