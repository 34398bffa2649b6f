"""The PushT world: a round agent pushes a T-shaped block onto a goal pose. Gymnasium-style, 2-D physics by pymunk.

Units are pixels, radians and seconds; the world is the square [0, 512] x [0, 512]. A pose is (x, y, angle) of the
block's body frame, whose origin is the middle of the bar's outer edge. An action is the point (x, y) to which a PD
controller pulls the agent for 0.1 s. The space is damped completely, so what is not pushed does not move.

The numbers below are those of the original PushT (Florence et al. 2021; Chi et al. 2023). They are kept to the last
bit, so that published seeds, demonstrations and scores mean here what they mean there.
"""
import math
from typing import NamedTuple

import numpy as np

from .geometry import (AGENT_RADIUS, BAR, CENTER_OF_GRAVITY, STEM, SUCCESS_COVERAGE, WORLD_SIZE,
                       coverage, keypoints)

try:
    import pymunk
except ImportError:
    pymunk = None  # PushTEnv says what to do

_WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))
_DT, _SUBSTEPS = 0.01, 10
_STIFFNESS, _DAMPING = 100.0, 20.0  # of the PD controller


class Snapshot(NamedTuple):
    """A moment of a PushTEnv, told as its history: the start, the order it was set in, the (clipped) actions since."""

    start: tuple
    order: str
    actions: tuple


