"""What the frame is worth: the same training with plans and features in other frames.

    python tests/benchmarks/frames.py 1850          so many gradient steps for each

    world     along the axes of the world: positions, angles, and left and right are all learned
    turned    along the axes of the T, which need not be learned at every angle
    mirrored  and mirrored where the agent is on the T's left: the frame of pusht/features.py

Each policy is scored on 1,000 episodes by DDIM in 4 steps.
"""
import concurrent.futures
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from minidiff import beyond, demos, stopping  # noqa: E402
from minidiff.policy import from_trainer  # noqa: E402
from minidiff.progress import Progress  # noqa: E402
from minidiff.pusht import EXPERT_DEMOS  # noqa: E402
from minidiff.pusht.features import PUSHT  # noqa: E402
from minidiff.pusht.geometry import GOAL_POSE, keypoints  # noqa: E402
from minidiff.scoring import rollout, scores  # noqa: E402
from minidiff.training import Config, Trainer  # noqa: E402

import numpy as np  # noqa: E402


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


def main(steps):
    data = demos.load(EXPERT_DEMOS, PUSHT)
    for name, task in TASKS.items():
        trainer = Trainer(Config(steps=steps), task, data)
        progress = Progress(f"training ({name})", steps)
        for loss in trainer:
            stopping.safe_point()
            progress.show(trainer.n, f"loss {loss:.5f}")
        seconds = trainer.cpu_seconds()
        policy = from_trainer(trainer, beyond.bind("ddim", steps=4))
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            progress = Progress(f"scoring ({name})", 1000)
            episodes = rollout.evaluate(policy, range(300000, 301000), executor,
                                        progress=progress.show)
        summary = scores.summary(episodes)
        print(f"{name:9} {seconds:.0f} CPU s   {scores.sentence(summary)}")


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("frames", main, int(sys.argv[1])))
