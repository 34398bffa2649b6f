"""The second task, which shares nothing with PushT: its world, and what is learned of it."""
from minidiff import demos, wall
from minidiff.beyond import OBJECTIVES, bind
from minidiff.policy import from_trainer
from minidiff.scoring import rollout
from minidiff.training import Config, Trainer

import laws
import numpy as np
import pytest

# ---- the world -----------------------------------------------------------------------------------

def walk(world, *goals):
    """Steps towards each of the goals in turn, until there or over -> what the last step gave."""
    result = None
    for goal in goals:
        while result is None or np.abs(world.position - goal).max() > 1e-9:
            result = world.step(np.array(goal))
            _, _, terminated, truncated, _ = result
            if terminated or truncated:
                return result
    return result


def started():
    world = wall.World()
    world.reset(seed=0)
    return world


def test_a_seed_is_a_start_near_the_same_place():
    starts = [wall.World().reset(seed=seed)[0] for seed in range(20)]
    assert np.array_equal(wall.World().reset(seed=3)[0], starts[3])
    assert len(np.unique(starts, axis=0)) == 20
    assert np.abs(np.subtract(starts, (0, -1))).max() < 0.35


def test_a_step_goes_towards_the_action_and_no_farther_than_the_speed():
    world = started()
    before = world.position
    position, reward, terminated, truncated, _ = world.step(before + [3.0, -4.0])
    np.testing.assert_allclose(position, before + np.array([0.6, -0.8]) * wall.SPEED)
    assert not (reward or terminated or truncated)
    near = position + [0.01, 0.02]
    with np.errstate(all="raise"):  # no step of length 0 divides by 0
        np.testing.assert_allclose(world.step(near)[0], near)
        np.testing.assert_allclose(world.step(near)[0], near)


@pytest.mark.parametrize("x, passes", [(-0.52, True), (-0.48, False), (0.0, False), (0.48, False),
                                       (0.52, True)])
def test_the_wall_ends_an_episode_from_its_left_end_to_its_right(x, passes):
    world = started()
    _, reward, terminated, truncated, info = walk(world, (x, -0.1), (x, 0.2))
    assert (reward, truncated) == (0.0, False)
    assert terminated == (not passes)
    assert info["x"] == pytest.approx(x)


def test_the_wall_is_met_where_the_way_crosses_it():
    """From one side of the wall's end to the other, in one step: the crossing decides."""
    world = started()
    walk(world, (0.6, -0.1))
    _, _, terminated, _, info = world.step(np.array([0.45, 0.1]))
    assert info["x"] == pytest.approx(0.525) and not terminated
    world = started()
    walk(world, (0.54, -0.1))
    _, _, terminated, _, info = world.step(np.array([0.39, 0.1]))
    assert info["x"] == pytest.approx(0.465) and terminated
    world.position = np.array([0.0, -0.1])
    assert world.step(np.zeros(2))[2]  # a step that ends on it touches it


@pytest.mark.parametrize("side", [-1, 1])
def test_past_the_wall_and_up_is_solved(side):
    world = started()
    _, reward, terminated, _, _ = walk(world, (0.9 * side, -0.5), (0.9 * side, 0.5), (0, 1))
    assert (reward, terminated) == (1.0, True)
    assert world.position[1] > 0.95


def test_an_episode_is_over_after_three_times_a_demonstration():
    class Down:
        """A policy that never gets there."""
        obs_horizon, action_horizon, task = 1, 5, wall.TASK

        def plan(self, obs, rng):
            return np.tile([0.0, -1.0], (len(obs), 16, 1))

    episode, = rollout.rollout(Down(), [0])
    assert (episode.steps, episode.score, episode.success) == (3 * wall.H, 0.0, False)


