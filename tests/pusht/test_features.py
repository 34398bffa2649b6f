"""The frame of a plan has the symmetries of pushing a T, and the features say what they promise."""
from minidiff import demos
from minidiff.demos import from_frame, to_frame
from minidiff.pusht import features
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT, frame
from minidiff.pusht.geometry import GOAL_POSE, keypoints

import numpy as np
import pytest
from conftest import mirror
from hypothesis import given
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)
OF_THE_GOAL = range(2, 22)  # the features that tell where the goal is


def features_of(obs):
    return features.features(obs, frame(obs))


def random_obs(rng, rows=6, horizon=2):
    return rng.uniform(0, 512, (rows, horizon, 5)) * (1, 1, 1, 1, 2 * np.pi / 512)


def rotation(angle):
    """(2, 2), for row vectors: point @ rotation(angle)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s], [-s, c]])


# ---- the frame -----------------------------------------------------------------------------------

def test_the_frame_of_a_known_observation():
    """A T turned by 90 degrees has its stem along -x. The agent is below it (y points down), on its
    right; then above."""
    obs = np.array([[[300.0, 280, 300, 200, np.pi / 2]], [[300.0, 120, 300, 200, np.pi / 2]]])
    origin, axes = frame(obs)
    np.testing.assert_array_equal(origin, [[300, 280], [300, 120]])
    np.testing.assert_allclose(axes, [[[0, -1], [1, 0]], [[0, -1], [-1, 0]]], atol=1e-12)
    assert frame(np.float32(obs))[1].dtype == np.float32


@given(seeds)
def test_the_axes_are_orthonormal_and_the_agent_is_on_the_side_of_x(seed):
    obs = random_obs(np.random.default_rng(seed))
    origin, axes = frame(obs)
    products = axes.swapaxes(1, 2) @ axes
    np.testing.assert_allclose(products, np.tile(np.eye(2), (6, 1, 1)), atol=1e-12)
    to_agent = origin - obs[:, -1, 2:4]
    assert ((to_agent * axes[:, :, 0]).sum(1) >= 0).all()


@given(seeds)
def test_a_situation_and_its_mirror_image_are_one_in_the_frame(seed):
    """The goal is its own mirror image. So the features are equal, and one chunk stands for a plan
    and for the mirrored plan."""
    rng = np.random.default_rng(seed)
    obs = random_obs(rng, horizon=3)
    chunk = rng.normal(size=(6, 4, 2))
    image, _ = mirror(obs, chunk)
    np.testing.assert_allclose(features_of(image), features_of(obs), atol=1e-9)
    plan = from_frame(chunk, frame(obs))
    mirrored = from_frame(chunk, frame(image))
    np.testing.assert_allclose(mirrored, mirror(obs, plan)[1], atol=1e-9)


def test_each_earlier_observation_is_compared_with_the_last():
    obs = random_obs(np.random.default_rng(0), horizon=3)
    three = features_of(obs)
    for k in (0, 1):
        two = features_of(obs[:, [k, 2]])
        np.testing.assert_allclose(three[:, 38 + 5 * k:43 + 5 * k], two[:, 38:])


@given(seeds, st.floats(-10, 10))
def test_a_plan_turns_and_moves_with_the_block_and_the_agent(seed, angle):
    """Seen from the T, all but the goal stays the same; and so does the chunk of a plan."""
    rng = np.random.default_rng(seed)
    obs = random_obs(rng)
    plan = rng.uniform(0, 512, (6, 4, 2))
    shift = rng.uniform(-100, 100, 2)
    turn = rotation(angle)
    moved = np.concatenate([obs[..., :2] @ turn + shift, obs[..., 2:4] @ turn + shift,
                            obs[..., 4:] + angle], -1)
    chunk = to_frame(plan, frame(obs))
    np.testing.assert_allclose(to_frame(plan @ turn + shift, frame(moved)), chunk, atol=1e-9)
    before, after = (np.delete(features_of(o), OF_THE_GOAL, 1) for o in (obs, moved))
    np.testing.assert_allclose(after, before, atol=1e-9)


def test_a_step_seen_in_the_frame_is_that_of_the_moved_and_mirrored_world():
    """The physics have the symmetry that the frame supposes: the agent touches the T and turns it,
    wherever the T lies."""
    state = np.array([180.0, 300, 256, 220, 0.3])
    action = np.array([260.0, 290])
    turn = rotation(1.0)

    def turned(point):
        return (point - 256) @ turn + 256

    (image,), ((image_action,),) = mirror(state[None], action[None, None])
    cases = [(state, action, 1), (image, image_action, -1),
             (np.array([*turned(state[:2]), *turned(state[2:4]), 1.3]), turned(action), 1)]
    results = []
    for start, target, sense in cases:
        env = PushTEnv(state_order="exact")
        env.reset(options={"state": start})
        change = env.step(target)[0] - start
        _, (axes,) = frame(start[None, None])
        results.append([*(change[:2] @ axes), *(change[2:4] @ axes), sense * change[4]])
    assert abs(results[0][4]) > 1e-3
    np.testing.assert_allclose(results[1:], results[:1] * 2, atol=1e-9)


@pytest.mark.parametrize("px, side", [(0, 1), (-0.0005, 1), (-0.002, -1), (0.002, 1)])
def test_on_the_axis_of_the_stem_rounding_decides_nothing(px, side):
    """The frame is that of an agent on the right, whose axes turn like those of the world."""
    angle = 0.7
    across = np.array([np.cos(angle), np.sin(angle)])
    block = np.array([250.0, 130.0])
    agent = block + px * across + 80 * np.array([-np.sin(angle), np.cos(angle)])
    _, (axes,) = frame(np.array([[[*agent, *block, angle]]]))
    assert np.linalg.det(axes) == pytest.approx(side)


# ---- features ------------------------------------------------------------------------------------

def test_features_of_a_known_observation():
    """The T stands upright, the agent 60 px to its right. The agent moved by (1, 2), the T by
    (3, 4), from just below 2 pi."""
    before = [359, 238, 297, 196, 2 * np.pi - 0.1]
    now = [360, 240, 300, 200, 0]
    f = features_of(np.array([[before, now]], float))[0]
    assert f.shape == (43,)
    np.testing.assert_allclose(f[:6], [60, 40, -44, 56, np.sin(np.pi / 4), np.cos(np.pi / 4)])
    corners = keypoints(now[2:])
    to_goal = keypoints(GOAL_POSE) - corners
    to_agent = [360, 240] - corners
    np.testing.assert_allclose(f[6:22], np.tanh(to_goal / 15).ravel())
    np.testing.assert_allclose(f[22:38], np.tanh(to_agent / 15).ravel())
    np.testing.assert_allclose(f[38:], [1, 2, 3, 4, 0.1])


def test_features_see_row_by_row_the_observations_they_are_given():
    obs = random_obs(np.random.default_rng(2), horizon=4)
    f = features_of(obs)
    assert f.shape == (6, 38 + 3 * 5)
    np.testing.assert_array_equal(f[:, :38], features_of(obs[:, -1:]))
    np.testing.assert_array_equal(f[2:3], features_of(obs[2:3]))
    at_rest = features_of(np.repeat(obs[:, -1:], 2, 1))
    np.testing.assert_allclose(at_rest[:, 38:], 0, atol=1e-12)


def test_features_do_not_change_when_an_angle_turns_a_full_circle():
    obs = random_obs(np.random.default_rng(3))
    turned = obs.copy()
    turned[:, :, 4] += 2 * np.pi * np.array([[3], [-1], [0], [1], [2], [-5]])
    turned[:, 0, 4] += 2 * np.pi  # the observation before it, once more
    np.testing.assert_allclose(features_of(turned), features_of(obs), atol=1e-9)


def test_on_the_goal_every_way_to_the_goal_is_zero():
    f = features_of(np.array([[[50.0, 60.0, *GOAL_POSE]]]))[0]
    np.testing.assert_allclose(f[[*range(2, 5), *range(6, 22)]], 0, atol=1e-12)


def test_pusht_hands_the_method_these_features_in_this_frame():
    obs = random_obs(np.random.default_rng(4))
    task = features.PUSHT
    origin, axes = task.frame(obs)
    np.testing.assert_array_equal(origin, obs[:, -1, :2])
    np.testing.assert_array_equal(task.features(obs, (origin, axes)), features_of(obs))


def test_what_a_policy_does_may_be_demonstrated_to_another():
    """The world clips actions to its square; the file may hold what was asked for."""
    env = PushTEnv()
    state, _ = env.reset(seed=1)
    arrays = {"state": state[None], "action": np.array([[530.0, -20.0]]), "episode_ends": [1]}
    assert demos.check(arrays, PUSHT).action.tolist() == [[530.0, -20.0]]
    with pytest.raises(ValueError, match="'action' is out of range in row 0, column 1"):
        demos.check(arrays | {"action": np.array([[5.0, 2000.0]])}, PUSHT)


# ---- hindsight -----------------------------------------------------------------------------------

def test_in_hindsight_every_demonstration_ends_on_the_goal(arrays):
    moved = features.hindsight(demos.check(arrays, PUSHT))
    for end in moved.episode_ends:
        x, y, angle = moved.state[end - 1, 2:]
        assert (x, y) == pytest.approx(GOAL_POSE[:2])
        assert np.exp(1j * angle) == pytest.approx(np.exp(1j * GOAL_POSE[2]))


def test_hindsight_moves_each_demonstration_as_a_whole(arrays):
    """Agent, block and action keep their places in the frame; only the goal moves."""
    data = demos.check(arrays, PUSHT)
    moved = features.hindsight(data)
    seen, actions = demos.windows(data, 2, 4)
    seen_moved, actions_moved = demos.windows(moved, 2, 4)
    before, after = frame(seen), frame(seen_moved)
    np.testing.assert_allclose(demos.to_frame(actions_moved, after),
                               demos.to_frame(actions, before), atol=1e-3)
    agent = slice(0, 2), slice(22, 43)  # where the agent is, its corners, and what has moved
    for columns in agent:
        np.testing.assert_allclose(features_of(seen_moved)[:, columns],
                                   features_of(seen)[:, columns], atol=1e-4)
    assert (features_of(seen_moved)[:, 2:4] != features_of(seen)[:, 2:4]).any()


def test_hindsight_leaves_what_it_is_given_as_it_was(arrays):
    data = demos.check(arrays, PUSHT)
    copies = [array.copy() for array in data]
    once = features.hindsight(data)
    for array, copy in zip(data, copies):
        np.testing.assert_array_equal(array, copy)
    again = features.hindsight(once)
    np.testing.assert_allclose(again.state, once.state, atol=1e-9)
    np.testing.assert_allclose(again.action, once.action, atol=1e-9)
