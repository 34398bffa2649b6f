"""The T in numbers: corners, distance, pose error and coverage as elementary geometry has them."""
from minidiff.pusht.geometry import (
    BAR,
    CONVEX,
    GOAL_POSE,
    KEYPOINTS,
    OUTLINE,
    STEM,
    coverage,
    distance,
    keypoints,
    pose_error,
    to_body,
    to_world,
)

import math

import numpy as np
import pymunk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

few_seeds = settings(max_examples=25)
seeds = given(st.integers(0, 2**32 - 1))  # not coordinates: round ones make ties


def turn(angle, point):
    """R(angle) @ point."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * point[0] - s * point[1], s * point[0] + c * point[1]])


def from_goal_frame(dx, dy, angle=0.0, about=(0.0, 0.0)):
    """The pose of a T that lay on the goal, was turned about a body point, then moved in the goal's
    frame."""
    moved = np.array(about) - turn(angle, about) + (dx, dy)
    x, y = GOAL_POSE[:2] + turn(GOAL_POSE[2], moved)
    return x, y, GOAL_POSE[2] + angle


def as_points(corners):
    """(..., 2) -> complex (...)."""
    return corners[..., 0] + 1j * corners[..., 1]


# ---- corners -------------------------------------------------------------------------------------

@few_seeds
@seeds
def test_keypoints_are_where_pymunk_has_the_corners(seed):
    rng = np.random.default_rng(seed)
    pose = rng.uniform((0, 0, -7), (512, 512, 7))
    body = pymunk.Body(1, 1)
    body.angle = pose[2]
    body.position = tuple(pose[:2])
    expected = [body.local_to_world(corner) for corner in BAR + STEM]
    np.testing.assert_allclose(keypoints(pose), expected, rtol=0, atol=1e-9)


def test_keypoints_broadcast_over_leading_axes():
    poses = np.random.default_rng(0).uniform(0, 500, (3, 5, 3))
    batch = keypoints(poses)
    assert batch.shape == (3, 5, 8, 2)
    np.testing.assert_array_equal(batch[2, 4], keypoints(poses[2, 4]))
    np.testing.assert_allclose(keypoints((0.0, 0.0, 0.0)), KEYPOINTS)
    assert keypoints(np.zeros(3, np.float32)).dtype == np.float64
    with pytest.raises(ValueError, match="pose"):
        keypoints([1.0, 2.0])


def test_points_go_to_the_world_as_the_keypoints_do_and_back():
    poses = np.random.default_rng(0).uniform((0, 0, -9), (512, 512, 9), (20, 3))
    corners = as_points(keypoints(poses))  # (20, 8)
    np.testing.assert_allclose(to_world(as_points(KEYPOINTS), poses[:, None]), corners, rtol=1e-12)
    for pose, points in zip(poses, corners):
        np.testing.assert_allclose(to_body(points, pose), as_points(KEYPOINTS), atol=1e-9)


def test_distance_is_the_distance_to_the_outline():
    rng = np.random.default_rng(0)
    points = rng.uniform(-150, 150, 300) + 1j * rng.uniform(-100, 200, 300)
    sides = np.roll(OUTLINE, -1) - OUTLINE
    outline = (OUTLINE + np.linspace(0, 1, 2001)[:, None] * sides).ravel()
    brute = np.abs(points[:, None] - outline).min(1)
    outside = distance(points) >= 0
    np.testing.assert_allclose(distance(points)[outside], brute[outside], atol=0.05)
    in_bar = (np.abs(points.real) < 60) & (np.abs(points.imag - 15) < 15)
    in_stem = (np.abs(points.real) < 15) & (np.abs(points.imag - 75) < 45)
    np.testing.assert_array_equal(~outside, in_bar | in_stem)


# ---- pose error ----------------------------------------------------------------------------------

def test_pose_error_is_that_of_the_six_convex_corners():
    poses = np.random.default_rng(0).uniform((0, 0, -9), (512, 512, 9), (50, 3))
    convex = [0, 1, 2, 3, 6, 7]  # of the keypoints
    assert set(as_points(KEYPOINTS[convex])) == set(CONVEX)
    away = (keypoints(poses) - keypoints(GOAL_POSE))[:, convex]
    rms = np.sqrt((away**2).sum(-1).mean(-1))
    np.testing.assert_allclose(pose_error(poses), np.log1p(rms), rtol=1e-12)


@pytest.mark.parametrize("error, covered", [(2.3, 0.95), (1.4, 0.97), (0.9, 0.98)])
def test_pose_error_tells_coverage(error, covered):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        offset = rng.normal(0, 1, 3) * (1, 1, 0.015)
        for _ in range(20):  # scale it until the error is what we want
            offset *= error / np.expm1(pose_error(GOAL_POSE + offset))
        found.append(coverage(GOAL_POSE + offset))
    assert abs(np.mean(found) - covered) < 0.002  # observed 0.0005


# ---- coverage ------------------------------------------------------------------------------------

def test_coverage_is_one_on_the_goal_and_zero_far_away():
    assert coverage(GOAL_POSE) == 1.0
    assert coverage((20.0, 20.0, 0.0)) == 0.0
    touching = from_goal_frame(120.0, 0.0)  # side by side
    assert coverage(touching) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("d", [0.5, 5.25, 15.0, 30.0, 45.0, 119.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_coverage_of_a_sideways_shift_is_known(d, sign):
    area = (120 - d) * 30 + max(30 - d, 0) * 90
    assert coverage(from_goal_frame(sign * d, 0.0)) == pytest.approx(area / 6300, abs=1e-12)


@pytest.mark.parametrize("d, area", [(0.5, 6240), (10, 5100), (30, 2700), (60, 1800), (90, 900),
                                     (105, 450), (120, 0)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_coverage_of_a_lengthwise_shift_is_known(d, area, sign):
    """Up to 30 px the bars share 120 (30-d), the stems 30 (90-d), bar and stem 30 d; then bar and
    stem 900 at most."""
    assert coverage(from_goal_frame(0.0, sign * d)) == pytest.approx(area / 6300, abs=1e-12)


K = 15 * 2**0.5 - 15


@pytest.mark.parametrize("angle, about, area", [
    (math.pi, (0, 0), 0),  # back to back
    (math.pi, (0, 15), 3600),  # the bar on itself
    (math.pi, (0, 75), 2700),  # the stem on itself
    (math.pi, (0, 115), 300),  # the ends of the stems
    (math.pi / 2, (0, 15), 3600),  # bars 900, bar on stem 1350, stem on bar 1350
    (-math.pi / 2, (0, 15), 3600),
    (math.pi / 4, (0, 15),  # bars, bar on stem twice, stems
     900 * 2**0.5 + 450 + 15 * K + 112.5 - K * K / 2),
])
def test_coverage_of_a_rotation_is_known(angle, about, area):
    pose = from_goal_frame(0.0, 0.0, angle, about)
    assert coverage(pose) == pytest.approx(area / 6300, abs=1e-12)


@few_seeds
@seeds
def test_coverage_agrees_with_counting_small_squares(seed):
    """Midpoints of a quarter-pixel grid over the goal, counted if the T covers them: independent of
    any clipping."""
    dx, dy, angle = np.random.default_rng(seed).normal(0, (25, 25, 0.8))
    axes = np.array([turn(angle, (1, 0)), turn(angle, (0, 1))])
    covered = []
    for left, right, low, high in ((-60, 60, 0, 30), (-15, 15, 30, 120)):
        x = np.arange(left, right, 0.25) + 0.125
        y = np.arange(low, high, 0.25) + 0.125
        grid = np.stack(np.meshgrid(x, y), -1)
        u, v = np.moveaxis((grid - (dx, dy)) @ axes.T, -1, 0)
        in_bar = (abs(u) < 60) & (0 < v) & (v < 30)
        in_stem = (abs(u) < 15) & (30 < v) & (v < 120)
        covered.append((in_bar | in_stem).ravel())
    share = np.mean(np.concatenate(covered))
    assert coverage(from_goal_frame(dx, dy, angle)) == pytest.approx(share, abs=3e-3)


@few_seeds
@seeds
def test_coverage_has_the_symmetries_of_an_overlap(seed):
    """It has period 2 pi, is the same in the mirror, and the T covers the goal as much as the goal
    covers the T."""
    dx, dy, angle = np.random.default_rng(seed).normal(0, (30, 30, 1.0))
    x, y, theta = from_goal_frame(dx, dy, angle)
    expected = pytest.approx(coverage((x, y, theta)), abs=1e-12)
    assert 0 <= coverage((x, y, theta)) <= 1
    assert coverage((x, y, theta + 2 * math.pi)) == expected
    assert coverage((512 - y, 512 - x, math.pi / 2 - theta)) == expected
    assert coverage(from_goal_frame(*turn(-angle, (-dx, -dy)), -angle)) == expected
