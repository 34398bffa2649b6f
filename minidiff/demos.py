"""Demonstrations: load them, check them, cut them into windows, normalise.

A window is a training pair: the latest observations, and the chunk of actions that follows.
An episode is one demonstration. A file holds three arrays, all episodes joined end to end:

    state         (N, S) float    what the policy may observe, one row per time step
    action        (N, D) float    what the demonstrator did then
    episode_ends  (E,)   int      the row after the last of each episode; the last entry is N
"""
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

from .checkpoint import read_npz


def as_they_are(obs, frame):
    """All numbers of the observations as features: (B, obs_horizon, S) -> (B, obs_horizon S)."""
    return obs.reshape(len(obs), -1)


class Task(NamedTuple):
    """All that minidiff needs to know of a task. Everything has a default.

    The method:

    features(obs, frame): observations (B, obs_horizon, S) -> features (B, F), in any units.
    frame(obs): the coordinate frame of actions: its origin (B, D), and its axes (B, D, D) as
        orthonormal columns. Some tasks stay the same when all is moved, turned or mirrored. There a
        frame that moves along, and features in it, make the plans move, too (equivariance).
        None: actions are learned as they are, each dimension in its own unit.
    state_range, action_range: arrays (S, 2), (D, 2), the smallest and largest number allowed in
        demonstrations. None: any finite number.
    relabel(demos) -> Demos changed as if each demonstration had aimed at what it reached
        (hindsight), for Config.relabel. None: the task cannot be relabelled.

    Training and scoring:

    demos: the demonstrations to learn from by default: a file, or a function that returns the
        arrays of such a file in a dictionary. None: the task has none.
    recipe: fields of Config, by name, in which this task's defaults differ from those of Config.
    action_horizon: how many actions of a plan are carried out before the next plan. A compromise:
        with fewer the policy reacts sooner, with more it keeps longer to one of several ways. But
        the later actions of a plan rest on an older observation. 4 is half of the default plan.
    make_env(): an environment: reset(seed=) -> obs, info; step(action) -> obs, reward, terminated,
        truncated, info, as Gymnasium has them. info["is_success"], if it is there, says whether
        the task is solved. None: there is no environment, and policies cannot be scored.
    max_steps: an episode ends after so many steps, if the environment has not ended it. None: the
        environment alone ends it.
    score(rewards): the score of an episode, from the list of its rewards: sum, max, or another.
    score_range: the lowest and the highest possible score. None: not known.

    Demonstrations in tables (beyond/formats.py):

    columns: for state and for action, the names of the columns that are joined to make it.
    from_columns(rows (N, C)) -> state (N, S), computed from the columns of "state". None: they are
        the state.
    """
    name: str = ""  # by default the name of the task's file (beyond/tasks.py)
    features: Callable = as_they_are
    frame: Callable | None = None
    state_range: np.ndarray | None = None
    action_range: np.ndarray | None = None
    relabel: Callable | None = None
    demos: str | Path | Callable | None = None
    recipe: dict = {}
    action_horizon: int = 4
    make_env: Callable | None = None
    max_steps: int | None = 1000
    score: Callable = sum
    score_range: tuple | None = None
    columns: dict = {"state": ("observation.state",), "action": ("action",)}
    from_columns: Callable | None = None


class Demos(NamedTuple):
    """Demonstrations in memory; see the module's docstring."""
    state: np.ndarray  # (N, S) float32 or float64
    action: np.ndarray  # (N, D), likewise
    episode_ends: np.ndarray  # (E,) int64


# ---- files ---------------------------------------------------------------------------------------

NAMES = ("state", "action", "episode_ends")


def load(path, task):
    """Demos from a .npz file, read and checked (beyond.formats reads other formats).

    Raises ValueError naming the file, the array and the row at fault; FileNotFoundError where there
    is no such file.
    """
    return check(read(path, NAMES), task, path)


def own(task):
    """The Demos that a task comes with. ValueError if it has none, or they fail `check`."""
    if task.demos is None:
        raise ValueError(f"the task '{task.name}' has no demonstrations of its own: name a file of "
                         "them, --demos FILE")
    if not callable(task.demos):
        return load(task.demos, task)
    where = f"the demonstrations of the task '{task.name}'"
    arrays = task.demos()
    if not isinstance(arrays, dict):
        raise ValueError(f"{where}: its function should return arrays by name, not "
                         f"{type(arrays).__name__}")
    return check(arrays, task, where)


