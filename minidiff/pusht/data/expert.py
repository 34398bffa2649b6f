"""A scripted demonstrator: it tries pushes in a copy of the world and executes the best one.

A straight push of the round agent against a side of the T moves the T a little and turns it a
little. The outcome is hard to predict but cheap to try. So the expert samples points on the outline
of the T (contacts) and tries a push against each in a scratch world. It executes the one that
brings the T towards the goal fastest, and plans again. An episode takes about six pushes. Few
`samples` make the expert diverse: from one start, different streams choose different sides of the T
and turn it either way. More samples make the episodes shorter and more alike.

    pose_error  how far the T is from the goal, in one number (geometry.py)
    sample      contacts on the outline, and for each its stand: where the agent is before the push,
                with its edge 6 px off the contact. A push moves along the inward normal
    routes      how to reach each stand without touching the T: straight, or along a ring round it
    plan        screening: simulate each push from its stand; its score is the decrease of
                pose_error per step of the world. Refinement: simulate the best few again from the
                true state, approach and push together, with five lengths of the push
    escape      where no push helps: move away from the T

Points are complex numbers x + iy, as in geometry.py.
"""
from typing import NamedTuple

import numpy as np

from .. import geometry
from ..env import PushTEnv
from ..geometry import CONVEX, OUTLINE, WORLD_SIZE, distance, pose_error, to_body, to_world

TRAVEL = 18  # px a step of the world, on the way to a stand
STROKE = 10  # px a step of the world, while pushing
HOLD = 2  # steps of the world at rest after a push
STAND = geometry.AGENT_RADIUS + 6  # px from a contact to the agent's centre before the push

SIDE = np.roll(OUTLINE, -1) - OUTLINE  # side k runs from OUTLINE[k] to OUTLINE[k + 1]
NORMAL = -1j * SIDE / np.abs(SIDE)  # outwards

# The ring: a point 34 px off each convex corner, and the 72 ways along the ring. A way begins at
# any of the six points and passes n = 0..5 more, in either direction. Its last point is repeated to
# fill the row.
RING = CONVEX + 24 * (np.sign(CONVEX.real) + 1j * np.sign(CONVEX.imag - 15))
_first, _sense, _n, _k = np.ix_(range(6), (1, -1), range(6), range(6))
WAYS = ((_first + _sense * np.minimum(_k, _n)) % 6).reshape(72, 6)
WAY_LENGTH = np.abs(np.diff(RING[WAYS])).sum(1)


class Demonstration(NamedTuple):
    """An episode. states[i] was observed before actions[i]; actions[i] + noise[i] was executed.

    Actions and noise are rounded to 1/64 px before they are executed, states when they are stored:
    so the arrays hold exactly what was executed.
    """
    states: np.ndarray  # (n, 5) float32, as PushTEnv.state; the angle rounded to 1/4096 rad
    actions: np.ndarray  # (n, 2) float32
    noise: np.ndarray  # (n, 2) float16
    solved: bool  # the coverage rose above stop_coverage
    faces: tuple = ()  # the side of the T (0..7, as in OUTLINE) that each push was against


def demonstrate(seed, stream=0, samples=24, refine=2, stop_coverage=0.97, noise=0.0, max_steps=300,
                start=None):
    """Solve the start that PushTEnv samples from `seed`, or a state (5,) given as `start`.

    stream   another number makes other choices from the same start.
    samples  contacts sampled for each push: more of them make episodes shorter and more alike.
    refine   how many of these are simulated exactly (more where none helps).
    noise    px: standard deviation, in x and in y, of the noise injected into the executed action.
             It is correlated in time: each step of the world keeps 0.8 of the last noise. The
             recorded actions are those without noise, so the data show how to return to a plan.

    Returns a Demonstration.
    """
    rng = np.random.default_rng([seed, stream])
    env = PushTEnv()
    scratch = PushTEnv(state_order="exact")
    options = None if start is None else {"state": start, "order": "exact"}
    state, info = env.reset(seed=seed, options=options)
    states, actions, noises, faces = [], [], [], []
    drift = np.zeros(2)
    while not states or (info["coverage"] <= stop_coverage and len(states) < max_steps):
        planned, face = plan(state, scratch, rng, samples, refine)
        if face is not None:
            faces.append(face)
        for action in planned[:max_steps - len(states)]:
            if noise:  # 0.8^2 + 0.6^2 = 1 keeps the variance
                drift = 0.8 * drift + 0.6 * noise * rng.standard_normal(2)
            states.append(rounded(state, (64, 64, 64, 64, 4096)))
            actions.append(action)
            noises.append(rounded(drift).astype(np.float16))
            state, _, _, _, info = env.step(action + noises[-1])
            if info["coverage"] > stop_coverage:
                break
    return Demonstration(np.array(states, np.float32), np.array(actions, np.float32),
                         np.array(noises), info["coverage"] > stop_coverage, tuple(faces))


