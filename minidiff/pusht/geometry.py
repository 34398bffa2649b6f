"""The T in numbers: its shape, its corners, its coverage of the goal, its distance from the goal.

Units are pixels and radians. The world is the square [0, 512] x [0, 512]; y points down. A pose is
(x, y, angle) of the block's body frame, whose origin is the middle of the bar's outer edge. All
numbers are those of the original PushT (Florence et al. 2021; Chi et al. 2023). Needs NumPy alone.

Some functions take points as complex numbers x + iy: multiplying a point by e^(i angle) rotates it
by `angle`, and |b - a| is the distance between points a and b.
"""
import math

import numpy as np

WORLD_SIZE = 512
AGENT_RADIUS = 15
GOAL_POSE = (256.0, 256.0, math.pi / 4)
SUCCESS_COVERAGE = 0.95
BAR = ((-60, 0), (60, 0), (60, 30), (-60, 30))  # the T is two boxes, corners in the body frame
STEM = ((-15, 30), (15, 30), (15, 120), (-15, 120))
CENTER_OF_GRAVITY = (0, 45)
KEYPOINTS = np.array(BAR + STEM, dtype=np.float64)  # (8, 2)

# The outline in the body frame, as complex numbers. Side k runs from OUTLINE[k] to OUTLINE[k + 1].
OUTLINE = np.array([-60, 60, 60 + 30j, 15 + 30j, 15 + 120j, -15 + 120j, -15 + 30j, -60 + 30j])
CONVEX = OUTLINE[[0, 1, 2, 4, 5, 7]]  # the six convex corners
SPREAD = np.var(CONVEX)  # mean squared distance of these corners from their mean
BOXES = [(complex(*np.mean(box, 0)), complex(*np.ptp(box, 0)) / 2)  # centre and half size
         for box in (BAR, STEM)]

_AREA = 6300.0  # 120 x 30 + 30 x 90
_GOAL_BOXES = ((-60.0, 60.0, 0.0, 30.0), (-15.0, 15.0, 30.0, 120.0))  # left, right, low, high
_REACH = 121.0  # no corner is farther than this from the origin of its T
_COS_GOAL = math.cos(GOAL_POSE[2])
_SIN_GOAL = math.sin(GOAL_POSE[2])


def keypoints(pose):
    """The T's eight corners in the world, BAR's before STEM's: R(angle) @ KEYPOINTS + (x, y).

    pose: (..., 3) = x, y, angle. Returns (..., 8, 2) float64. ValueError for another last axis.
    """
    pose = np.asarray(pose, dtype=np.float64)
    if pose.shape[-1:] != (3,):
        raise ValueError(f"a pose has the shape (..., 3) = x, y, angle; got {pose.shape}")
    x, y, angle = pose[..., 0, None], pose[..., 1, None], pose[..., 2, None]  # (..., 1) each
    angle = angle.copy()  # contiguous: NumPy 1.24 rounds cos and sin by the memory layout
    c, s = np.cos(angle), np.sin(angle)
    u, v = KEYPOINTS[:, 0], KEYPOINTS[:, 1]  # (8,) each
    return np.stack([x + c * u - s * v, y + s * u + c * v], axis=-1)


def to_world(points, pose):
    """Points of the body frame (complex) in the world. pose: (..., 3), broadcast against points."""
    return pose[..., 0] + 1j * pose[..., 1] + np.exp(1j * pose[..., 2]) * points


def to_body(points, pose):
    """Points of the world (complex) in the body frame. pose: (3,)."""
    return (points - complex(*pose[:2])) * np.exp(-1j * pose[2])


def distance(points):
    """Distance in px of points (complex, body frame) from the T; negative inside its two boxes."""
    distances = []
    for centre, half in BOXES:
        x = np.abs((points - centre).real) - half.real
        y = np.abs((points - centre).imag) - half.imag
        outside = np.hypot(np.maximum(x, 0), np.maximum(y, 0))
        distances.append(outside + np.minimum(np.maximum(x, y), 0))
    return np.minimum(*distances)


