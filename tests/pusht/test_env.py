"""The PushT world: its physics, its starts and its interface, one statement per test."""
from minidiff.pusht import env as environment
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.geometry import (
    AGENT_RADIUS,
    CENTER_OF_GRAVITY,
    SUCCESS_COVERAGE,
    distance,
    keypoints,
    to_body,
)
from minidiff.pusht.study.disturbances import DisturbedEnv

import copy
import functools
import math
import pickle
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_geometry import from_goal_frame, turn

few_seeds = settings(max_examples=25)
seeds = given(st.integers(0, 2**32 - 1))  # not coordinates: round ones make ties
CENTRE = (100.0, 100.0, 256.0, 256.0, 1.0)  # a start without contact


def start(state, **options):
    env = PushTEnv(state_order="exact", **options)
    env.reset(options={"state": state})
    return env


def free_start(rng):
    """A state with the agent clear of the T (which reaches 121 px from its origin) and the T clear
    of the walls."""
    block = rng.uniform(220, 292, 2)
    direction = rng.uniform(-np.pi, np.pi)
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


# ---- physics -------------------------------------------------------------------------------------

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
    rng = np.random.default_rng(0)
    free, moved = 0, 0
    for _ in range(20):
        env = start(free_start(rng))
        position = env.state[:2]
        velocity = np.zeros(2)
        touched = True
        for target in np.repeat(rng.uniform(60, 452, (10, 2)), 3, axis=0):
            before, touched_before = env.state, touched
            gap = np.inf  # between the agent's centre and the T
            for _ in range(10):
                velocity = velocity + (100 * (target - position) - 20 * velocity) * 0.01
                position = position + velocity * 0.01
                gap = min(gap, distance(to_body(complex(*position), before[2:])))
            after = env.step(target)[0]
            touched = gap < AGENT_RADIUS + 0.1
            if (after[2:] != before[2:]).any():
                moved += 1
            # pymunk corrects an overlap one substep late: a contact may act in the next step, too
            if not touched and not touched_before and clear_of_walls(env):
                free += 1
                np.testing.assert_array_equal(after[2:], before[2:])
    assert free > 100 and moved > 100, (free, moved)


@few_seeds
@seeds
def test_the_agent_obeys_the_discretised_pd_law(seed):
    """Error e and velocity v follow v' = 0.8 v + e, e' = e - 0.01 v' (in pixels): a linear map, ten
    times an action."""
    rng = np.random.default_rng(seed)
    env = start(free_start(rng))
    substep = np.array([[0.99, -0.008], [1.0, 0.8]])  # of (e, v)
    law = np.linalg.matrix_power(substep, 10)
    eigenvalues = np.linalg.eigvals(law)
    assert max(abs(eigenvalues)) < 1 and np.isreal(eigenvalues).all()  # stable, no swing
    position = env.state[:2]
    velocity = np.zeros(2)
    for target in pushes(rng, env, 20):
        error, velocity = law @ np.array([target - position, velocity])
        position = target - error
        np.testing.assert_allclose(env.step(target)[0][:2], position, rtol=0, atol=1e-9)


@few_seeds
@seeds
def test_the_dynamics_have_the_mirror_symmetry_of_the_goal(seed):
    """(x, y) -> (512 - y, 512 - x), angle -> pi/2 - angle maps the goal to itself and trajectories
    to trajectories.

    Only rounding breaks it: 3e-12 px at the worst of 400 trajectories like these. It does not hold
    at the walls (they stand at 5 and 506, whose mirror is 6 and 507) nor for starts with the agent
    inside the T.
    """
    rng = np.random.default_rng(seed)
    state = free_start(rng)
    env = start(state)
    mirror = start([*(512 - state[1::-1]), *(512 - state[3:1:-1]), np.pi / 2 - state[4]])
    for target in pushes(rng, env, 12):
        agent, block, angle = np.split(env.step(target)[0], [2, 4])
        mirrored = mirror.step(512 - target[::-1])[0]
        if not clear_of_walls(env):  # the step may have ended at one
            break
        expected = 512 - np.concatenate([agent[::-1], block[::-1]])
        np.testing.assert_allclose(mirrored[:4], expected, rtol=0, atol=1e-9)
        turned = mirrored[4] - (np.pi / 2 - angle[0])
        assert abs(math.remainder(turned, 2 * np.pi)) < 1e-9