def plan(state, scratch, rng, samples, refine):
    """The next push from a state (5,): actions (n, 2), approach included, and the side of the T.

    Where no push helps: the actions of an escape, and None. scratch: a PushTEnv to try pushes in.
    """
    agent = complex(*state[:2])
    pose = state[2:]
    back = step_back(to_body(agent, pose))
    face, stands = sample(rng, samples)
    ring_points, lengths = routes(back[-1], stands, inside(to_world(RING, pose)))
    lengths[~inside(to_world(stands, pose), 12)] = np.inf

    before = pose_error(pose)
    screened = []  # for each stand that can be reached: score, index, length of the push
    for k in np.flatnonzero(np.isfinite(lengths)):
        stand, end = to_world(np.array([stands[k], stands[k] - NORMAL[face[k]]]), pose)
        scratch.reset(options={"state": [stand.real, stand.imag, *pose]})
        push = as_actions(stand + STROKE * np.arange(1, 15) * (end - stand))
        after = scratch.simulate(push)  # (14, 5)
        gains = before - pose_error(after[:, 2:])
        n = gains.argmax()
        steps = (lengths[k] + 3 * len(back)) / TRAVEL + n + 1 + HOLD
        screened.append((gains[n] / steps, k, abs(complex(*after[n, :2]) - stand)))

    best = escape(agent, pose), None
    best_score = 0.0
    for tried, (_, k, stroke) in enumerate(sorted(screened, reverse=True)):
        if tried >= refine and best_score > 0:
            break
        way = np.concatenate([back, RING[ring_points[k]], stands[k:k + 1]])
        for more in (-5.0, -2.5, 0.0, 2.5, 5.0):
            push = stands[k] - np.array([0, max(stroke + more, 1.0)]) * NORMAL[face[k]]
            rest = np.repeat(push[1:], HOLD)
            targets = np.concatenate([walk(way, TRAVEL), walk(push, STROKE), rest])
            actions = as_actions(to_world(targets, pose))
            scratch.reset(options={"state": state})
            end = scratch.simulate(actions)[-1]
            score = (before - pose_error(end[2:])) / len(actions)
            if score > best_score:
                best = actions, int(face[k])
                best_score = score
    return best


def sample(rng, count):
    """Contacts sampled uniformly on the outline. Returns their sides (count,) and their stands
    (count,), complex in the body frame: where the agent's centre is before the push."""
    ends = np.cumsum(np.abs(SIDE))
    along = rng.uniform(0, ends[-1], count)
    face = np.searchsorted(ends, along, side="right")
    contacts = OUTLINE[face] + SIDE[face] * (1 - (ends[face] - along) / np.abs(SIDE[face]))
    return face, contacts + STAND * NORMAL[face]


def routes(start, stands, usable):
    """The shortest ways from a point to each stand (K,) that keep clear of the T, in its own frame.

    usable: (6,) bool, which points of the ring lie inside the world. Returns for each stand the
    indices of the points of the ring to pass, [] for a straight way, and the lengths (K,). They are
    infinite where there is no way: also to a stand without room, as in a notch.
    """
    straight = leg(start, stands)
    enter = leg(start, RING)  # (6,)
    along = np.where(usable[WAYS].all(1), WAY_LENGTH, np.inf)  # (72,)
    leave = leg(RING[:, None], stands)  # (6, K)
    around = (enter[WAYS[:, 0]] + along)[:, None] + leave[WAYS[:, -1]]  # (72, K)
    shortest = around.min(0)
    ring_points = [[]] * len(stands)
    for k in np.flatnonzero(shortest < straight):
        ring_points[k] = WAYS[around[:, k].argmin()]
    return ring_points, np.minimum(straight, shortest)


def leg(a, b):
    """Lengths of straight legs from a to b (complex, body frame, broadcast); infinite where one
    comes nearer to the T than 17.5 px, at any of 25 points of it."""
    a, b = np.broadcast_arrays(a, b)
    shares = np.linspace(0, 1, 25).reshape(-1, *[1] * a.ndim)
    clear = distance(a + (b - a) * shares).min(0) >= 17.5
    return np.where(clear, np.abs(b - a), np.inf)


def step_back(point):
    """The way (m,) from a point (complex, body frame) away from the T, until it is 20 px off. Its
    legs are 3 px long: with longer ones it would get stuck in a notch."""
    way = [point]
    probes = 1e-3 * np.array([1, -1, 1j, -1j])
    while distance(way[-1]) < 20 and len(way) < 20:
        gradient = (distance(way[-1] + probes) * probes).sum()  # central differences
        way.append(way[-1] + 3 * gradient / max(abs(gradient), 1e-12))
    return np.array(way)


def escape(agent, pose):
    """Actions (3, 2): three times the point 18 px farther from the T's centre of gravity."""
    away = agent - to_world(complex(*geometry.CENTER_OF_GRAVITY), pose)
    return as_actions(np.repeat(agent + 18 * away / max(abs(away), 1e-9), 1 + HOLD))


def walk(way, speed):
    """Targets (n,) along a way (m,) of straight legs: at most `speed` px from one to the next, and
    less towards its end. Without the start of the way."""
    travelled = np.concatenate([[0], np.cumsum(np.abs(np.diff(way)))])  # (m,)
    length = travelled[-1]
    stops = [0.0]
    while stops[-1] < length:
        step = min(speed, 3 + 0.4 * (length - stops[-1]))
        stops.append(min(stops[-1] + step, length))
    return np.interp(stops[1:], travelled, way)


def inside(points, margin=0):
    """Which points (complex) lie in the world, at least `margin` px from its edge."""
    offset = points - (1 + 1j) * WORLD_SIZE / 2
    return np.maximum(np.abs(offset.real), np.abs(offset.imag)) <= WORLD_SIZE / 2 - margin


def rounded(numbers, parts=64):
    return np.round(numbers * np.array(parts)) / parts


def as_actions(points):
    """Points (n,) of the world as actions (n, 2), inside the world and rounded."""
    return rounded(np.clip(np.stack([points.real, points.imag], -1), 0, WORLD_SIZE))
