"""What the frame is worth: the same training with plans and features in other frames.

    python tests/benchmarks/frames.py

    world     along the axes of the world: positions, angles, and left and right are all learned
    turned    along the axes of the T, which need not be learned at every angle
    mirrored  and mirrored where the agent is on the T's left: the frame of pusht/features.py

Each policy is scored on 1,000 episodes by DDIM in 4 steps.
"""
import sys
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import beyond, demos, stopping  # noqa: E402
from minidiff.policy import from_trainer  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.geometry import GOAL_POSE, keypoints  # noqa: E402
from minidiff.training import Config  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks.measuring import Sheet, parser, played, trained  # noqa: E402


def turned(obs):
    agent, axes = PUSHT.frame(obs)
    side = np.linalg.det(axes)[:, None]  # -1 where the frame is mirrored
    x, y = axes[:, :, 0] * side, axes[:, :, 1]
    return agent, np.stack([x, y], 2).astype(axes.dtype)


def world(obs):
    return obs[:, -1, :2], np.tile(np.eye(2, dtype=obs.dtype), (len(obs), 1, 1))


def world_features(obs, frame):
    """The same 38 numbers, from the world's origin along its axes."""
    agent, pose = obs[:, -1, :2], obs[:, -1, 2:]
    corners = keypoints(pose)
    near = np.concatenate([keypoints(GOAL_POSE) - corners, agent[:, None] - corners], 1) / 15
    return np.hstack([agent, pose[:, :2], np.sin(pose[:, 2:]), np.cos(pose[:, 2:]),
                      np.tanh(near).reshape(len(obs), 32)])


TASKS = {"world": PUSHT._replace(frame=world, features=world_features),
         "turned": PUSHT._replace(frame=turned),
         "mirrored": PUSHT}


def main(arguments):
    sheet = Sheet(parser("frames", __doc__).parse_args(arguments).json)
    data = demos.own(PUSHT)
    for name, task in TASKS.items():
        trainer = trained(Config(), task, data, name=name)
        sheet.add(name, played(from_trainer(trainer, beyond.bind("ddim", steps=4)), 1000))


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("frames", main, sys.argv[1:]))
