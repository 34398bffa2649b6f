"""PushT as a Gymnasium environment: importing this file registers it as "minidiff/PushT-v0"."""
import math

import numpy as np

from .env import PushTEnv
from .geometry import GOAL_POSE, WORLD_SIZE, keypoints
from .view import drawing

try:
    import gymnasium
    from gymnasium.spaces import Box, Dict
except ImportError as error:
    raise ImportError("minidiff.pusht.gym needs Gymnasium: "
                      "pip install 'minidiff[gymnasium,pusht]'") from error

# The agent's centre stays within 0..512. It may push the T through a wall. No point of the T then
# gets farther out than the sum of the agent's radius, 15 px, the agent's way in a physics step,
# < 20 px, and the largest distance between two corners of the T, 142 px.
LOW, HIGH = -200.0, 712.0


class PushT(gymnasium.Env):
    """PushTEnv with the arguments, observations and info of gym-pusht, and the same physics.

    obs_type     "state": (5,) = agent x, y, block x, y (px), block angle in [0, 2 pi];
                 "environment_state_agent_pos": a dict of environment_state (16,), the block's eight
                 keypoints, and agent_pos (2,); "pixels": a picture, (height, width, 3) uint8;
                 "pixels_agent_pos": a dict of pixels and agent_pos.
    seeding      "modern": a seed gives the same start as in gym-pusht 0.1.8, by Gymnasium's
                 generator; "legacy": the same start as by default in eval.py.
    The other widths and heights are those of pictures, in px: observation_* of those observed,
    visualization_* of those that `render` returns.

    options of `reset`: "state" and "order", see PushTEnv, or gym-pusht's "reset_to_state".
    ValueError for an unknown name or number; RuntimeError without pymunk or, for pictures, pygame.

    What differs from gym-pusht: An action outside 0..512 is clipped before it is carried out. The
    observation spaces are larger, so that they also hold a T that is pushed through a wall.
    Pictures look different, so a policy trained on gym-pusht's pictures does not fit. render_mode
    is None unless given, and "human" shows every step. info has no n_contacts; that of `reset` has
    the coverage, too.
    """
    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 10}

    def __init__(self, obs_type="state", render_mode=None, observation_width=96,
                 observation_height=96, visualization_width=680, visualization_height=680,
                 seeding="modern"):
        self.observed = observation_width, observation_height
        self.rendered = visualization_width, visualization_height
        # without an end of its own: Gymnasium's TimeLimit counts the steps
        self.world = PushTEnv(seeding, max_steps=math.inf, render_mode=render_mode)
        self.render_mode = render_mode
        self.obs_type = obs_type
        least, most = np.array([[LOW] * 4 + [0.0], [HIGH] * 4 + [2 * math.pi]])
        agent_pos = Box(LOW, HIGH, (2,), np.float64)
        corners = Box(LOW, HIGH, (16,), np.float64)
        pixels = Box(0, 255, (observation_height, observation_width, 3), np.uint8)
        spaces = {
            "state": Box(least, most, dtype=np.float64),
            "environment_state_agent_pos": Dict(environment_state=corners, agent_pos=agent_pos),
            "pixels": pixels,
            "pixels_agent_pos": Dict(pixels=pixels, agent_pos=agent_pos)}
        if obs_type not in spaces:
            raise ValueError(f"obs_type must be one of {tuple(spaces)}, got {obs_type!r}")
        self.observation_space = spaces[obs_type]
        self.action_space = Box(0, WORLD_SIZE, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        options = dict(options or {})
        state = options.pop("reset_to_state", None)
        if state is not None:
            options |= {"state": state, "order": "legacy"}
        modern = self.world.seeding == "modern"
        _, info = self.world.reset(seed=self.np_random if modern else seed, options=options)
        return self._shown(), self._described(info)

    def step(self, action):
        _, reward, terminated, truncated, info = self.world.step(action)
        return self._shown(), reward, terminated, truncated, self._described(info)

    def render(self):
        picture = self.world.render(max(self.rendered))
        return None if picture is None else stretched(picture, *self.rendered)

    def close(self):
        self.world.close()

    def _shown(self):
        """The observation. With render_mode "human" the world is also shown in the window."""
        if self.render_mode == "human":
            self.render()
        state = self.world.state
        if self.obs_type == "state":
            return state
        if self.obs_type == "environment_state_agent_pos":
            return {"environment_state": keypoints(state[2:]).ravel(), "agent_pos": state[:2]}
        picture = drawing.frame(state, size=max(self.observed))
        pixels = stretched(picture, *self.observed)
        return pixels if self.obs_type == "pixels" else {"pixels": pixels, "agent_pos": state[:2]}

    def _described(self, info):
        motion = self.world.motion
        return info | {"pos_agent": motion[:2], "vel_agent": motion[5:],
                       "block_pose": self.world.pose, "goal_pose": np.array(GOAL_POSE)}


def stretched(picture, width, height):
    """A square picture, scaled to (height, width, 3) without interpolation."""
    size = len(picture)
    return picture[np.arange(height) * size // height][:, np.arange(width) * size // width]


gymnasium.register("minidiff/PushT-v0", "minidiff.pusht.gym:PushT", max_episode_steps=300)
