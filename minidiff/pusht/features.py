"""What PushT tells the method: how an observation becomes features, where actions are measured from, its symmetry."""
import numpy as np

from ..demos import Task
from .env import GOAL_POSE, WORLD_SIZE, keypoints


def features(obs):
    """Observations (B, obs_horizon, 5) = agent x, y, block x, y, angle -> 61 features (B, 61), of any scale.

    A network this small learns faster from what it would otherwise have to work out: the angle as a point on the
    circle, where the agent is as the block sees it, and how far each corner of the T has to go, which near the goal
    is drawn out by a tanh, since the last few pixels decide between success and failure.
    """
    now, before = obs[:, -1], obs[:, max(-2, -obs.shape[1])]
    agent, block, angle = now[:, :2], now[:, 2:4], now[:, 4]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    turned = (angle - before[:, 4] + np.pi) % (2 * np.pi) - np.pi
    dx, dy = (agent - block).T[:, :, None]
    corners = keypoints(now[:, 2:])  # (B, 8, 2)
    to_goal = (corners - keypoints(GOAL_POSE)).reshape(len(now), -1)  # (B, 16)
    to_agent = (corners - agent[:, None]).reshape(len(now), -1)  # (B, 16)
    return np.concatenate([
        agent, block, sin, cos,  # 6: where things are
        now[:, :4] - before[:, :4], turned[:, None],  # 5: how they moved in the last step
        cos * dx + sin * dy, cos * dy - sin * dx,  # 2: the agent in the block's frame
        to_goal / 100, np.tanh(to_goal / 15), to_agent], 1)  # 48: the T's corners


def origin(obs):
    """Actions are measured from the agent."""
    return obs[:, -1, :2]


def mirror(obs, actions):
    """The reflection (x, y) -> (512-y, 512-x), angle -> pi/2 - angle, which leaves the goal where it is."""
    flip = lambda xy: WORLD_SIZE - xy[..., ::-1]
    reflected = np.concatenate([flip(obs[..., :2]), flip(obs[..., 2:4]), (np.pi / 2 - obs[..., 4:]) % (2 * np.pi)], -1)
    return reflected.astype(obs.dtype), flip(actions)


PUSHT = Task("pusht", features, origin, mirror,
             state_range=np.array([[-100, 612]] * 4 + [[-1e4, 1e4]]), action_range=np.array([[0, WORLD_SIZE]] * 2))