def test_a_picture_shows_the_point_where_it_is_the_wall_and_the_goal():
    world = started()
    before = world.render()
    world.position = np.array([1.0, 0.5])
    picture = world.render()
    assert picture.shape == (120, 120, 3) and picture.dtype == np.uint8
    row, column = np.argwhere((picture == (213, 94, 0)).all(2)).mean(0)
    assert abs(column - 59.5 * (1 + 1 / 1.2)) < 1 and abs(row - 59.5 * (1 - 0.5 / 1.2)) < 1
    assert (picture[59:61, 36:84] == 40).all() and not (picture[60, :30] == 40).any()
    goal = (picture == (0, 158, 115)).all(2).sum() * 0.02**2
    assert goal == pytest.approx(np.pi * 0.1**2, rel=0.1)
    assert tuple(picture[10, 60]) == (0, 158, 115) and (before[:60] == picture[:60]).mean() > 0.9


# ---- the task ------------------------------------------------------------------------------------

def test_the_policy_sees_where_the_point_is_and_plans_from_there():
    obs = np.random.default_rng(0).normal(size=(3, 3, 2))
    now = obs[:, -1]
    frame = wall.TASK.frame(obs)
    np.testing.assert_array_equal(wall.TASK.features(obs, frame), now)
    actions = now[:, None] + [[0.0, 0.0], [0.1, 0.0], [0.0, 0.2]]
    offsets = np.tile([[0.0, 0.0], [0.1, 0.0], [0.0, 0.2]], (3, 1, 1))
    np.testing.assert_allclose(demos.to_frame(actions, frame), offsets, atol=1e-12)


# ---- demonstrations ------------------------------------------------------------------------------

def test_demonstrations_pass_on_both_sides_and_their_actions_solve_it():
    data = demos.check(wall.demonstrations(200), wall.TASK)
    assert data.episode_ends.tolist() == list(range(wall.H, 200 * wall.H + 1, wall.H))
    assert isinstance(data, demos.Demos)
    sides = []
    for end in data.episode_ends:
        world = wall.World()
        world.reset()
        world.position = data.state[end - wall.H]
        for action in data.action[end - wall.H:end]:
            _, reward, terminated, _, _ = world.step(action)
            if terminated:
                break
        assert reward == 1
        sides.append(data.state[end - wall.H // 2, 0] > 0)
    laws.assert_close(np.mean(sides), 0.5, 0.5 / np.sqrt(200))


def test_demonstrations_are_the_same_each_time_and_others_by_another_seed():
    first, again, other = [wall.demonstrations(9, seed)["state"] for seed in (0, 0, 1)]
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_demonstrations_lead_to_the_goal_each_in_its_own_bow():
    data = demos.check(wall.demonstrations(200), wall.TASK)
    state, action = data.state.reshape(200, wall.H, 2), data.action.reshape(200, wall.H, 2)
    start = state[:, 0]
    assert np.abs(start - (0, -1)).max() < 0.25  # as World's
    np.testing.assert_allclose(action[:, -1], [(0, 1)] * 200, atol=1e-12)
    width = np.abs(state[:, wall.H // 2, 0] - start[:, 0] / 2)  # at half of the way
    laws.assert_close(width.mean(), 0.85, 0.05 / np.sqrt(200))
    laws.assert_close(width.std(), 0.05, 0.05 / np.sqrt(400))


# ---- what is learned -----------------------------------------------------------------------------

def trained(objective):
    config = Config(**wall.TASK.recipe)
    trainer = Trainer(config, wall.TASK, demos.own(wall.TASK), OBJECTIVES[objective].loss)
    for _ in trainer:
        pass
    return from_trainer(trainer, bind(OBJECTIVES[objective].samplers[0]))


def crossings(policy, n):
    """Where each of n plans from the middle, (0, -1), crosses the height of the wall (n,)."""
    obs = np.tile([0.0, -1.0], (n, 1, 1))
    paths = np.concatenate([obs, policy.plan(obs, np.random.default_rng(1))], 1)
    return np.array([np.interp(0, path[:, 1], path[:, 0]) for path in paths])


@pytest.mark.slow
def test_diffusion_passes_on_both_sides_where_regression_hits_the_wall():
    x = crossings(trained("simple"), 60)
    assert (np.abs(x) > wall.WALL).mean() > 0.9
    laws.assert_close((x > 0).mean(), 0.5, 0.5 / np.sqrt(60))
    x, = crossings(trained("mse"), 1)
    assert abs(x) < wall.WALL / 2
