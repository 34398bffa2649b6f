"""The PushT world: its physics, its geometry and its interface, one statement per test."""
import math
import pickle
import time

import numpy as np
import pymunk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidiff.pusht.env import (
    AGENT_RADIUS, BAR, CENTER_OF_GRAVITY, GOAL_POSE, KEYPOINTS, STEM, SUCCESS_COVERAGE, PushTEnv, coverage, keypoints,
)

few_seeds = settings(max_examples=25, deadline=None, derandomize=True)
seeds = given(st.integers(0, 2**32 - 1))  # not coordinates: round ones make ties, which the last bit decides
CENTRE = (100.0, 100.0, 256.0, 256.0, 1.0)  # a start without contact


def turn(angle, point):
    """R(angle) @ point."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * point[0] - s * point[1], s * point[0] + c * point[1]])


def from_goal_frame(dx, dy, angle=0.0, about=(0.0, 0.0)):
    """The pose of a T that lay on the goal, was turned about a body point, then moved in the goal's frame."""
    x, y = GOAL_POSE[:2] + turn(GOAL_POSE[2], np.array(about) - turn(angle, about) + (dx, dy))
    return x, y, GOAL_POSE[2] + angle


def start(state, **kwargs):
    env = PushTEnv(state_order="exact", **kwargs)
    env.reset(options={"state": state})
    return env


def free_start(rng):
    """A state with the agent clear of the T (which reaches 121 px from its origin) and the T clear of the walls."""
    block, direction = rng.uniform(220, 292, 2), rng.uniform(-np.pi, np.pi)
    agent = block + rng.uniform(140, 160) * turn(direction, (1, 0))
    return np.array([*agent, *block, rng.uniform(-np.pi, np.pi)])


def pushes(rng, env, steps, every=8):
    """Yield targets that lead the agent through the block again and again."""
    for i in range(steps):
        if i % every == 0:
            target = env.state[2:4] + rng.normal(0, 50, 2)
        yield np.clip(target + rng.normal(0, 5, 2), 0, 512)


def clear_of_walls(env):
    corners = keypoints(env.state[2:])
    return 12 < corners.min() and corners.max() < 500


def distance_to_t(point, pose):
    """Distance from a world point to the T at pose (0 inside)."""
    u, v = turn(-pose[2], np.subtract(point, pose[:2]))
    gaps = []
    for box in (np.array(BAR), np.array(STEM)):
        low, high = box.min(0), box.max(0)
        gaps.append(np.hypot(*np.maximum(0, np.maximum(low - (u, v), (u, v) - high))))
    return min(gaps)


# -- physics ---------------------------------------------------------------------------------------------------------


@few_seeds
@seeds
def test_nothing_moves_when_nothing_pushes(seed):
    env = start(free_start(np.random.default_rng(seed)))
    before = env.state
    for _ in range(10):
        after = env.step(before[:2])[0]
        np.testing.assert_array_equal(after, before)


def test_the_block_stops_dead_when_the_agent_leaves():
    env = start((100.0, 256.0, 256.0, 256.0, 0.0))
    for _ in range(8):
        env.step((250, 280))
    assert env.state[2] > 280  # it was pushed
    for _ in range(5):
        env.step((50, 280))
    left = env.state[2:]
    for _ in range(10):
        np.testing.assert_array_equal(env.step((20, 100))[0][2:], left)


def test_the_block_never_moves_without_contact():
    rng, free, moved = np.random.default_rng(0), 0, 0
    for _ in range(20):
        env = start(free_start(rng))
        position, velocity, touched = env.state[:2], np.zeros(2), True
        for target in np.repeat(rng.uniform(60, 452, (10, 2)), 3, axis=0):
            before, touched_before, gap = env.state, touched, np.inf
            for _ in range(10):
                velocity = velocity + (100 * (target - position) - 20 * velocity) * 0.01
                position = position + velocity * 0.01
                gap = min(gap, distance_to_t(position, before[2:]))
            after = env.step(target)[0]
            touched = gap < AGENT_RADIUS + 0.1
            moved += (after[2:] != before[2:]).any()
            # pymunk corrects an overlap one substep late, so a contact may still be felt in the next step
            if not touched and not touched_before and clear_of_walls(env):
                free += 1
                np.testing.assert_array_equal(after[2:], before[2:])
    assert free > 100 and moved > 100, (free, moved)


