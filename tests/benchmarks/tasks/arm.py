"""A two-link arm takes hold of an object: angles in degrees, metres, and a gripper, 0 or 1.

The hand reaches a place with its elbow on the one side or on the other; the demonstrator takes
either. To close the gripper anywhere else is a failure.
"""
from minidiff.demos import Task

import numpy as np

NOISE = np.array([1.0, 1.0, 0.0])  # degrees

RECIPE = {"pred_horizon": 16, "steps": 7000}


def hand(angles):
    """Where the hand is, m; angles: shoulder and elbow, degrees."""
    shoulder, elbow = np.radians(angles)
    return np.array([np.cos(shoulder) + np.cos(shoulder + elbow),
                     np.sin(shoulder) + np.sin(shoulder + elbow)])


class Arm:
    def reset(self, *, seed=None, options=None):
        rng = np.random.default_rng(seed)
        radius, angle = rng.uniform(0.7, 1.6), rng.uniform(-1, 1)
        self.object = radius * np.array([np.cos(angle), np.sin(angle)])
        self.angles = np.array([np.degrees(angle), 0.0]) + rng.normal(0, 3, 2)  # stretched out
        return self.seen(), {}

    def seen(self):
        return np.concatenate([self.angles, self.object, hand(self.angles) - self.object])

    def step(self, action):
        self.angles = self.angles + np.clip(action[:2] - self.angles, -8, 8)
        closed = action[2] > 0.5
        held = closed and np.hypot(*(hand(self.angles) - self.object)) < 0.1
        return self.seen(), float(held), closed, False, {"is_success": held}


def demonstrator(world, rng):
    """-> decide(obs): both links' angles at the object, and whether to close."""
    x, y = world.object
    elbow = rng.choice([-1, 1]) * 2 * np.arccos(np.hypot(x, y) / 2)
    goal = np.degrees([np.arctan2(y, x) - elbow / 2, elbow])
    return lambda obs: np.array([*goal, np.abs(goal - obs[:2]).max() < 2])


TASK = Task("arm", recipe=RECIPE, action_horizon=2, make_env=Arm, max_steps=40,
            score_range=(0.0, 1.0))
