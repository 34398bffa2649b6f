"""A scripted demonstrator: it pushes the T onto the goal by trying pushes in a copy of the world and doing the best.

The idea. A straight push of the round agent against a side of the T moves it a little and turns it a little. Where it
ends exactly is hard to say but cheap to try. So the expert draws some points on the T's outline, tries a push against
each in a scratch world, carries out the one that brings the T towards the goal fastest, and looks again. About six
pushes solve an episode. Few tries (`samples`) make it diverse: from one start, different streams choose different sides
and turning senses. More tries make episodes shorter and more alike.

    pose_error    how far the T is from the goal, in one number: ln(1 + e), e px being the error of its corners
    sample    draw contacts on the outline; the agent shall stand 6 px off, then push along the inward normal
    routes    how to get to each stand without touching the T: straight, or from ring point to ring point round it
    plan      screen: simulate each push from its stand; the score is what it takes off the pose_error, per step;
              refine: simulate the best few from the true state, way and push together, with five lengths each
    escape    where no push helps, or the agent is inside the T: move away from the T's middle, and look again

Points are complex numbers x + iy in this file: turning by an angle is multiplying by e^(i angle), and |b - a| a length.
"""
from typing import NamedTuple

import numpy as np

from ..env import PushTEnv
from ..geometry import (AGENT_RADIUS, CENTER_OF_GRAVITY, CONVEX, OUTLINE, WORLD_SIZE, distance,
                        pose_error, to_body, to_world)

TRAVEL, STROKE, HOLD = 18, 10, 2  # px a step on the way and while pushing, steps of rest afterwards
STAND = AGENT_RADIUS + 6  # from the contact to the agent's middle before a push

# The T's outline in its own frame. Side k runs from OUTLINE[k] to OUTLINE[k + 1]; NORMAL[k] points out of it.
SIDE = np.roll(OUTLINE, -1) - OUTLINE
NORMAL = -1j * SIDE / np.abs(SIDE)

# The ring: a point off each convex corner, and the 72 ways along it: from each, either way round, over 1 to 6 points.
RING = CONVEX + 24 * (np.sign(CONVEX.real) + 1j * np.sign(CONVEX.imag - 15))
WAYS = np.array([[(first + turn * min(k, n)) % 6 for k in range(6)]
                 for first in range(6) for turn in (1, -1) for n in range(6)])  # (72, 6), the last point repeated
WAY_LENGTH = np.abs(np.diff(RING[WAYS])).sum(1)


class Demonstration(NamedTuple):
    """An episode. Row i of states was seen before action i; what was carried out is actions + noise.
    Everything is rounded to 1/64 px, before it is carried out: float32 holds such numbers exactly."""
    states: np.ndarray  # (n, 5) float32, as PushTEnv.state; the angle rounded to 1/4096
    actions: np.ndarray  # (n, 2) float32
    noise: np.ndarray  # (n, 2) float16
    solved: bool  # the coverage went above stop_coverage
    faces: tuple = ()  # which side of the T (0..7, as in OUTLINE) each push was aimed at


def demonstrate(seed, stream=0, samples=24, refine=2, stop_coverage=0.97, noise=0.0, max_steps=300, start=None):
    """Solve the start that PushTEnv draws from `seed`, or a state (5,) given as `start`. Returns a Demonstration.

    stream   another number makes other choices from the same start.
    samples  contacts drawn for each push: more of them make episodes shorter and more alike.
    refine   how many of these are simulated exactly (more where none helps).
    noise    px: standard deviation, in x and in y, of what is added to the planned action when it is carried out.
             It lasts: each step keeps 0.8 of the last one. So the data show how to get back to a plan.
    """
    rng = np.random.default_rng([seed, stream])
    env, scratch = PushTEnv(), PushTEnv(state_order="exact")
    state, info = env.reset(seed=seed, options=None if start is None else {"state": start, "order": "exact"})
    rows, faces, drift = [], [], np.zeros(2)
    while not rows or (info["coverage"] <= stop_coverage and len(rows) < max_steps):
        actions, face = plan(state, scratch, rng, samples, refine)
        faces += [] if face is None else [face]
        for action in actions[:max_steps - len(rows)]:
            if noise:
                drift = 0.8 * drift + 0.6 * noise * rng.standard_normal(2)  # 0.8^2 + 0.6^2 = 1
            added = rounded(drift).astype(np.float16)
            rows.append((rounded(state, (64, 64, 64, 64, 4096)), action, added))
            state, _, _, _, info = env.step(action + added)
            if info["coverage"] > stop_coverage:
                break
    states, actions, added = map(np.array, zip(*rows))
    return Demonstration(states.astype(np.float32), actions.astype(np.float32), added,
                         info["coverage"] > stop_coverage, tuple(faces))