@few_seeds
@seeds
def test_the_agent_obeys_the_discretised_pd_law(seed):
    """Error e and velocity v follow v' = 0.8 v + e, e' = e - 0.01 v' (in pixels): a linear map, ten times an action."""
    rng = np.random.default_rng(seed)
    env = start(free_start(rng))
    law = np.linalg.matrix_power(np.array([[0.99, -0.008], [1.0, 0.8]]), 10)  # (e, v) after one action
    assert max(abs(np.linalg.eigvals(law))) < 1 and np.isreal(np.linalg.eigvals(law)).all()  # stable, no swing
    position, velocity = env.state[:2], np.zeros(2)
    for target in pushes(rng, env, 20):
        error, velocity = law @ np.array([target - position, velocity])
        position = target - error
        np.testing.assert_allclose(env.step(target)[0][:2], position, rtol=0, atol=1e-9)


@few_seeds
@seeds
def test_the_dynamics_have_the_mirror_symmetry_of_the_goal(seed):
    """(x, y) -> (512 - y, 512 - x), angle -> pi/2 - angle maps the goal to itself and trajectories to trajectories.

    Only rounding breaks it: 3e-12 px at the worst of 400 trajectories like these. It does not hold at the walls (they
    stand at 5 and 506, whose mirror is 6 and 507) nor for starts with the agent inside the T.
    """
    rng = np.random.default_rng(seed)
    state = free_start(rng)
    env, mirror = start(state), start([*(512 - state[1::-1]), *(512 - state[3:1:-1]), np.pi / 2 - state[4]])
    for target in pushes(rng, env, 12):
        if not clear_of_walls(env):
            break
        agent, block, angle = np.split(env.step(target)[0], [2, 4])
        mirrored = mirror.step(512 - target[::-1])[0]
        np.testing.assert_allclose(mirrored[:4], 512 - np.concatenate([agent[::-1], block[::-1]]), rtol=0, atol=1e-9)
        assert abs(math.remainder(mirrored[4] - (np.pi / 2 - angle[0]), 2 * np.pi)) < 1e-9


def test_the_walls_hold_the_block():
    env = start((256.0, 100.0, 256.0, 256.0, 0.0))
    for _ in range(40):
        env.step((256, 512))
    corners = keypoints(env.state[2:])
    assert 480 < corners[:, 1].max() < 507  # it came to the wall at 506, and not through it


def test_overlapping_starts_are_pushed_apart_as_in_gym_pusht():
    """The numbers are gym-pusht 0.1.8's, two steps after a reset that puts the agent inside the T."""
    env = PushTEnv()
    env.reset(options={"state": (213, 267, 209, 243, 0.1)})
    env.step((213, 267))
    expected = [213, 267, 213.03512373458594, 249.37834540481091, 0.10378547156928798]
    np.testing.assert_allclose(env.step((213, 267))[0], expected, rtol=0, atol=1e-6)


def test_a_long_push_ends_where_it_ends_in_gym_pusht():
    """The numbers are gym-pusht 0.1.8's; here they came out the same to the last bit."""
    env = PushTEnv()
    env.reset(options={"state": (100, 256, 256, 220, 2.0)})
    for i in range(80):  # a spiral inwards
        radius, angle = 160 - i, 0.3 * i + math.pi
        state, _, _, _, info = env.step((256 + radius * math.cos(angle), 256 + radius * math.sin(angle)))
    expected = [276.9865857825553, 327.7826802830295, 253.45620533092375, 317.9941028172648, 2.6709042547240727]
    np.testing.assert_allclose(state, expected, rtol=0, atol=1e-6)
    assert info["coverage"] == pytest.approx(0.5838494368147435, abs=1e-8)


# -- geometry --------------------------------------------------------------------------------------------------------


@few_seeds
@seeds
def test_keypoints_are_where_pymunk_has_the_corners(seed):
    rng = np.random.default_rng(seed)
    pose = rng.uniform((0, 0, -7), (512, 512, 7))
    body = pymunk.Body(1, 1)
    body.angle, body.position = pose[2], tuple(pose[:2])
    expected = [body.local_to_world(corner) for corner in BAR + STEM]
    np.testing.assert_allclose(keypoints(pose), expected, rtol=0, atol=1e-9)


def test_keypoints_broadcast_over_leading_axes():
    poses = np.random.default_rng(0).uniform(0, 500, (3, 5, 3))
    batch = keypoints(poses)
    assert batch.shape == (3, 5, 8, 2)
    np.testing.assert_array_equal(batch[2, 4], keypoints(poses[2, 4]))
    np.testing.assert_allclose(keypoints((0.0, 0.0, 0.0)), KEYPOINTS)