def test_the_walls_hold_the_block():
    env = start((256.0, 100.0, 256.0, 256.0, 0.0))
    for _ in range(60):
        env.step((256, 512))
    lowest = keypoints(env.state[2:])[:, 1].max()
    # the wall at 506 is 4 px thick, and pymunk lets shapes overlap by 0.1 px
    assert lowest == pytest.approx(506 - 2 + 0.1, abs=1e-6)


def test_overlapping_starts_are_pushed_apart_as_in_gym_pusht():
    """The numbers are gym-pusht 0.1.8's, two steps after a reset that puts the agent inside the
    T."""
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
        target = 256 + turn(0.3 * i + math.pi, (160 - i, 0))
        state, _, _, _, info = env.step(target)
    expected = [276.9865857825553, 327.7826802830295,
                253.45620533092375, 317.9941028172648, 2.6709042547240727]
    np.testing.assert_allclose(state, expected, rtol=0, atol=1e-6)
    assert info["coverage"] == pytest.approx(0.5838494368147435, abs=1e-8)


def test_simulate_is_step_to_the_last_bit():
    rng = np.random.default_rng(0)
    a, b = PushTEnv(), PushTEnv()
    for env in (a, b):
        env.reset(options={"state": [*CENTRE[:4], -0.1]})  # the angle will pass 0, from below
    actions = a.state[2:4] + rng.normal(0, 120, (60, 2))
    actions[0] = (-50, 700)  # is clipped
    np.testing.assert_array_equal(a.simulate(actions), [b.step(action)[0] for action in actions])
    assert a.snapshot() == b.snapshot()
    assert a.simulate(np.zeros((0, 2))).shape == (0, 5)


# ---- starts --------------------------------------------------------------------------------------

def turned_about_centre_of_gravity(x, y, angle):
    """Where the origin of a T comes to lie that stood upright at x, y and was turned by angle."""
    return np.array([x, y]) + CENTER_OF_GRAVITY - turn(angle, CENTER_OF_GRAVITY)


def test_legacy_seed_100000_gives_the_published_start():
    state, info = PushTEnv().reset(seed=100000)
    assert tuple(state[:2]) == (235, 124) and info == {"coverage": 0.0, "is_success": False}
    origin = turned_about_centre_of_gravity(335, 128, state[4])
    np.testing.assert_allclose(state[2:4], origin, atol=1e-9)
    np.testing.assert_allclose(state[2:], [299.61288531, 145.20158073, 5.37825788], atol=1e-8)


def test_modern_seeds_are_sampled_by_default_rng():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        agent = rng.integers(50, 450), rng.integers(50, 450)
        block = rng.integers(100, 400), rng.integers(100, 400)
        options = {"state": [*agent, *block, rng.uniform(-np.pi, np.pi)]}
        state = PushTEnv(seeding="modern").reset(seed=seed)[0]
        np.testing.assert_array_equal(state, PushTEnv().reset(options=options)[0])


