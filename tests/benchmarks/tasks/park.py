"""A cart on a rail parks to the left or to the right: the action is one number, the force."""
from minidiff.demos import Task

import numpy as np

NOISE = 1.0  # m/s^2

DT = 0.1  # s


class Rail:
    def reset(self, *, seed=None, options=None):
        self.state = np.random.default_rng(seed).normal(0, 0.05, 2)  # position m, speed m/s
        return self.state, {}

    def step(self, action):
        x, v = self.state
        v = v + DT * np.clip(action[0], -2, 2)
        x = x + DT * v
        self.state = np.array([x, v])
        parked = abs(abs(x) - 1) < 0.02 and abs(v) < 0.05
        return self.state, float(parked), parked, False, {"is_success": parked}


def demonstrator(world, rng):
    """-> decide(obs): a spring and a damper that pull to the side that was chosen."""
    side = rng.choice([-1, 1])
    return lambda obs: np.array([4 * (side - obs[0]) - 3.5 * obs[1]])


TASK = Task("park", make_env=Rail, max_steps=100, score_range=(0.0, 1.0))