class PushTEnv:
    """PushT with Gymnasium's signatures (and without Gymnasium). An unknown name raises ValueError.

    seeding      where `reset(seed=...)` starts: agent x, y from 50..449, block x, y from 100..399 and the angle,
                 drawn by "legacy" RandomState(seed), angle 2 pi randn() - pi, as the original and all published
                 seed lists do; or by "modern" default_rng(seed), angle uniform in [-pi, pi), as gym-pusht does.
    state_order  how `options={"state": ...}` is set: "exact" (angle, then position) gives the state asked for and
                 replays the human demonstrations; "legacy" (position, then angle) turns the block about its
                 centre of gravity, which moves its origin. Drawn starts are always set the legacy way.
    obs_type     "state": (5,) float64 = agent x, y, block x, y, block angle mod 2 pi;
                 "keypoints": (18,) float64 = the block's eight keypoints x, y, then agent x, y.
    max_steps    the number of steps at which `truncated` becomes True.
    render_mode  None, "rgb_array" or "human": what `render()` does.
    """

    def __init__(self, seeding="legacy", state_order="legacy", obs_type="state", max_steps=300, render_mode=None):
        _check("seeding", seeding, ("legacy", "modern"))
        _check("state_order", state_order, ("legacy", "exact"))
        _check("obs_type", obs_type, ("state", "keypoints"))
        _check("render_mode", render_mode, (None, "rgb_array", "human"))
        if not max_steps >= 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps!r}")
        self.seeding, self.state_order, self.obs_type = seeding, state_order, obs_type
        self.max_steps, self.render_mode = max_steps, render_mode
        self._rng = self._space = self._window = None

    def reset(self, *, seed=None, options=None):
        """Begin an episode. Returns (observation, {"coverage": float}).

        seed: starts a new generator; None goes on with the own one. options: a dict with "state", five numbers or the seven
        of `motion`, and perhaps "order", as `state_order`; else ValueError. As in the original, one physics step follows.
        """
        options = options or {}
        for key in options:
            _check("a key of options", key, ("state", "order"))
        order = options.get("order", self.state_order)
        _check("order", order, ("legacy", "exact"))
        if seed is not None or self._rng is None:
            self._rng = np.random.RandomState(seed) if self.seeding == "legacy" else np.random.default_rng(seed)
        if "state" in options:
            self._begin(_numbers("state", options["state"], 7 if np.size(options["state"]) == 7 else 5), order)
        else:
            self._begin(self._draw_start(), "legacy")
        return self._observation(), {"coverage": coverage(self._pose)}

    def step(self, action):
        """Pull the agent towards a point for 0.1 s. Returns (observation, reward, terminated, truncated, info).

        action: two finite numbers x, y, clipped to [0, 512]. reward = min(coverage / 0.95, 1); terminated if
        coverage > 0.95; truncated from step `max_steps` on; info = {"coverage": float}. Neither flag forbids
        further steps. Raises ValueError for another shape or non-finite numbers, RuntimeError before `reset`.
        """
        self._require_reset()
        x, y = _numbers("action", action, 2)
        self._advance(min(max(x, 0.0), float(WORLD_SIZE)), min(max(y, 0.0), float(WORLD_SIZE)))
        covered = coverage(self._pose)
        reward, terminated = min(covered / SUCCESS_COVERAGE, 1.0), covered > SUCCESS_COVERAGE
        return self._observation(), reward, terminated, len(self._actions) >= self.max_steps, {"coverage": covered}

    def simulate(self, actions):
        """The states (n, 5) that `step` would reach by actions (n, 2), in half its time: no checks, no coverage."""
        self._require_reset()
        states = []
        for x, y in np.clip(actions, 0.0, float(WORLD_SIZE)).tolist():
            self._advance(x, y)
            states.append((*self._agent_xy, *self._pose))
        states = np.array(states).reshape(-1, 5)
        states[:, 4] %= 2 * math.pi
        return states

    @property
    def state(self):
        """(5,) float64: agent x, y, block x, y, block angle mod 2 pi, whatever `obs_type` is."""
        self._require_reset()
        (agent_x, agent_y), (x, y, angle) = self._agent_xy, self._pose
        return np.array([agent_x, agent_y, x, y, angle % (2 * math.pi)])

    @property
    def motion(self):
        """(7,) float64: `state`, and the agent's velocity (px/s)."""
        return np.array([*self.state, *self._velocity])

    def snapshot(self):
        """This moment, picklable, for `restore` here or in another PushTEnv. The random generator is not part of it.

        Positions and velocities would not do: pymunk also keeps impulses, corrections and search hints of past
        contacts, out of reach, and in the middle of a push a copy without them soon goes another way. Only the
        same history has the same future to the last bit, so the history is what a snapshot holds.
        """
        self._require_reset()
        return Snapshot(self._start, self._order, tuple(self._actions))

    def restore(self, snapshot):
        """Go to the moment of a snapshot by living through it again (20 us a step). Returns the observation.

        `reset(options={"state": env.motion, "order": "exact"})` has a fixed price but forgets contacts (about 0.1 px).
        """
        start, order, actions = snapshot
        self._begin(start, order)
        for x, y in actions:
            self._advance(x, y)
        return self._observation()

    def render(self):
        """Draw: "rgb_array" returns the picture, (H, W, 3) uint8; "human" shows it; None raises RuntimeError."""
        if self.render_mode is None:
            raise RuntimeError('this PushTEnv was made without a render_mode: give it "rgb_array" or "human"')
        from .view import drawing as draw  # here, so that nothing but pictures needs pygame
        picture = draw.frame(self.state, target=self._actions[-1] if self._actions else None)
        if self.render_mode == "rgb_array":
            return picture
        self._window = self._window or draw.Window()
        self._window.show(picture)

    def close(self):
        """Close the window, if one is open."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _draw_start(self):
        legacy = self.seeding == "legacy"
        integer = self._rng.randint if legacy else self._rng.integers
        x, y, block_x, block_y = integer(50, 450), integer(50, 450), integer(100, 400), integer(100, 400)
        angle = self._rng.randn() * 2 * np.pi - np.pi if legacy else self._rng.uniform(-np.pi, np.pi)
        return float(x), float(y), float(block_x), float(block_y), float(angle)

    def _begin(self, start, order):
        space = self._space = pymunk.Space()
        space.damping = 0.0  # the share of its velocity that a body keeps over a second
        space.add(*[pymunk.Segment(space.static_body, a, b, 2) for a, b in _WALLS])
        agent = self._agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        block = self._block = pymunk.Body(1, 2 * pymunk.moment_for_poly(1, BAR))  # the original counts the bar twice
        block.center_of_gravity = CENTER_OF_GRAVITY
        # The space meets both bodies in these places, then they jump to the start: what its search tree saw first
        # decides how a start with an overlap is pushed apart.
        agent.position, block.position = (256, 400), (256, 300)
        space.add(agent, pymunk.Circle(agent, AGENT_RADIUS))
        space.add(block, pymunk.Poly(block, BAR), pymunk.Poly(block, STEM))

        agent.position = start[:2]
        if order == "legacy":
            block.position, block.angle = start[2:4], start[4]
        else:
            block.angle, block.position = start[4], start[2:4]
        space.step(_DT)
        self._start, self._order, self._actions, self._velocity = start, order, [], start[5:] or (0.0, 0.0)
        self._look()

    def _advance(self, target_x, target_y):
        """One action: ten substeps of acceleration = stiffness * (target - position) - damping * velocity."""
        step, agent = self._space.step, self._agent
        (x, y), (vx, vy) = self._agent_xy, self._velocity
        for _ in range(_SUBSTEPS):
            vx += (_STIFFNESS * (target_x - x) - _DAMPING * vx) * _DT
            vy += (_STIFFNESS * (target_y - y) - _DAMPING * vy) * _DT
            agent.velocity = vx, vy
            step(_DT)
            # Nothing pushes back on the agent, so we know where it went and save a slow look into pymunk.
            x += vx * _DT
            y += vy * _DT
        self._velocity = vx, vy
        self._actions.append((target_x, target_y))
        self._look()

    def _look(self):
        self._agent_xy = self._agent.position
        x, y = self._block.position
        self._pose = x, y, self._block.angle

    def _observation(self):
        if self.obs_type == "state":
            return self.state
        return np.concatenate([keypoints(self._pose).ravel(), self._agent_xy])  # (16 + 2,)

    def _require_reset(self):
        if self._space is None:
            raise RuntimeError("this PushTEnv has no episode yet: call reset() first")


def _check(what, value, allowed):
    if value not in allowed:
        raise ValueError(f"{what} must be one of {allowed}, got {value!r}")


def _numbers(what, value, count):
    """value as a tuple of `count` finite floats; ValueError if it is anything else."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be {count} numbers, got {value!r}") from None
    numbers = tuple(array.ravel().tolist())
    if array.shape != (count,) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{what} must be {count} finite numbers, shape ({count},), got {value!r}")
    return numbers
