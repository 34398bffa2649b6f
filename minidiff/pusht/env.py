"""The PushT world: a round agent pushes a T-shaped block onto a goal pose. 2-D physics by pymunk.

Units are pixels, radians and seconds; the world is the square [0, 512] x [0, 512]. A pose is
(x, y, angle) of the block's body frame (geometry.py). An action is a point (x, y), towards which a
PD controller pulls the agent for 0.1 s. A step of the world carries out one action, in ten physics
steps. The damping is total: a block that is not pushed does not move.

All numbers are those of the original PushT (Florence et al. 2021; Chi et al. 2023), to the last
bit, so that published seeds, demonstrations and scores mean the same here.
"""
import copy
import math
from typing import NamedTuple

import numpy as np

from . import geometry
from .geometry import SUCCESS_COVERAGE, WORLD_SIZE, coverage, keypoints

try:
    import pymunk
except ImportError:
    pymunk = None  # PushTEnv() says what to do

_WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))
_STARTS = ((50, 450), (50, 450), (100, 400), (100, 400))  # agent x, y, block x, y: low <= n < high
_DT = 0.01  # s, of a physics step
_SUBSTEPS = 10  # physics steps in an action
_STIFFNESS = 100.0  # of the PD controller, 1/s^2
_DAMPING = 20.0  # of the PD controller, 1/s


class Snapshot(NamedTuple):
    """A moment of an episode, stored as the history that led to it."""

    start: tuple  # the state that the episode began in, 5 or 7 numbers
    order: str  # how this state was set, see PushTEnv: state_order
    actions: tuple  # all actions since, clipped