def plan(state, scratch, rng, samples, refine):
    """The next push from a state (5,): its actions (n, 2) and its side of the T, or an escape and None."""
    agent, pose = complex(*state[:2]), state[2:]
    back = step_back(to_body(agent, pose))
    face, stands = sample(rng, samples)
    ring_points, lengths = routes(back[-1], stands, inside(to_world(RING, pose)))
    lengths[~inside(to_world(stands, pose), 12)] = np.inf

    before, screened = pose_error(pose), []
    for k in np.flatnonzero(np.isfinite(lengths)):
        stand, end = to_world(np.array([stands[k], stands[k] - NORMAL[face[k]]]), pose)
        scratch.reset(options={"state": [stand.real, stand.imag, *pose]})
        after = scratch.simulate(as_actions(stand + STROKE * np.arange(1, 15) * (end - stand)))  # (14, 5)
        gains = before - pose_error(after[:, 2:])
        n = gains.argmax()
        steps = (lengths[k] + 3 * len(back)) / TRAVEL + n + 1 + HOLD
        screened.append((gains[n] / steps, k, abs(complex(*after[n, :2]) - stand)))

    best_score, best = 0.0, (escape(agent, pose), None)
    for tried, (_, k, stroke) in enumerate(sorted(screened, reverse=True)):
        if tried >= refine and best_score > 0:
            break  # else we go on until one helps
        way = np.concatenate([back, RING[ring_points[k]], stands[k:k + 1]])
        for more in (-5.0, -2.5, 0.0, 2.5, 5.0):
            push = stands[k] - np.array([0, max(stroke + more, 1.0)]) * NORMAL[face[k]]
            targets = np.concatenate([walk(way, TRAVEL), walk(push, STROKE), push[[1] * HOLD]])
            actions = as_actions(to_world(targets, pose))
            scratch.reset(options={"state": state})
            score = (before - pose_error(scratch.simulate(actions)[-1, 2:])) / len(actions)
            if score > best_score:
                best_score, best = score, (actions, int(face[k]))
    return best


def sample(rng, samples):
    """Contacts drawn uniformly on the outline: their sides (K,), and the agent's stands for them (K,), T's frame."""
    ends = np.cumsum(np.abs(SIDE))
    along = rng.uniform(0, ends[-1], samples)
    face = np.searchsorted(ends, along, side="right")
    contacts = OUTLINE[face] + SIDE[face] * (1 - (ends[face] - along) / np.abs(SIDE[face]))
    return face, contacts + STAND * NORMAL[face]


def routes(start, stands, usable):
    """The shortest ways from a point to each stand (K,) that keep clear of the T, in its frame.

    usable: (6,) bool, which ring points lie inside the world. Returns for each stand the ring points to pass, a list
    that is empty for the straight way, and the lengths (K,), infinite where there is no way (or no room: in a notch).
    """
    straight = leg(start, stands)
    enter = leg(start, RING)  # (6,)
    along = np.where(usable[WAYS].all(1), WAY_LENGTH, np.inf)  # (72,)
    leave = leg(RING[:, None], stands)  # (6, K)
    around = (enter[WAYS[:, 0]] + along)[:, None] + leave[WAYS[:, -1]]  # (72, K)
    ring_points = [[] if a >= s else WAYS[i] for s, a, i in zip(straight, around.min(0), around.argmin(0))]
    return ring_points, np.minimum(straight, around.min(0))


def leg(a, b):
    """Length of the straight legs from a to b, in the T's frame; infinite where one comes within 17.5 px of the T."""
    a, b = np.broadcast_arrays(a, b)
    clear = distance(a + (b - a) * np.linspace(0, 1, 25).reshape(-1, *[1] * a.ndim)).min(0) >= 17.5
    return np.where(clear, np.abs(b - a), np.inf)


def step_back(point):
    """The way (m,) from a point to 20 px off the T, away from it in small steps: a big one gets stuck in a notch."""
    way, probes = [point], 1e-3 * np.array([1, -1, 1j, -1j])
    while distance(way[-1]) < 20 and len(way) < 20:
        away = (distance(way[-1] + probes) * probes).sum()  # central differences
        way.append(way[-1] + 3 * away / max(abs(away), 1e-12))
    return np.array(way)


def escape(agent, pose):
    """Actions (3, 2): to 18 px farther from the T's centre of gravity, and rest."""
    away = agent - to_world(complex(*CENTER_OF_GRAVITY), pose)
    return as_actions(np.repeat(agent + 18 * away / max(abs(away), 1e-9), 1 + HOLD))


def walk(way, speed):
    """Targets (n,) along a way (m,) of straight legs, at most `speed` px a step and slower towards its end."""
    at = np.concatenate([[0], np.cumsum(np.abs(np.diff(way)))])  # (m,), where each point is along the way
    stops = [0.0]
    while stops[-1] < at[-1]:
        stops.append(min(stops[-1] + min(speed, 3 + 0.4 * (at[-1] - stops[-1])), at[-1]))
    return np.interp(stops[1:], at, way)


def inside(points, margin=0):
    """Which points of the world keep a margin from its edge."""
    off = points - (1 + 1j) * WORLD_SIZE / 2
    return np.maximum(np.abs(off.real), np.abs(off.imag)) <= WORLD_SIZE / 2 - margin


def rounded(numbers, parts=64):
    return np.round(numbers * np.array(parts)) / parts


def as_actions(points):
    return rounded(np.clip(np.stack([points.real, points.imag], -1), 0, WORLD_SIZE))
