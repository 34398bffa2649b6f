"""A chain of seven joints reaches a place: the action is seven speeds."""
from minidiff.demos import Task

import numpy as np

NOISE = 0.1  # rad a step


def points(angles):
    """The ends of the seven links, (7, 2) m."""
    total = np.cumsum(angles)
    return np.cumsum(np.stack([np.cos(total), np.sin(total)], 1) / 7, 0)


class Chain:
    def reset(self, *, seed=None, options=None):
        rng = np.random.default_rng(seed)
        self.angles = rng.normal(0, 0.3, 7)
        radius, angle = rng.uniform(0.4, 0.8), rng.uniform(-1.5, 1.5)
        self.goal = radius * np.array([np.cos(angle), np.sin(angle)])
        return self.seen(), {}

    def seen(self):
        return np.concatenate([np.cos(self.angles), np.sin(self.angles),
                               self.goal - points(self.angles)[-1]])

    def step(self, action):
        self.angles = self.angles + np.clip(action, -0.2, 0.2)
        there = np.hypot(*(self.goal - points(self.angles)[-1])) < 0.02
        return self.seen(), float(there), there, False, {"is_success": there}


def demonstrator(world, rng):
    """-> decide(obs): a damped least-squares step of the joints towards the goal."""
    def decide(obs):
        ends = np.vstack([np.zeros(2), points(world.angles)])
        arms = ends[-1] - ends[:-1]
        jacobian = np.stack([-arms[:, 1], arms[:, 0]])  # (2, 7)
        way = obs[-2:] * min(1, 0.15 / max(np.hypot(*obs[-2:]), 1e-9))
        return jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 0.01 * np.eye(2), way)
    return decide


TASK = Task("chain", make_env=Chain, max_steps=60, score_range=(0.0, 1.0), action_horizon=2)
