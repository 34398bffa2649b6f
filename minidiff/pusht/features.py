"""What PushT tells the method: the frame in which the task is simple, and what is seen there, as features."""
import numpy as np

from ..demos import Task
from .geometry import GOAL_POSE, KEYPOINTS, WORLD_SIZE, keypoints


def frame(obs):
    """Where a plan is drawn: from the agent on, along the axes of the T, y down its stem and x across it, toward the side
    on which the agent is. Returns the origin (B, 2) and the axes (B, 2, 2), x and y as columns.

    How a T moves when it is pushed depends neither on where it lies nor on how it is turned; and as it is its own mirror
    image, a push on its left is one on its right, seen in a mirror. In this frame the T never moves, the agent is always
    on its right, and it is the goal that has to come. So what was learned from one push is known of all its copies.
    """
    agent, block, angle = np.split(obs[:, -1], [2, 4], 1)
    x, y = np.hstack([np.cos(angle), np.sin(angle)]), np.hstack([-np.sin(angle), np.cos(angle)])
    x = x * np.copysign(1, ((agent - block) * x).sum(1, keepdims=True))
    return agent, np.stack([x, y], 2)


def features(obs):
    """Observations (B, obs_horizon, 5) = agent x, y, block x, y, angle -> 38 features (B, 38), of any scale, and 5 more
    for each observation before the last.

    All is seen from the T, in the axes of `frame`: where the agent is and where the goal, which also tells where the
    walls are. A network this small learns faster if it need not work out how far each corner of the T has to go and how
    far each is from the agent; a tanh draws out the last few pixels, which decide between success and failure, and
    between a touch and none.
    """
    agent, axes = frame(obs)
    side = np.sign(np.linalg.det(axes))[:, None]  # -1 where we look into the mirror
    block, angle = obs[:, -1, 2:4], obs[:, -1, 4:]
    seen = lambda v: (v[:, None] @ axes)[:, 0]
    here, goal, turn = seen(agent - block), seen(GOAL_POSE[:2] - block), side * (GOAL_POSE[2] - angle)
    to_goal = keypoints(np.hstack([goal, turn])) - KEYPOINTS  # (B, 8, 2)
    to_agent = here[:, None] - KEYPOINTS
    near = np.tanh(np.concatenate([to_goal, to_agent], 1) / 15).reshape(len(obs), 32)
    parts = [here, goal, np.sin(turn), np.cos(turn), near]
    for before in obs[:, :-1].swapaxes(0, 1):  # what moved since, and how far the T has turned
        turned = np.arctan2(np.sin(angle - before[:, 4:]), np.cos(angle - before[:, 4:]))
        parts += [seen(agent - before[:, :2]), seen(block - before[:, 2:4]), side * turned]
    return np.concatenate(parts, 1)


PUSHT = Task("pusht", features, frame, state_range=np.array([[-100, 612]] * 4 + [[-1e4, 1e4]]),
             action_range=np.array([[0, WORLD_SIZE]] * 2))
