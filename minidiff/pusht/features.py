"""All that the method is told of PushT: the frame of its plans, the features, and the Task."""
import numpy as np

from ..demos import Demos, Task
from . import EXPERT_DEMOS
from .geometry import GOAL_POSE, KEYPOINTS, WORLD_SIZE, keypoints, to_body, to_world


def frame(obs):
    """The coordinate frame of a plan: its origin (B, 2) and its axes (B, 2, 2), x and y as columns.

    obs: (B, obs_horizon, 5), of which the last observation counts. The origin is the agent. The
    axes are those of the T: y points from its bar down its stem, x across the stem, towards the
    side on which the agent is.

    How a pushed T moves depends neither on its position nor on its angle. And as the T is its own
    mirror image, a push from its left is the mirror image of one from its right. In this frame the
    agent is always on the side of positive x. So what is learned from one push holds for all its
    translated, rotated and mirrored copies. Where the agent is less than a thousandth of a pixel
    from the axis of the stem, rounding would decide about the side; there the frame is not
    mirrored.
    """
    agent, block, angle = np.split(obs[:, -1], [2, 4], 1)
    angle = angle.copy()  # contiguous: see geometry.keypoints
    x = np.hstack([np.cos(angle), np.sin(angle)])
    y = np.hstack([-np.sin(angle), np.cos(angle)])
    offset = ((agent - block) * x).sum(1, keepdims=True)  # (B, 1) px
    x = np.where(offset <= -1e-3, -x, x)
    return agent, np.stack([x, y], 2)


def features(obs, frame):
    """The features (B, 38 + 5 (obs_horizon - 1)) of observations, in px, radians or tanh.

    obs: (B, obs_horizon, 5) = agent x, y, block x, y, angle. frame: that of obs, computed by the
    function `frame`. All vectors are relative to the T, along the axes of the frame:

        2 + 2   the positions of the agent and of the goal, px; with the angle, the position of the
                goal also tells where the walls are
        2       sine and cosine of the angle by which the T still has to turn
        16      tanh(vector / 15 px), from each corner of the T to the same corner of the goal
        16      the same, from each corner of the T to the agent
        5       for each earlier observation: how far agent and T have moved since, px, and the
                angle by which the T has turned, rad

    A small network learns faster if it need not compute the vectors at the corners itself. The tanh
    gives the most resolution to short vectors: the last pixels decide about success and contact.
    """
    agent, axes = frame
    side = np.sign(np.linalg.det(axes))[:, None]  # -1 where the frame is mirrored
    block = obs[:, -1, 2:4]
    angle = obs[:, -1, 4:]
    to_agent = along(axes, agent - block)
    to_goal = along(axes, GOAL_POSE[:2] - block)
    turn = side * (GOAL_POSE[2] - angle)
    corners_to_goal = keypoints(np.hstack([to_goal, turn])) - KEYPOINTS  # (B, 8, 2)
    corners_to_agent = to_agent[:, None] - KEYPOINTS  # (B, 8, 2)
    corners = np.tanh(np.concatenate([corners_to_goal, corners_to_agent], 1) / 15)
    parts = [to_agent, to_goal, np.sin(turn), np.cos(turn), corners.reshape(len(obs), 32)]
    for earlier in obs[:, :-1].swapaxes(0, 1):
        difference = angle - earlier[:, 4:]
        turned = np.arctan2(np.sin(difference), np.cos(difference))  # in [-pi, pi]
        parts.append(along(axes, agent - earlier[:, :2]))
        parts.append(along(axes, block - earlier[:, 2:4]))
        parts.append(side * turned)
    return np.concatenate(parts, 1)


def along(axes, vectors):
    """The coordinates of vectors (B, 2) along axes (B, 2, 2)."""
    return (vectors[:, None] @ axes)[:, 0]


def hindsight(demos):
    """The demonstrations, each moved as a whole so that it ends with the T exactly on the goal.

    A demonstration stops a little short of the goal: in the last states of the human ones 85 % of
    it is covered (median). But each shows exactly how to reach its own last pose, and pushes do not
    depend on where this pose is (see `frame`). So this pose is taken for the goal, as in hindsight
    experience replay (Andrychowicz et al. 2017). The error is that the walls move along, by a few
    pixels.
    """
    state = demos.state.astype(np.float64)
    action = demos.action.astype(np.float64)
    starts = [0, *demos.episode_ends[:-1]]
    for start, end in zip(starts, demos.episode_ends):
        reached = state[end - 1, 2:].copy()
        for points in (state[start:end, :2], state[start:end, 2:4], action[start:end]):
            moved = to_world(to_body(points @ [1, 1j], reached), np.array(GOAL_POSE))
            points[:] = np.stack([moved.real, moved.imag], 1)
        state[start:end, 4] += GOAL_POSE[2] - reached[2]
    return Demos(state, action, demos.episode_ends)


def make_env(**options):
    """A PushTEnv. It is imported here, so that the features need no pymunk."""
    from .env import PushTEnv
    return PushTEnv(**options)


def state_of(columns):
    """States (N, 5) from rows (N, 18): x, y of the agent, then of the T's corners in the order of
    KEYPOINTS, as LeRobot's pusht_keypoints has them. Rows of another width are returned unchanged.

    The pose is the rigid motion of KEYPOINTS to the corners with the least sum of squared
    distances: it maps mean to mean, and its angle is that of sum (corner - mean) conj(keypoint -
    mean), points as complex numbers. ValueError where a corner is then off by more than 1 px.
    """
    if columns.shape[1] != 18:
        return columns
    corners, body = columns[:, 2:].reshape(-1, 8, 2) @ [1, 1j], KEYPOINTS @ [1, 1j]
    middle = corners.mean(1)
    angle = np.angle((corners - middle[:, None]) @ (body - body.mean()).conj()) % (2 * np.pi)
    origin = middle - np.exp(1j * angle) * body.mean()
    pose = np.stack([origin.real, origin.imag, angle], 1)
    fits = (np.abs(to_world(body, pose[:, None]) - corners) <= 1).all(1)
    if not fits.all():
        raise ValueError(f"the corners in row {np.argmin(fits)} are not those of the T")
    return np.hstack([columns[:, :2], pose])


# action_range is wider than 0..512, to which the world clips actions: a policy's actions may lie
# outside, and they may be recorded as demonstrations, too.
# The score of an episode is its highest reward, that is min(highest coverage / 0.95, 1).
PUSHT = Task("pusht", features, frame, state_range=np.array([[-100, 612]] * 4 + [[-1e4, 1e4]]),
             action_range=np.array([[-WORLD_SIZE, 2 * WORLD_SIZE]] * 2), relabel=hindsight,
             demos=EXPERT_DEMOS, make_env=make_env, max_steps=None, score=max,
             score_range=(0.0, 1.0),
             columns={"state": ("observation.state", "observation.environment_state"),
                      "action": ("action",)}, from_columns=state_of)