def test_coverage_is_one_on_the_goal_and_zero_far_away():
    assert coverage(GOAL_POSE) == 1.0
    assert coverage((20.0, 20.0, 0.0)) == 0.0
    assert coverage(from_goal_frame(120.0, 0.0)) == pytest.approx(0, abs=1e-12)  # side by side, touching


@pytest.mark.parametrize("d", [0.5, 5.25, 15.0, 30.0, 45.0, 119.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_coverage_of_a_sideways_shift_is_known(d, sign):
    area = (120 - d) * 30 + max(30 - d, 0) * 90
    assert coverage(from_goal_frame(sign * d, 0.0)) == pytest.approx(area / 6300, abs=1e-12)


@pytest.mark.parametrize("d, area", [(0.5, 6240), (10, 5100), (30, 2700), (60, 1800), (90, 900), (105, 450), (120, 0)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_coverage_of_a_lengthwise_shift_is_known(d, area, sign):
    """Up to 30 px the bars share 120 (30-d), the stems 30 (90-d), bar and stem 30 d; then bar and stem 900 at most."""
    assert coverage(from_goal_frame(0.0, sign * d)) == pytest.approx(area / 6300, abs=1e-12)


K = 15 * 2**0.5 - 15


@pytest.mark.parametrize(
    "angle, about, area",
    [
        (math.pi, (0, 0), 0),  # back to back
        (math.pi, (0, 15), 3600),  # the bar on itself
        (math.pi, (0, 75), 2700),  # the stem on itself
        (math.pi, (0, 115), 300),  # the ends of the stems
        (math.pi / 2, (0, 15), 3600),  # bars 900, bar on stem 1350, stem on bar 1350
        (-math.pi / 2, (0, 15), 3600),
        (math.pi / 4, (0, 15), 900 * 2**0.5 + 450 + 15 * K + 112.5 - K * K / 2),  # bars, bar on stem twice, stems
    ],
)
def test_coverage_of_a_rotation_is_known(angle, about, area):
    assert coverage(from_goal_frame(0.0, 0.0, angle, about)) == pytest.approx(area / 6300, abs=1e-12)


@few_seeds
@seeds
def test_coverage_agrees_with_counting_small_squares(seed):
    """Midpoints of a quarter-pixel grid over the goal, counted if the T covers them: independent of any clipping."""
    rng = np.random.default_rng(seed)
    dx, dy, angle = rng.normal(0, (25, 25, 0.8))
    covered = []
    for left, right, low, high in ((-60, 60, 0, 30), (-15, 15, 30, 120)):
        grid = np.stack(np.meshgrid(np.arange(left, right, 0.25) + 0.125, np.arange(low, high, 0.25) + 0.125), -1)
        u, v = np.moveaxis((grid - (dx, dy)) @ np.array([turn(angle, (1, 0)), turn(angle, (0, 1))]).T, -1, 0)
        covered.append(((abs(u) < 60) & (0 < v) & (v < 30)) | ((abs(u) < 15) & (30 < v) & (v < 120)))
    share = np.mean(np.concatenate([c.ravel() for c in covered]))
    assert coverage(from_goal_frame(dx, dy, angle)) == pytest.approx(share, abs=3e-3)


@few_seeds
@seeds
def test_coverage_has_the_symmetries_of_an_overlap(seed):
    """It has period 2 pi, is the same in the mirror, and the T covers the goal as much as the goal covers the T."""
    dx, dy, angle = np.random.default_rng(seed).normal(0, (30, 30, 1.0))
    x, y, theta = from_goal_frame(dx, dy, angle)
    expected = coverage((x, y, theta))
    assert 0 <= expected <= 1
    assert coverage((x, y, theta + 2 * math.pi)) == pytest.approx(expected, abs=1e-12)
    assert coverage((512 - y, 512 - x, math.pi / 2 - theta)) == pytest.approx(expected, abs=1e-12)
    assert coverage(from_goal_frame(*turn(-angle, (-dx, -dy)), -angle)) == pytest.approx(expected, abs=1e-12)


# -- starts ----------------------------------------------------------------------------------------------------------


def turned_about_centre_of_gravity(x, y, angle):
    """Where the origin of a T comes to lie that stood upright at x, y and was turned by angle."""
    return np.array([x, y]) + CENTER_OF_GRAVITY - turn(angle, CENTER_OF_GRAVITY)


def test_legacy_seed_100000_gives_the_published_start():
    state, info = PushTEnv().reset(seed=100000)
    assert tuple(state[:2]) == (235, 124) and info == {"coverage": 0.0}
    np.testing.assert_allclose(state[2:4], turned_about_centre_of_gravity(335, 128, state[4]), atol=1e-9)
    np.testing.assert_allclose(state[2:], [299.61288531, 145.20158073, 5.37825788], atol=1e-8)


def test_modern_seeds_draw_from_default_rng():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        numbers = [rng.integers(low, low + wide) for low, wide in ((50, 400), (50, 400), (100, 300), (100, 300))]
        state = PushTEnv(seeding="modern").reset(seed=seed)[0]
        expected = PushTEnv().reset(options={"state": [*numbers, rng.uniform(-np.pi, np.pi)]})[0]
        np.testing.assert_array_equal(state, expected)


def test_state_orders_differ_by_the_turn_about_the_centre_of_gravity():
    env = PushTEnv(state_order="exact")
    np.testing.assert_allclose(env.reset(options={"state": CENTRE})[0], CENTRE, rtol=0, atol=1e-12)
    legacy = env.reset(options={"state": CENTRE, "order": "legacy"})[0]
    np.testing.assert_allclose(legacy[2:4], turned_about_centre_of_gravity(256, 256, 1.0), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(PushTEnv().reset(options={"state": CENTRE})[0], legacy)
    np.testing.assert_array_equal(env.reset(seed=1)[0], PushTEnv().reset(seed=1)[0])  # drawn starts are always legacy


def test_a_reset_without_seed_goes_on_with_the_generator():
    for seeding in ("legacy", "modern"):
        a, b = PushTEnv(seeding=seeding), PushTEnv(seeding=seeding)
        first = a.reset(seed=7)[0]
        b.reset(seed=7)
        second = a.reset()[0]
        assert (second != first).any()
        np.testing.assert_array_equal(second, b.reset()[0])
        assert (PushTEnv(seeding=seeding).reset()[0] != PushTEnv(seeding=seeding).reset()[0]).any()


def test_the_same_seed_and_actions_give_the_same_episode():
    a, b = PushTEnv(), PushTEnv()
    b.reset(seed=1)
    b.step((300, 300))  # an earlier episode leaves no trace
    np.testing.assert_array_equal(a.reset(seed=4)[0], b.reset(seed=4)[0])
    for target in pushes(np.random.default_rng(4), a, 60):
        np.testing.assert_array_equal(a.step(target)[0], b.step(target)[0])


# -- snapshots -------------------------------------------------------------------------------------------------------


@settings(few_seeds, max_examples=8)
@seeds
def test_a_restored_snapshot_has_the_same_future_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    env = PushTEnv()
    env.reset(seed=seed % 1000)
    for target in pushes(rng, env, 20 + seed % 20):
        env.step(target)
    snapshot = env.snapshot()
    now, future = env.state, list(pushes(rng, env, 30))
    other = PushTEnv(state_order="exact", seeding="modern")
    np.testing.assert_array_equal(other.restore(pickle.loads(pickle.dumps(snapshot))), now)
    expected = [env.step(target)[0] for target in future]
    np.testing.assert_array_equal([other.step(target)[0] for target in future], expected)
    np.testing.assert_array_equal(env.restore(snapshot), now)
    np.testing.assert_array_equal([env.step(target)[0] for target in future], expected)


def test_positions_and_velocities_alone_are_not_a_snapshot():
    """Why a snapshot is a history: without what pymunk keeps of past contacts, the same push ends elsewhere."""
    env = start((120.0, 300.0, 256.0, 256.0, 0.4))
    for _ in range(2):
        env.step((400, 290))  # now in the middle of a push
    copy = start(CENTRE)
    copy._agent.position, copy._velocity = env._agent_xy, env._velocity
    copy._block.angle, copy._block.position = env._pose[2], env._pose[:2]
    copy._block.velocity, copy._block.angular_velocity = env._block.velocity, env._block.angular_velocity
    copy._look()
    np.testing.assert_allclose(copy.state, env.state, rtol=0, atol=1e-12)
    env.step((400, 290)), copy.step((400, 290))
    assert abs(copy.state - env.state).max() > 1e-3


def test_a_snapshot_keeps_the_state_order_and_the_number_of_steps():
    env = start(CENTRE, max_steps=4)
    for _ in range(3):
        assert not env.step((50, 50))[3]
    other = PushTEnv(max_steps=4, state_order="legacy")
    np.testing.assert_array_equal(other.restore(env.snapshot()), env.state)
    assert other.step((50, 50))[3]


# -- interface -------------------------------------------------------------------------------------------------------


def test_observations_hold_what_they_promise():
    env, points = start(CENTRE), start(CENTRE, obs_type="keypoints")
    observation = env.step((120, 120))[0]
    assert observation.shape == (5,) and observation.dtype == np.float64
    wide = points.step((120, 120))[0]
    assert wide.shape == (18,) and wide.dtype == np.float64
    np.testing.assert_array_equal(wide, np.concatenate([keypoints(observation[2:]).ravel(), observation[:2]]))
    assert 0 <= start((50.0, 50.0, 256.0, 256.0, -1.0)).state[4] < 2 * math.pi


@pytest.mark.parametrize("covered, terminated", [(0.9, False), (0.949, False), (0.951, True), (1.0, True)])
def test_reward_and_termination_follow_the_coverage(covered, terminated):
    shift = 6300 * (1 - covered) / 120
    env = start((20.0, 20.0, *from_goal_frame(shift, 0.0)))
    _, reward, done, truncated, info = env.step((20, 20))
    assert info["coverage"] == pytest.approx(covered, abs=1e-9)
    assert reward == pytest.approx(min(covered / SUCCESS_COVERAGE, 1), abs=1e-9)
    assert done is terminated and truncated is False


def test_an_episode_is_truncated_at_max_steps():
    env = PushTEnv(max_steps=3)
    for seed in (0, 1):
        env.reset(seed=seed)
        assert [env.step((30, 30))[3] for _ in range(4)] == [False, False, True, True]


def test_actions_outside_the_world_are_clipped():
    a, b = start(CENTRE), start(CENTRE)
    for wild, tame in (((-900, 100), (0, 100)), ((1e9, 600), (512, 512)), ((3, -1e-3), (3, 0))):
        np.testing.assert_array_equal(a.step(wild)[0], b.step(tame)[0])


def test_actions_may_be_lists_and_arrays_of_any_type():
    results = [start(CENTRE).step(a)[0] for a in ([7, 9], (7.0, 9.0), np.array([7, 9]), np.float32([7, 9]))]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("action", [None, 3.0, (1, 2, 3), [[1, 2]], (1, math.nan), (math.inf, 1), "ab", {}, (1, None)])
def test_a_bad_action_is_refused(action):
    env = start(CENTRE)
    with pytest.raises(ValueError, match="action must be 2"):
        env.step(action)


@pytest.mark.parametrize("state", [None, (1, 2, 3), np.zeros((1, 5)), (1, 2, 3, 4, math.nan), (1, 2, 3, 4, -math.inf)])
def test_a_bad_state_is_refused(state):
    with pytest.raises(ValueError, match="state must be 5"):
        PushTEnv().reset(options={"state": state})


@pytest.mark.parametrize(
    "kwargs",
    [dict(seeding="new"), dict(state_order="position"), dict(obs_type="pixels"), dict(render_mode="ansi"),
     dict(max_steps=0), dict(max_steps=math.nan)],
)
def test_unknown_settings_are_refused_by_name(kwargs):
    (name, value), = kwargs.items()
    with pytest.raises(ValueError, match=name) as error:
        PushTEnv(**kwargs)
    assert repr(value) in str(error.value)


def test_unknown_options_are_refused_by_name():
    with pytest.raises(ValueError, match="options.*'sate'"):
        PushTEnv().reset(options={"sate": CENTRE})
    with pytest.raises(ValueError, match="order.*'angle'"):
        PushTEnv().reset(options={"state": CENTRE, "order": "angle"})
    with pytest.raises(ValueError, match="pose"):
        keypoints([1.0, 2.0])


@pytest.mark.parametrize("use", [lambda e: e.step((1, 2)), lambda e: e.snapshot(), lambda e: e.state])
def test_nothing_works_before_the_first_reset(use):
    with pytest.raises(RuntimeError, match="reset"):
        use(PushTEnv())


def test_rendering_gives_a_picture_or_says_what_is_missing():
    with pytest.raises(RuntimeError, match="render_mode"):
        start(CENTRE).render()
    pytest.importorskip("pygame")
    env = start(CENTRE, render_mode="rgb_array")
    picture = env.render()
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    env.step((300, 100))
    assert (env.render() != picture).any()  # the agent moved, and its target is shown
    env.close()


def test_a_step_takes_well_under_a_millisecond():
    env, best = start((20.0, 20.0, *from_goal_frame(3.0, 4.0, 0.2))), math.inf  # near the goal: the slowest coverage
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(40):
            env.step((20, 20))
        best = min(best, (time.perf_counter() - begin) / 40)
    assert best < 1e-3  # some 40 us on the machine this was written on