def test_state_orders_differ_by_the_turn_about_the_centre_of_gravity():
    env = PushTEnv(state_order="exact")
    exact = env.reset(options={"state": CENTRE})[0]
    np.testing.assert_allclose(exact, CENTRE, rtol=0, atol=1e-12)
    legacy = env.reset(options={"state": CENTRE, "order": "legacy"})[0]
    origin = turned_about_centre_of_gravity(256, 256, 1.0)
    np.testing.assert_allclose(legacy[2:4], origin, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(PushTEnv().reset(options={"state": CENTRE})[0], legacy)


def test_sampled_starts_are_set_the_legacy_way():
    exact = PushTEnv(state_order="exact").reset(seed=1)[0]
    np.testing.assert_array_equal(exact, PushTEnv().reset(seed=1)[0])


def test_a_reset_without_seed_goes_on_with_the_generator():
    for seeding in ("legacy", "modern"):
        a, b = PushTEnv(seeding=seeding), PushTEnv(seeding=seeding)
        first = a.reset(seed=7)[0]
        b.reset(seed=7)
        second = a.reset()[0]
        assert (second != first).any()
        np.testing.assert_array_equal(second, b.reset()[0])
        unseeded = [PushTEnv(seeding=seeding).reset()[0] for _ in range(2)]
        assert (unseeded[0] != unseeded[1]).any()


def test_the_same_seed_and_actions_give_the_same_episode():
    a, b = PushTEnv(), PushTEnv()
    b.reset(seed=1)
    b.step((300, 300))  # an earlier episode leaves no trace
    np.testing.assert_array_equal(a.reset(seed=4)[0], b.reset(seed=4)[0])
    for target in pushes(np.random.default_rng(4), a, 60):
        np.testing.assert_array_equal(a.step(target)[0], b.step(target)[0])


# ---- snapshots -----------------------------------------------------------------------------------

@settings(few_seeds, max_examples=8)
@seeds
def test_a_restored_snapshot_has_the_same_future_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    env = PushTEnv()
    env.reset(seed=seed % 1000)
    for target in pushes(rng, env, 20 + seed % 20):
        env.step(target)
    snapshot = env.snapshot()
    now = env.state
    future = list(pushes(rng, env, 30))
    other = PushTEnv(state_order="exact", seeding="modern")
    np.testing.assert_array_equal(other.restore(pickle.loads(pickle.dumps(snapshot))), now)
    expected = [env.step(target)[0] for target in future]
    np.testing.assert_array_equal([other.step(target)[0] for target in future], expected)
    np.testing.assert_array_equal(env.restore(snapshot), now)
    np.testing.assert_array_equal([env.step(target)[0] for target in future], expected)


@pytest.mark.parametrize("make", [PushTEnv, functools.partial(DisturbedEnv, kick_block=(30, 20),
                                                              obs_noise=1.0, action_latency=2)])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy,
                                    lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_in_mid_push_has_the_same_future_to_the_last_bit(make, copied):
    env = make()
    state, _ = env.reset(seed=3)
    rng = np.random.default_rng(0)
    pushes = [state[2:4] + rng.normal(0, 40, 2) for _ in range(60)]
    for push in pushes[:25]:
        env.step(push)
    twin = copied(env)
    assert not re.search(b"pymunk.(space|body)", pickle.dumps(env))
    np.testing.assert_array_equal(twin.motion, env.motion)
    for push in pushes[25:]:
        seen, again = env.step(push), twin.step(push)
        np.testing.assert_array_equal(seen[0], again[0])
        assert seen[1:] == again[1:]
    np.testing.assert_array_equal(env.reset()[0], twin.reset()[0])  # the same generator


def test_a_copy_before_the_first_reset_has_no_episode():
    env = copy.deepcopy(PushTEnv(max_steps=7))
    with pytest.raises(RuntimeError, match="call reset"):
        env.step((1, 2))
    assert env.max_steps == 7 and env.reset(seed=1)[0].shape == (5,)


def test_positions_and_velocities_alone_are_not_a_snapshot():
    """Why a snapshot is a history: without what pymunk keeps of past contacts, the same push ends
    elsewhere."""
    env = start((120.0, 300.0, 256.0, 256.0, 0.4))
    for _ in range(2):
        env.step((400, 290))  # now in the middle of a push
    copy = start(CENTRE)
    copy._agent.position = env._agent_xy
    copy._velocity = env._velocity
    copy._block.angle = env._pose[2]
    copy._block.position = env._pose[:2]
    copy._block.velocity = env._block.velocity
    copy._block.angular_velocity = env._block.angular_velocity
    copy._look()
    np.testing.assert_allclose(copy.state, env.state, rtol=0, atol=1e-12)
    env.step((400, 290))
    copy.step((400, 290))
    assert abs(copy.state - env.state).max() > 1e-3


@pytest.mark.parametrize("world, begin", [
    ({}, {"options": {"state": [100, 100, 300, 300, 1.0], "order": "exact"}}),
    ({"state_order": "exact"}, {"seed": 3})], ids=str)
def test_a_snapshot_keeps_the_order_by_which_its_episode_began(world, begin):
    """Which need not be that of its world."""
    env = PushTEnv(**world)
    env.reset(**begin)
    env.step((150, 150))
    np.testing.assert_array_equal(PushTEnv().restore(env.snapshot()), env.state)


def test_a_snapshot_keeps_the_state_order_and_the_number_of_steps():
    env = start(CENTRE, max_steps=4)
    for _ in range(3):
        assert not env.step((50, 50))[3]
    other = PushTEnv(max_steps=4, state_order="legacy")
    np.testing.assert_array_equal(other.restore(env.snapshot()), env.state)
    assert other.step((50, 50))[3]


# ---- interface -----------------------------------------------------------------------------------

def test_observations_hold_what_they_promise():
    env, points = start(CENTRE), start(CENTRE, obs_type="keypoints")
    observation = env.step((120, 120))[0]
    assert observation.shape == (5,) and observation.dtype == np.float64
    wide = points.step((120, 120))[0]
    assert wide.shape == (18,) and wide.dtype == np.float64
    expected = np.concatenate([keypoints(observation[2:]).ravel(), observation[:2]])
    np.testing.assert_array_equal(wide, expected)
    assert 0 <= start((50.0, 50.0, 256.0, 256.0, -1.0)).state[4] < 2 * math.pi


def test_the_pose_counts_whole_turns():
    x, y, angle = start((50.0, 50.0, 256.0, 256.0, 7.0 - 4 * math.pi)).pose
    np.testing.assert_allclose((x, y, angle), (256, 256, 7 - 4 * math.pi), rtol=0, atol=1e-12)


@pytest.mark.parametrize("covered, terminated",
                         [(0.9, False), (0.949, False), (0.951, True), (1.0, True)])
def test_reward_and_termination_follow_the_coverage(covered, terminated):
    shift = 6300 * (1 - covered) / 120
    state = 20.0, 20.0, *from_goal_frame(shift, 0.0)
    env = start(state)
    _, reward, done, truncated, info = env.step((20, 20))
    assert info["coverage"] == pytest.approx(covered, abs=1e-9)
    assert reward == pytest.approx(min(covered / SUCCESS_COVERAGE, 1), abs=1e-9)
    assert done is info["is_success"] is terminated and truncated is False
    assert env.reset(options={"state": state})[1] == info  # nothing has moved since


def test_a_coverage_of_exactly_the_limit_is_no_success(monkeypatch):
    env = start(CENTRE)
    monkeypatch.setattr(environment, "coverage", lambda pose: SUCCESS_COVERAGE)
    expected = {"coverage": SUCCESS_COVERAGE, "is_success": False}
    assert env.step((20, 20))[1:] == (1.0, False, False, expected)


def test_an_episode_is_truncated_at_max_steps():
    for most, env in ((3, PushTEnv(max_steps=3)), (1, PushTEnv(max_steps=1)), (300, PushTEnv())):
        for seed in (0, 1):
            env.reset(seed=seed)
            truncated = [env.step((30, 30))[3] for _ in range(most + 1)]
            assert truncated == [False] * (most - 1) + [True, True]


def test_actions_outside_the_world_are_clipped():
    a, b = start(CENTRE), start(CENTRE)
    for wild, tame in (((-900, 100), (0, 100)), ((1e9, 600), (512, 512)), ((3, -1e-3), (3, 0))):
        np.testing.assert_array_equal(a.step(wild)[0], b.step(tame)[0])
        assert a.snapshot().actions[-1] == tame


def test_actions_may_be_lists_and_arrays_of_any_type():
    actions = [7, 9], (7.0, 9.0), np.array([7, 9]), np.float32([7, 9])
    first, *others = [start(CENTRE).step(action)[0] for action in actions]
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("action", [None, 3.0, (1, 2, 3), [[1, 2]], (1, math.nan), (math.inf, 1),
                                    "ab", {}, (1, None)])
def test_a_bad_action_is_refused(action):
    env = start(CENTRE)
    with pytest.raises(ValueError, match="action must be 2"):
        env.step(action)


@pytest.mark.parametrize("state", [None, (1, 2, 3), np.zeros((1, 5)), (1, 2, 3, 4, math.nan),
                                   (1, 2, 3, 4, -math.inf)])
def test_a_bad_state_is_refused(state):
    with pytest.raises(ValueError, match="state must be 5"):
        PushTEnv().reset(options={"state": state})


@pytest.mark.parametrize("name, value", [
    ("seeding", "new"), ("state_order", "position"), ("obs_type", "pixels"),
    ("render_mode", "ansi"), ("max_steps", 0), ("max_steps", math.nan)])
def test_unknown_settings_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be") as error:
        PushTEnv(**{name: value})
    assert repr(value) in str(error.value)


def test_unknown_options_are_refused_by_name():
    with pytest.raises(ValueError, match="^a key of options.*'sate'"):
        PushTEnv().reset(options={"sate": CENTRE})
    with pytest.raises(ValueError, match="^order.*'angle'"):
        PushTEnv().reset(options={"state": CENTRE, "order": "angle"})


def test_nothing_works_before_the_first_reset():
    env = PushTEnv()
    with pytest.raises(RuntimeError, match="reset"):
        env.step((1, 2))
    with pytest.raises(RuntimeError, match="reset"):
        env.snapshot()
    with pytest.raises(RuntimeError, match="reset"):
        _ = env.state


def test_without_pymunk_the_world_says_what_to_install():
    program = """
import sys
sys.modules["pymunk"] = None  # so that importing it fails
from minidiff.pusht.env import PushTEnv
try:
    PushTEnv()
except RuntimeError as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "needs pymunk: pip install 'minidiff[pusht]'" in result.stdout, result.stderr


def test_rendering_gives_a_picture_or_says_what_is_missing():
    with pytest.raises(RuntimeError, match="render_mode"):
        start(CENTRE).render()
    pytest.importorskip("pygame")
    env = start(CENTRE, render_mode="rgb_array")
    picture = env.render()
    assert picture.shape == (512, 512, 3) and picture.dtype == np.uint8
    assert env.render(96).shape == (96, 96, 3)
    for x, y in ((300, 400), (400, 150)):
        env.step((x, y))
        cross = (env.render() == (40, 40, 40)).all(-1)  # where the agent was sent, and only there
        assert cross[y, x] and cross.sum() == cross[y - 9:y + 10, x - 9:x + 10].sum()
    env.close()


def test_a_human_sees_each_picture_in_a_window_until_it_is_closed(monkeypatch):
    pytest.importorskip("pygame")
    from minidiff.pusht.view import drawing

    from screen import lists_for_windows  # which needs pygame

    windows = lists_for_windows(monkeypatch)
    env = start(CENTRE, render_mode="human")
    env.render()
    env.render()
    copy.copy(env).render()  # in a window of its own
    for _ in range(2):
        env.close()
    env.render()
    first, second, third = windows
    assert [len(window) for window in windows] == [3, 1, 1] and first[2] == "closed"
    for picture in (*first[:2], *second, *third):
        np.testing.assert_array_equal(picture, drawing.frame(env.state))


def test_a_step_takes_well_under_a_millisecond():
    env = start((20.0, 20.0, *from_goal_frame(3.0, 4.0, 0.2)))  # near the goal: slow coverage
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(40):
            env.step((20, 20))
        times.append((time.perf_counter() - begin) / 40)
    assert min(times) < 1e-3  # some 40 us on the machine this was written on