def pose_error(pose):
    """ln(1 + e), where e px is the root mean square distance of the T's six convex corners from
    those of the goal. pose: (..., 3) -> (...).

    By the logarithm the last pixels weigh most: from e = 3 to 2 it falls by more than from 100 to
    90. Coverage 0.95 corresponds to about e = 2.3, coverage 0.97 to about 1.4.

    e needs no loop over the corners. In the body frame they have a mean m and a mean squared
    distance s from it. Let M and M' be the positions of m in the world, and angle and angle' the
    angles, of the T and of the goal. Then

        e^2 = |M - M'|^2 + 2 s (1 - cos(angle - angle'))
    """
    shift = to_world(CONVEX.mean(), pose) - to_world(CONVEX.mean(), np.array(GOAL_POSE))
    rotation = 2 * SPREAD * (1 - np.cos(pose[..., 2] - GOAL_POSE[2]))
    return np.log1p(np.sqrt(np.abs(shift)**2 + rotation))


def coverage(pose):
    """Share of the goal that the T covers: area(T at pose ∩ T at GOAL_POSE) / area(T), in [0, 1].

    pose: three numbers x, y, angle. Exact up to rounding. Each of the T's two boxes is clipped by
    each of the goal's two (Sutherland-Hodgman). This is done in the goal's frame, in which the
    sides of the goal's boxes lie along the axes.
    """
    x, y, angle = map(float, pose)
    c = math.cos(angle - GOAL_POSE[2])
    s = math.sin(angle - GOAL_POSE[2])
    x, y = x - GOAL_POSE[0], y - GOAL_POSE[1]
    x, y = _COS_GOAL * x + _SIN_GOAL * y, _COS_GOAL * y - _SIN_GOAL * x
    if x * x + y * y > (2 * _REACH)**2:
        return 0.0
    area = 0.0
    for piece in (BAR, STEM):
        xs = [x + c * u - s * v for u, v in piece]
        ys = [y + s * u + c * v for u, v in piece]
        extent = min(xs), max(xs), min(ys), max(ys)
        for box in _GOAL_BOXES:
            us, vs = _cut(xs, ys, extent, box)
            for i in range(len(us)):  # shoelace formula; index -1 closes the polygon
                area += 0.5 * (us[i - 1] * vs[i] - us[i] * vs[i - 1])
    return min(area / _AREA, 1.0)


def _cut(xs, ys, extent, box):
    """The part of a convex polygon, corners (xs[i], ys[i]), inside an axis-aligned box.

    extent and box: left, right, low, high. A side of the box beyond the extent cuts nothing.
    """
    min_x, max_x, min_y, max_y = extent
    left, right, low, high = box
    if min_x >= right or max_x <= left or min_y >= high or max_y <= low:
        return (), ()
    if min_x < left:
        xs, ys = _clip(xs, ys, left, 1.0)
    if max_x > right:
        xs, ys = _clip(xs, ys, right, -1.0)
    if min_y < low:
        ys, xs = _clip(ys, xs, low, 1.0)  # the same with the axes exchanged
    if max_y > high:
        ys, xs = _clip(ys, xs, high, -1.0)
    return xs, ys


def _clip(us, vs, bound, side):
    """The part of a convex polygon, corners (us[i], vs[i]), where side * (u - bound) >= 0.

    side: 1 or -1.
    """
    inside_u, inside_v = [], []
    u0, v0 = (us[-1], vs[-1]) if us else (0.0, 0.0)
    depth0 = side * (u0 - bound)
    for u, v in zip(us, vs):
        depth = side * (u - bound)
        if (depth < 0.0) != (depth0 < 0.0):  # the edge crosses the bound
            inside_u.append(bound)
            inside_v.append(v0 + (v - v0) * (depth0 / (depth0 - depth)))
        if depth >= 0.0:
            inside_u.append(u)
            inside_v.append(v)
        v0, depth0 = v, depth
    return inside_u, inside_v