def read(path, names):
    """The arrays of a .npz file of demonstrations that `names` asks for -> dictionary by name.

    If `state`, `action` or `episode_ends` is asked for, the file must hold it. Other names that it
    lacks are left out. Nothing in a file is executed. Errors as for `load`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file of demonstrations")
    try:
        arrays, held = read_npz(path, names)
    except Exception as error:  # damaged files raise errors of all kinds
        raise ValueError(f"{path}: cannot be read as demonstrations: {error}") from None
    for name in NAMES:
        if name in names and name not in arrays:
            _refuse(path, name, f"is missing; the file holds {listed(held)}")
    return arrays


def check(arrays, task, path="demonstrations"):
    """The arrays as Demos, if they are what the module's docstring says; else ValueError."""
    for name in NAMES:
        if name not in arrays:
            _refuse(path, name, f"is missing; there is {listed(arrays)}")
    state = _checked_rows(path, "state", arrays["state"], task.state_range)
    action = _checked_rows(path, "action", arrays["action"], task.action_range)
    if len(state) != len(action):
        _refuse(path, "action", f"has {len(action)} rows, but 'state' has {len(state)}")
    ends = np.asarray(arrays["episode_ends"])
    if ends.ndim != 1 or not len(ends) or ends.dtype.kind not in "iu":
        _refuse(path, "episode_ends", "should be integers of shape (E,), E >= 1, "
                                      f"but is {ends.dtype} {ends.shape}")
    ends = ends.astype(np.int64)
    rising = ends > np.concatenate([[0], ends[:-1]])
    if not rising.all():
        row = int(np.argmin(rising))
        _refuse(path, "episode_ends", f"is not strictly increasing in row {row}: {ends[row]}")
    if ends[-1] != len(state):
        _refuse(path, "episode_ends", f"ends at {ends[-1]} in row {len(ends) - 1}, "
                                      f"but 'state' has {len(state)} rows")
    return Demos(floats(state), floats(action), ends)


def _checked_rows(path, name, rows, accepted):
    """rows as an array, if it is (N, width) of finite numbers within accepted (width, 2).

    accepted None: of any width, and any finite numbers.
    """
    rows = np.asarray(rows)
    width = "width" if accepted is None else len(accepted)
    fits = rows.ndim == 2 and (accepted is None or rows.shape[1] == width)
    if not fits or rows.dtype.kind not in "fiu":
        _refuse(path, name, f"should be numbers of shape (N, {width}), "
                            f"but is {rows.dtype} {rows.shape}")
    bad = ~np.isfinite(rows)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        _refuse(path, name, f"is not finite in row {row}, column {column}: {rows[row, column]}")
    if accepted is None:
        return rows
    low, high = accepted.T
    bad = (rows < low) | (rows > high)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        _refuse(path, name, f"is out of range in row {row}, column {column}: {rows[row, column]} "
                            f"(accepted: {low[column]:g} to {high[column]:g})")
    return rows


def floats(rows):
    """float32 stays, all else becomes float64, to keep small differences of large numbers."""
    return rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)


def listed(names):
    return ", ".join(sorted(names)) or "nothing"


def _refuse(path, name, problem):
    raise ValueError(f"{path}: array '{name}' {problem}")


def join(parts):
    """Several Demos as one, in their order. ValueError where their widths differ."""
    for name in ("state", "action"):
        widths = sorted({getattr(part, name).shape[1] for part in parts})
        if len(widths) > 1:
            raise ValueError(f"demonstrations with {widths[0]} and with {widths[1]} numbers in a "
                             f"row of '{name}' cannot be learned together")
    rows = np.cumsum([0] + [len(part.state) for part in parts])
    return Demos(np.concatenate([part.state for part in parts]),
                 np.concatenate([part.action for part in parts]),
                 np.concatenate([part.episode_ends + row for part, row in zip(parts, rows)]))


# ---- from rows to what a network is trained on ---------------------------------------------------

def windows(demos, obs_horizon, pred_horizon):
    """The window of every row i: observations i-obs_horizon+1..i, actions i..i+pred_horizon-1.

    At the ends of an episode its first observation and its last action are repeated.
    Returns obs (N, obs_horizon, S) and actions (N, pred_horizon, D).
    """
    ends = demos.episode_ends
    starts = np.concatenate([[0], ends[:-1]])
    i = np.arange(ends[-1])[:, None]
    first = np.repeat(starts, ends - starts)[:, None]  # (N, 1), of the episode that row i is in
    last = np.repeat(ends, ends - starts)[:, None] - 1
    obs = demos.state[np.maximum(i + np.arange(1 - obs_horizon, 1), first)]
    actions = demos.action[np.minimum(i + np.arange(pred_horizon), last)]
    return obs, actions


