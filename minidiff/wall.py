"""A second task, in one file: a point has to get past a wall, on the left or on the right.

    python train.py --task minidiff/wall.py      train on demonstrations of both ways, score, draw

A Task is all that minidiff knows of a task. To make your own, copy this file and replace its
features, frame, demonstrations and world. Training needs the demonstrations alone; scoring needs
the world, too.
"""
from minidiff.demos import Task

import numpy as np

WALL = 0.5  # it reaches from x = -0.5 to 0.5 at y = 0
SPEED = 0.3  # the longest way that the point can go in one step
H = 16  # steps of a demonstration, and actions of a plan


def features(obs, frame):
    """The point's position, (B, 2)."""
    return obs[:, -1]


def frame(obs):
    """The origin is the point; the axes are those of the world."""
    return obs[:, -1], np.eye(2)[None]


def demonstrations(episodes=300, seed=0):
    """Paths from near (0, -1) up to (0, 1), about half of them on each side of the wall."""
    rng = np.random.default_rng(seed)
    s = np.linspace(0, 1, H + 1)
    start = rng.normal((0, -1), 0.05, (episodes, 2))
    side = rng.choice([-1, 1], episodes)
    width = rng.normal(0.85, 0.05, episodes)
    x = start[:, :1] * (1 - s) + (side * width)[:, None] * np.sin(np.pi * s)
    y = start[:, 1:] + (1 - start[:, 1:]) * s
    path = np.stack([x, y], -1)  # (episodes, H + 1, 2)
    return {"state": np.concatenate(path[:, :-1]), "action": np.concatenate(path[:, 1:]),
            "episode_ends": H * np.arange(1, episodes + 1)}


class World:
    """reset and step as Gymnasium has them.

    An action is the position to go to. Running into the wall ends the episode.
    """

    def reset(self, *, seed=None, options=None):
        self.position = np.random.default_rng(seed).normal((0, -1), 0.05)
        return self.position, {}

    def step(self, action):
        move = action - self.position
        move = move * min(1, SPEED / max(np.hypot(*move), 1e-9))
        before, self.position = self.position, self.position + move
        crossed = before[1] < 0 <= self.position[1]
        x = np.interp(0, [before[1], self.position[1]], [before[0], self.position[0]])
        hit = crossed and abs(x) < WALL
        solved = not hit and self.position[1] > 0.95
        return self.position, float(solved), hit or solved, False, {"x": x, "is_success": solved}

    def render(self):
        """A picture (120, 120, 3) uint8: the wall black, the goal green, the point red."""
        y, x = np.mgrid[1.2:-1.2:120j, -1.2:1.2:120j]
        picture = np.full((120, 120, 3), 250, np.uint8)
        picture[np.hypot(x, y - 1) < 0.1] = 0, 158, 115
        picture[(np.abs(y) < 0.02) & (np.abs(x) < WALL)] = 40
        picture[np.hypot(x - self.position[0], y - self.position[1]) < 0.06] = 213, 94, 0
        return picture


RECIPE = {"width": 64, "pred_horizon": H, "T": 50, "steps": 2000, "batch": 128, "ema": 0.99}
TASK = Task("wall", features, frame, demos=demonstrations, recipe=RECIPE, make_env=World,
            max_steps=3 * H, score_range=(0.0, 1.0))
