"""What the method is told of PushT: the frame in which plans are expressed, and the features."""
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
    mirror image, a push from its left is the mirror image of one from its right. Seen from the T,
    along these axes, the agent is always on the right, and the goal is what moves. So what is
    learned from one push holds for all its translated, rotated and mirrored copies. Where the agent
    is less than a thousandth of a pixel from the axis of the stem, where rounding would decide, the
    frame is not mirrored.
    """
    agent, block, angle = np.split(obs[:, -1], [2, 4], 1)
    angle = angle.copy()  # contiguous: see geometry.keypoints
    x = np.hstack([np.cos(angle), np.sin(angle)])
    y = np.hstack([-np.sin(angle), np.cos(angle)])
    offset = ((agent - block) * x).sum(1, keepdims=True)  # (B, 1) px
    x = np.where(offset <= -1e-3, -x, x)
    return agent, np.stack([x, y], 2)


def features(obs, frame):
    """The features (B, 38 + 5 (obs_horizon - 1)) of observations, of any scale.

    obs: (B, obs_horizon, 5) = agent x, y, block x, y, angle. frame: that of obs, computed by the
    function `frame`. All vectors are relative to the T, along the axes of the frame:

        2 + 2   the positions of agent and goal; that of the goal also tells where the walls are
        2       sine and cosine of the angle by which the T still has to turn
        16      from each corner of the T to the same corner of the goal: tanh(vector / 15 px)
        16      from each corner of the T to the agent, likewise
        5       for each earlier observation: the displacements of agent and T since, and the angle
                by which the T has turned

    A small network learns faster if it need not compute the vectors at the corners itself. The tanh
    spreads out the last pixels, which separate success from failure and contact from none.
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
    """Vectors (B, 2) in the coordinates of the axes (B, 2, 2)."""
    return (vectors[:, None] @ axes)[:, 0]


def hindsight(demos):
    """The demonstrations, each moved as a whole so that it ends with the T exactly on the goal.

    Who demonstrates stops a little short of the goal: the last states of the human demonstrations
    cover 85 % of it (median). But each shows perfectly how to reach the pose that it ends in, and
    pushes do not depend on where that is (see `frame`). So that pose is taken for the goal, as in
    hindsight experience replay (Andrychowicz et al. 2017). Only the walls are a few pixels off.
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
    """A PushTEnv: imported here, as features need no pymunk."""
    from .env import PushTEnv
    return PushTEnv(**options)


def state_of(columns):
    """States (N, 5) from the agent's x, y and those of the T's corners, (N, 18), in the order of
    KEYPOINTS, as LeRobot's pusht_keypoints has them: each pose is that of the best fit.

    The squared distances are least where the corners are turned so, around their mean. ValueError
    where one is farther than 1 px from the pose; other widths come back as they are.
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


# The world clips actions to 0..512; a policy's plans may go farther, and are demonstrations too.
# The score of an episode is its highest reward, min(coverage / 0.95, 1).
PUSHT = Task("pusht", features, frame, state_range=np.array([[-100, 612]] * 4 + [[-1e4, 1e4]]),
             action_range=np.array([[-WORLD_SIZE, 2 * WORLD_SIZE]] * 2), relabel=hindsight,
             demos=EXPERT_DEMOS, make_env=make_env, max_steps=None, score=max,
             score_range=(0.0, 1.0),
             columns={"state": ("observation.state", "observation.environment_state"),
                      "action": ("action",)}, from_columns=state_of)