def drawn(episode_ends, last, times):
    """Row numbers to draw batches from: each once, the `last` rows of each episode `times` times.

    Episodes end with small corrections. These decide success, but are few among all rows.
    """
    rows = np.arange(episode_ends[-1])
    left = np.repeat(episode_ends, np.diff(episode_ends, prepend=0)) - rows  # 1 in the last row
    return np.repeat(rows, np.where(left <= last, times, 1))


def to_frame(actions, frame):
    """Actions (B, H, D) as offsets from the frame's origin, along its axes; None: as they are."""
    if frame is None:
        return actions
    origin, axes = frame
    return (actions - origin[:, None]) @ axes


def from_frame(offsets, frame):
    """The inverse of to_frame: the axes are orthonormal, so their inverse is their transpose."""
    if frame is None:
        return offsets
    origin, axes = frame
    return offsets @ axes.swapaxes(1, 2) + origin[:, None]


BOUND = 20.0  # on features, in standard deviations; those of PushT's demonstrations stay below 13


class Normaliser(NamedTuple):
    """From a task's units to the network's and back.

    Features get mean 0 and variance 1. Actions become offsets in their frame, divided by their root
    mean square. Each step of the chunk has its own root mean square, as later actions lie farther
    away, but one for all dimensions, as axes that turn mix the dimensions. Without a frame each
    dimension gets mean 0 and variance 1, by numbers that all steps of the chunk share.
    """
    mean: np.ndarray  # (F,)
    std: np.ndarray  # (F,)
    centre: np.ndarray  # (D,), 0 where there is a frame
    scale: np.ndarray  # (H, 1), or (H, D) where there is no frame

    def standardise(self, features):
        """Features (B, F) -> what the network is shown, (B, F) float32, within +-BOUND."""
        if features.shape[1:] != self.mean.shape:
            raise ValueError(f"this normaliser is for {self.mean.size} features, "
                             f"not for {features.shape[1]}")
        return np.clip((features - self.mean) / self.std, -BOUND, BOUND).astype(np.float32)

    def normalise(self, actions, frame):
        """Actions (B, H, D) in the task's units -> x_0 (B, H, D) float32."""
        return ((to_frame(actions, frame) - self.centre) / self.scale).astype(np.float32)

    def denormalise(self, x, frame):
        """The inverse of normalise."""
        return from_frame(x * self.scale + self.centre, frame)


def training_set(demos, task, obs_horizon, pred_horizon, clip, normaliser=None):
    """What training samples from: cond (N, F), x0 (N, H, D) within +-clip, and their Normaliser.

    normaliser: one to be used instead of fitting one to these demonstrations.
    """
    obs, actions = windows(demos, obs_horizon, pred_horizon)
    frame = frame_of(task, obs)
    features = task.features(obs, frame)
    normaliser = normaliser or fitted(features, actions, frame)
    x0 = np.clip(normaliser.normalise(actions, frame), -clip, clip)
    return normaliser.standardise(features), x0, normaliser


def fitted(features, actions, frame):
    """The Normaliser fitted to features (N, F) and to actions (N, H, D) in their frame."""
    offsets = to_frame(actions, frame).astype(np.float64)
    if frame is None:
        centre = offsets.mean((0, 1))
        scale = varying(offsets.std((0, 1)), np.abs(offsets).max((0, 1)))  # (D,)
        scale = np.tile(scale, (actions.shape[1], 1))
    else:
        centre = np.zeros(actions.shape[2])
        scale = np.sqrt((offsets ** 2).mean((0, 2)))[:, None]  # (H, 1)
        scale = varying(scale, scale.max())
    std = varying(features.std(0, np.float64), np.abs(features).max(0))
    return Normaliser(features.mean(0, np.float64), std, centre, scale)


def frame_of(task, obs):
    """The frame of observations; None if the task has none."""
    return None if task.frame is None else task.frame(obs)


def varying(spread, magnitude):
    """What to divide by: the spread; of constant numbers the magnitude, or 1 if they are all 0."""
    constant = spread <= 1e-6 * magnitude
    return np.where(constant, np.where(magnitude > 0, magnitude, 1), spread)
