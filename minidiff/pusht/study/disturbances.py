"""A PushT in which things go wrong: kicks, observation noise, action latency."""
import numpy as np

from ..env import PushTEnv
from ..geometry import WORLD_SIZE

KICKS = 20, 60  # a kick comes after so many steps of the world: from 20 to below 60


class DisturbedEnv(PushTEnv):
    """PushTEnv, disturbed. Everything random comes from the episode's seed, so that all
    policies meet the same disturbances.

    kick_block      (px, degrees): once, the block jumps so far in a random direction and turns by
                    so much, either way
    kick_agent      px: at the same moment the agent jumps so far, in another random direction
    obs_noise       px: standard deviation of the noise on each observed coordinate; on the angle,
                    1/60 of it in radians, which moves the bar's ends, 60 px out, by as much
    action_latency  steps of the world from choosing an action to carrying it out; until the first
                    action is carried out, the agent stays
    options         those of PushTEnv; ValueError if keypoints are to be observed

    The kick comes after 20 to 59 steps of the world, before nearly all successes. After it an
    episode has max_steps more. A kick puts the agent at least 20 px, and the origin of the block at
    least 80 px, inside the edge of the world. So near the edge it moves them less far, or another
    way.
    """

    def __init__(self, kick_block=(0.0, 0.0), kick_agent=0.0, obs_noise=0.0, action_latency=0,
                 **options):
        super().__init__(**options)
        if self.obs_type != "state":
            raise ValueError(f"obs_type {self.obs_type}: what is disturbed is the state")
        self.kick_block = kick_block
        self.kick_agent = kick_agent
        self.obs_noise = obs_noise
        self.action_latency = action_latency
        if self.kicks and self.max_steps < KICKS[1]:
            raise ValueError(f"max_steps {self.max_steps}: a kick comes at a step from {KICKS[0]} "
                             f"to {KICKS[1] - 1}")
        if action_latency >= self.max_steps:
            raise ValueError(f"max_steps {self.max_steps}: no action is carried out with an "
                             f"action_latency of {action_latency}")

    @property
    def kicks(self):
        return any((*self.kick_block, self.kick_agent))

    def reset(self, *, seed=None, options=None):
        state, info = super().reset(seed=seed, options=options)
        # a generator of its own, so that the start is that of PushTEnv
        self.chance = np.random.default_rng([seed or 0, 4])
        self.kick_step = None
        if self.kicks:
            self.kick_step = self.chance.integers(*KICKS)
        self.steps = 0
        self.waiting = [state[:2]] * self.action_latency  # actions chosen, not yet carried out
        return self.observed(state), info

    def step(self, action):
        if self.steps == self.kick_step:
            self.kick()
        self.steps += 1
        self.waiting.append(action)
        state, *rest = super().step(self.waiting.pop(0))
        return self.observed(state), *rest

    def kick(self):
        """Move the block, the agent, or both; what is moved stays inside the walls."""
        x, y, block_x, block_y, angle, vx, vy = self.motion
        distance, turn = self.kick_block
        block_direction, agent_direction = self.chance.uniform(0, 2 * np.pi, 2)
        angle += np.radians(turn) * self.chance.choice([-1, 1])
        if any(self.kick_block):
            block_x = within(block_x + distance * np.cos(block_direction), 80)
            block_y = within(block_y + distance * np.sin(block_direction), 80)
        if self.kick_agent:
            x = within(x + self.kick_agent * np.cos(agent_direction), 20)
            y = within(y + self.kick_agent * np.sin(agent_direction), 20)
        # a new history, so the steps up to max_steps are counted from here
        super().reset(options={"order": "exact",
                               "state": (x, y, block_x, block_y, angle, vx, vy)})

    def observed(self, state):
        if not self.obs_noise:
            return state
        noise = self.chance.standard_normal(5)
        return state + self.obs_noise * noise / np.array([1, 1, 1, 1, 60])


def within(value, margin):
    """The nearest coordinate that keeps a margin (px) from the walls."""
    return float(np.clip(value, margin, WORLD_SIZE - margin))
