"""Pendulum-v1 of Gymnasium: swing a pendulum up and hold it there; the action is a torque.

The demonstrator pumps energy into it and catches it at the top with a spring and a damper.
"""
from minidiff.beyond import tasks

import numpy as np

NOISE = 0.5  # N m
TASK = tasks.load("Pendulum-v1")


def demonstrator(world, rng):
    """-> decide(obs), obs = cos, sin of the angle from the top, and its speed (rad/s)."""
    turn = rng.choice([-1, 1])  # to begin with, where it hangs still

    def decide(obs):
        cos, sin, speed = obs
        angle = np.arctan2(sin, cos)
        energy = speed ** 2 / 6 + 5 * (cos - 1)  # 0 where it rests at the top; m = l = 1, g = 10
        if abs(angle) < 0.5 and abs(speed) < 3:
            return np.array([np.clip(-12 * angle - 3 * speed, -2, 2)])
        way = np.sign(speed) if abs(speed) > 0.05 else turn
        return np.array([np.clip(-4 * energy, -2, 2) * way])
    return decide
