"""A second task, in one file: a point has to get past a wall, by its left or by its right.

    python -m minidiff.wall        train on demonstrations of both ways, then score 100 episodes

All that the method is told of a task is a Task; what trains, plans and keeps is the same as for
PushT. To make your own, replace what is here: demonstrations, features, frame, world.
"""
import signal

if __name__ == "__main__":  # until there is work to save, Ctrl-C ends the program at once
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys

import numpy as np

from . import stopping
from .demos import Task, check
from .policy import from_trainer, run_episode
from .progress import Progress
from .training import Config, Trainer

WALL = 0.5  # it reaches from x = -0.5 to 0.5 at y = 0
SPEED = 0.3  # the longest move of a step
H = 16  # steps from the start to the goal


def features(obs, frame):
    """The point's position, (B, 2)."""
    return obs[:, -1]


def frame(obs):
    """Plans are measured from the point, along the axes of the world."""
    return obs[:, -1], np.eye(2)[None]


TASK = Task("wall", features, frame, np.array([[-2, 2]] * 2), np.array([[-2, 2]] * 2))
CONFIG = Config(width=64, blocks=2, pred_horizon=H, T=50, steps=2000, batch=128, ema=0.99)


def demonstrations(episodes, rng):
    """From somewhere near (0, -1) up to (0, 1), half of them on each side of the wall -> Demos."""
    s = np.linspace(0, 1, H + 1)
    start = rng.normal((0, -1), 0.05, (episodes, 2))
    side = rng.choice([-1, 1], episodes)
    width = rng.normal(0.85, 0.05, episodes)
    x = start[:, :1] * (1 - s) + (side * width)[:, None] * np.sin(np.pi * s)
    y = start[:, 1:] + (1 - start[:, 1:]) * s
    path = np.stack([x, y], -1)  # (episodes, H + 1, 2)
    ends = H * np.arange(1, episodes + 1)
    return check({"state": np.concatenate(path[:, :-1]), "action": np.concatenate(path[:, 1:]),
                  "episode_ends": ends}, TASK)


class World:
    """reset and step as Gymnasium has them. An action is where to go; touching the wall ends it."""

    def reset(self, *, seed=None, options=None):
        self.position = np.random.default_rng(seed).normal((0, -1), 0.05)
        self.steps = 0
        return self.position, {}

    def step(self, action):
        move = action - self.position
        move = move * min(1, SPEED / max(np.hypot(*move), 1e-9))
        before, self.position = self.position, self.position + move
        self.steps += 1
        crossed = before[1] < 0 <= self.position[1]
        x = np.interp(0, [before[1], self.position[1]], [before[0], self.position[0]])
        hit = crossed and abs(x) < WALL
        solved = not hit and self.position[1] > 0.95
        return self.position, float(solved), hit or solved, self.steps >= 3 * H, {"x": x}


def main(episodes=100):
    trainer = Trainer(CONFIG, TASK, demonstrations(300, np.random.default_rng(0)))
    progress = Progress("training", CONFIG.steps)
    for loss in trainer:
        stopping.safe_point()
        progress.show(trainer.n, f"loss {loss:.4f}")
    policy = from_trainer(trainer, action_horizon=8)
    solved = 0
    for seed in range(episodes):
        stopping.safe_point()
        *_, (_, reward, _) = run_episode(policy, World(), np.random.default_rng([1, seed]), seed)
        solved += reward == 1
    print(f"got past the wall in {solved} of {episodes} episodes")


if __name__ == "__main__":
    stopping.Parser(prog="python -m minidiff.wall", description=__doc__).parse_args()
    stopping.listen()
    sys.exit(stopping.run("minidiff.wall", main))
