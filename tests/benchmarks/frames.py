"""What the frame is worth: the same training with plans and features along other axes.

    python tests/benchmarks/frames.py 1850          for so many gradient steps each

    world     along the axes of the world: where things lie, how they are turned, and left and right all have to be learned
    turned    along the axes of the T, which need not be learned in every direction
    mirrored  and in a mirror if the agent is on the T's left: the frame of minidiff/pusht/features.py
"""
import minidiff  # first: one BLAS thread
import concurrent.futures
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
import train
from minidiff import demos, policy
from minidiff.progress import Progress
from minidiff.pusht import EXPERT_DEMOS, features, rollout
from minidiff.pusht.env import GOAL_POSE, keypoints

MIRRORED = features.PUSHT


def turned(obs):
    agent, axes = MIRRORED.frame(obs)
    return agent, np.stack([axes[:, :, 0] * np.linalg.det(axes)[:, None], axes[:, :, 1]], 2).astype(axes.dtype)


def world(obs):
    return obs[:, -1, :2], np.tile(np.eye(2, dtype=obs.dtype), (len(obs), 1, 1))


def world_features(obs):
    """The same 38 numbers, seen from where the world has its origin."""
    agent, pose = obs[:, -1, :2], obs[:, -1, 2:]
    corners = keypoints(pose)
    near = np.concatenate([keypoints(GOAL_POSE) - corners, agent[:, None] - corners], 1) / 15
    return np.hstack([agent, pose[:, :2], np.sin(pose[:, 2:]), np.cos(pose[:, 2:]), np.tanh(near).reshape(len(obs), 32)])


TASKS = {"world": MIRRORED._replace(frame=world, features=world_features), "turned": MIRRORED._replace(frame=turned),
         "mirrored": MIRRORED}

if __name__ == "__main__":
    data, steps = demos.load(EXPERT_DEMOS, MIRRORED), int(sys.argv[1])
    for name, task in TASKS.items():
        features.frame, train.PUSHT = task.frame, task
        with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(1) as executor:
            run = train.Run(train.Config(steps=steps, width=256), Path(folder), data)
            train.train(run, steps)
            trained, _ = policy.load(run.path, task, sampler="ddim", steps=4)
            episodes = rollout.evaluate(trained, range(300000, 301000), executor, progress=Progress(name, 1000).show)
        print(f"{name:9} {run.cpu_seconds():.0f} CPU s   {rollout.sentence(rollout.summary(episodes))}")