class PushTEnv:
    """PushT with Gymnasium's signatures (and without Gymnasium).

    seeding      how `reset(seed=...)` samples a start: agent x, y from 50..449 and block x, y from
                 100..399, whole numbers, and the angle. "legacy": by RandomState(seed), the angle
                 as 2 pi randn() - pi, like the original and all published lists of seeds; "modern":
                 by default_rng(seed), the angle uniform in [-pi, pi), like gym-pusht.
    state_order  how `options={"state": ...}` is set. "exact": first the angle, then the position.
                 This gives the state asked for, and it replays the human demonstrations. "legacy":
                 first the position, then the angle. This rotates the block about its centre of
                 gravity, so its origin moves. Sampled starts are always set the legacy way.
    obs_type     "state": (5,) float64 = agent x, y, block x, y, block angle mod 2 pi;
                 "keypoints": (18,) float64 = the block's eight keypoints x, y, then agent x, y.
    max_steps    the number of steps of the world after which `truncated` is True.
    render_mode  None, "rgb_array" or "human": what `render()` does.

    Raises ValueError for an unknown name or number, RuntimeError without pymunk.
    """
    waiting = ()  # actions that were chosen, but not yet carried out: here, there are none

    def __init__(self, seeding="legacy", state_order="legacy", obs_type="state", max_steps=300,
                 render_mode=None):
        if pymunk is None:
            raise RuntimeError("PushT's world needs pymunk: pip install 'minidiff[pusht]'")
        _check("seeding", seeding, ("legacy", "modern"))
        _check("state_order", state_order, ("legacy", "exact"))
        _check("obs_type", obs_type, ("state", "keypoints"))
        _check("render_mode", render_mode, (None, "rgb_array", "human"))
        if not max_steps >= 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps!r}")
        self.seeding = seeding
        self.state_order = state_order
        self.obs_type = obs_type
        self.max_steps = max_steps
        self.render_mode = render_mode
        self._rng = None
        self._space = None
        self._window = None

    def reset(self, *, seed=None, options=None):
        """Begin an episode. Returns (observation, info), info as `step` returns it.

        seed: of a new random generator; None keeps the present one, if there is one. options: a
        dict. Its "state" is the start: five numbers as in `state`, or seven as in `motion`. Its
        "order" is a state_order for this state alone. ValueError for anything else. As in the
        original, one physics step follows.
        """
        options = options or {}
        for key in options:
            _check("a key of options", key, ("state", "order"))
        order = options.get("order", self.state_order)
        _check("order", order, ("legacy", "exact"))
        if seed is not None or self._rng is None:
            legacy = self.seeding == "legacy"
            self._rng = np.random.RandomState(seed) if legacy else np.random.default_rng(seed)
        if "state" in options:
            count = 7 if np.size(options["state"]) == 7 else 5
            self._begin(_numbers("state", options["state"], count), order)
        else:
            self._begin(self._sample_start(), "legacy")
        return self._observation(), self._info()

    def step(self, action):
        """Pull the agent towards a point for 0.1 s.

        action: two finite numbers x, y, clipped to [0, 512]. Returns (observation, reward,
        terminated, truncated, info): reward = min(coverage / 0.95, 1); terminated if
        coverage > 0.95; truncated from step `max_steps` on; info = {"coverage": float,
        "is_success": bool}, is_success the same as terminated. Further steps are possible after
        either. Raises ValueError for another shape or numbers that are not finite, RuntimeError
        before `reset`.
        """
        self._require_reset()
        x, y = _numbers("action", action, 2)
        self._advance(min(max(x, 0.0), float(WORLD_SIZE)), min(max(y, 0.0), float(WORLD_SIZE)))
        info = self._info()
        reward = min(info["coverage"] / SUCCESS_COVERAGE, 1.0)
        truncated = len(self._actions) >= self.max_steps
        return self._observation(), reward, info["is_success"], truncated, info

    def simulate(self, actions):
        """Carry out actions (n, 2), as n calls of `step` would -> the states reached, (n, 5).

        It checks nothing and computes no coverage, so it takes about half the time.
        """
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
        agent_x, agent_y = self._agent_xy
        x, y, angle = self._pose
        return np.array([agent_x, agent_y, x, y, angle % (2 * math.pi)])

    @property
    def motion(self):
        """(7,) float64: `state`, and the agent's velocity (px/s)."""
        return np.array([*self.state, *self._velocity])

    @property
    def pose(self):
        """(3,) float64: block x, y and angle, here not mod 2 pi."""
        self._require_reset()
        return np.array(self._pose)

    def snapshot(self):
        """This moment, picklable, for `restore` here or in another PushTEnv. The random generator
        is not part of it.

        Positions and velocities are not enough: pymunk also keeps impulses, corrections and search
        hints of past contacts, which cannot be read. In the middle of a push, a copy without them
        soon moves differently. Only the same history leads to the same future to the last bit. So
        a snapshot holds the history.
        """
        self._require_reset()
        return Snapshot(self._start, self._order, tuple(self._actions))

    def restore(self, snapshot):
        """Return to the moment of a snapshot by simulating its history again (20 us for a step of
        the world). Returns the observation.

        `reset(options={"state": env.motion, "order": "exact"})` is an alternative whose time does
        not grow with the episode. It forgets the contacts, so later states differ by about 0.1 px.
        """
        start, order, actions = snapshot
        self._begin(start, order)
        for x, y in actions:
            self._advance(x, y)
        return self._observation()

    def __getstate__(self):
        """What a copy or a pickle holds: the history, as a snapshot does, and all attributes but
        pymunk's objects and the window. The random generator is one of them."""
        outside = {"_space": None, "_agent": None, "_block": None, "_window": None}
        return {"attributes": self.__dict__ | outside, "begun": self._space is not None}

    def __setstate__(self, state):
        self.__dict__.update(state["attributes"])
        if state["begun"]:
            self.restore(Snapshot(self._start, self._order, tuple(self._actions)))

    def __copy__(self):
        return copy.deepcopy(self)  # a shallow copy would share its attributes

    def render(self, size=512):
        """Draw the world. render_mode "rgb_array" returns the picture, (size, size, 3) uint8;
        "human" shows it in a window. RuntimeError without a render_mode or without pygame."""
        if self.render_mode is None:
            raise RuntimeError("this PushTEnv was made without a render_mode: "
                               'give it "rgb_array" or "human"')
        from .view import drawing  # here, as nothing but pictures needs pygame
        target = self._actions[-1] if self._actions else None
        picture = drawing.frame(self.state, target, size=size)
        if self.render_mode == "rgb_array":
            return picture
        if self._window is None:
            self._window = drawing.Window()
        self._window.show(picture)

    def close(self):
        """Close the window, if one is open."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _sample_start(self):
        if self.seeding == "legacy":
            numbers = [self._rng.randint(low, high) for low, high in _STARTS]
            angle = self._rng.randn() * 2 * np.pi - np.pi
        else:
            numbers = [self._rng.integers(low, high) for low, high in _STARTS]
            angle = self._rng.uniform(-np.pi, np.pi)
        return (*map(float, numbers), float(angle))

    def _begin(self, start, order):
        """Make a new world. start: 5 numbers, as `state`, or 7 with the agent's velocity."""
        space = pymunk.Space()
        space.damping = 0.0  # the share of its velocity that a body keeps over a second
        space.add(*[pymunk.Segment(space.static_body, a, b, 2) for a, b in _WALLS])
        agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        moment = 2 * pymunk.moment_for_poly(1, geometry.BAR)  # the original counts the bar twice
        block = pymunk.Body(1, moment)
        block.center_of_gravity = geometry.CENTER_OF_GRAVITY
        # The bodies are added in these places, as in the original, and only then moved to the
        # start: pymunk's search tree remembers where it first saw them, and this decides how a
        # start in which they overlap is pushed apart.
        agent.position = (256, 400)
        block.position = (256, 300)
        space.add(agent, pymunk.Circle(agent, geometry.AGENT_RADIUS))
        space.add(block, pymunk.Poly(block, geometry.BAR), pymunk.Poly(block, geometry.STEM))

        agent.position = start[:2]
        if order == "legacy":
            block.position = start[2:4]
            block.angle = start[4]
        else:
            block.angle = start[4]
            block.position = start[2:4]
        space.step(_DT)
        self._space = space
        self._agent = agent
        self._block = block
        self._velocity = start[5:] or (0.0, 0.0)
        self._start = start
        self._order = order
        self._actions = []
        self._look()

    def _advance(self, target_x, target_y):
        """One action: ten physics steps with the acceleration of the PD controller,
        stiffness * (target - position) - damping * velocity."""
        agent = self._agent
        step = self._space.step
        x, y = self._agent_xy
        vx, vy = self._velocity
        for _ in range(_SUBSTEPS):
            vx += (_STIFFNESS * (target_x - x) - _DAMPING * vx) * _DT
            vy += (_STIFFNESS * (target_y - y) - _DAMPING * vy) * _DT
            agent.velocity = vx, vy
            step(_DT)
            # Nothing pushes back on the agent, so its position is known without asking pymunk.
            x += vx * _DT
            y += vy * _DT
        self._velocity = vx, vy
        self._actions.append((target_x, target_y))
        self._look()

    def _look(self):
        """Read the agent's position and the block's pose from pymunk, once for each action."""
        self._agent_xy = self._agent.position
        x, y = self._block.position
        self._pose = x, y, self._block.angle

    def _observation(self):
        if self.obs_type == "state":
            return self.state
        return np.concatenate([keypoints(self._pose).ravel(), self._agent_xy])  # (16 + 2,)

    def _info(self):
        covered = coverage(self._pose)
        return {"coverage": covered, "is_success": covered > SUCCESS_COVERAGE}

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
