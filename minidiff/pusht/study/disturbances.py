"""A PushT in which things go wrong: the block or the agent gets a kick, eyes are weak, orders come late."""
import numpy as np

from ..env import PushTEnv
from ..geometry import WORLD_SIZE


class DisturbedEnv(PushTEnv):
    """PushTEnv, disturbed. Everything random comes from the seed of the episode, so all policies meet the same.

    kick_block   (px, degrees): once, the block jumps so far in a random direction and turns by as much, either way
    kick_agent   px: at the same moment the agent jumps
    obs_noise    px: standard deviation of what is added to each position seen, and of a corner's, by the angle seen
    delay        steps from an action's choice to its being carried out; until then the agent stays

    The kick comes at a step from 20 to 59, before nearly all successes; from there an episode has max_steps more.
    """

    def __init__(self, kick_block=(0.0, 0.0), kick_agent=0.0, obs_noise=0.0, delay=0, **options):
        super().__init__(**options)
        self.kick_block, self.kick_agent, self.obs_noise, self.delay = kick_block, kick_agent, obs_noise, delay

    def reset(self, *, seed=None, options=None):
        state, info = super().reset(seed=seed, options=options)
        self._chance = np.random.default_rng([seed or 0, 4])  # a stream of its own: the start is that of PushTEnv
        self._kick_at = self._chance.integers(20, 60) if any((*self.kick_block, self.kick_agent)) else None
        self._late = [state[:2]] * self.delay
        return self._seen(state), info

    def step(self, action):
        if len(self._actions) == self._kick_at:
            self._kick()
        self._late.append(action)
        state, *rest = super().step(self._late.pop(0))
        return self._seen(state), *rest

    def _kick(self):
        x, y, block_x, block_y, angle, vx, vy = self.motion
        far, turn = self.kick_block
        (dx, dy), (ax, ay) = (size * np.array([np.cos(a), np.sin(a)])
                              for size, a in zip((far, self.kick_agent), self._chance.uniform(0, 2 * np.pi, 2)))
        angle += np.radians(turn) * self._chance.choice([-1, 1])
        keep = lambda value, margin: float(np.clip(value, margin, WORLD_SIZE - margin))
        self._begin((keep(x + ax, 20), keep(y + ay, 20), keep(block_x + dx, 80), keep(block_y + dy, 80), angle, vx, vy),
                    "exact")  # a new history, which counts its steps from here
        self._kick_at = None

    def _seen(self, state):
        if not self.obs_noise:
            return state
        return state + self.obs_noise * self._chance.standard_normal(5) / np.array([1, 1, 1, 1, 60])
