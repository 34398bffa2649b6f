"""Demonstrations: load them, check them, cut them into windows, standardise.

A file of demonstrations holds three arrays, all episodes joined end to end:

    state         (N, S) float    what the policy may observe, one row per time step
    action        (N, D) float    what the demonstrator did then
    episode_ends  (E,)   int      the row after the last of each episode; the last entry is N
"""
import contextlib
import zipfile
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np


class Task(NamedTuple):
    """All that the method needs to know of a task.

    features(obs): observations (B, obs_horizon, S) -> features (B, F), any scale (they get standardised).
    frame(obs): where actions are measured: from the origin (B, D), along the axes (B, D, D), whose columns are orthonormal.
        A task that does not change when it is moved, turned or mirrored has a frame that moves along: then what was
        learned in one place is known in all.
    state_range, action_range: arrays (S, 2), (D, 2) of the least and largest number that makes sense.
    """
    name: str
    features: Callable
    frame: Callable
    state_range: np.ndarray
    action_range: np.ndarray


class Demos(NamedTuple):
    state: np.ndarray  # (N, S) float32
    action: np.ndarray  # (N, D) float32
    episode_ends: np.ndarray  # (E,) int64


def load(path, task):
    """Read and check demonstrations from .npz, or from a zarr folder or zip (needs the extra `zarr`).

    Raises ValueError naming the file, the array and the row at fault; FileNotFoundError where there is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file of demonstrations")
    read = _read_zarr if path.is_dir() or path.suffix == ".zip" else _read_npz
    arrays = {}
    try:
        for name, array in read(path):
            arrays[name] = array
    except Exception as error:  # damaged files raise errors of all kinds, even NotImplementedError
        raise ValueError(f"{path}: cannot be read as demonstrations: {error}") from None
    return check(arrays, task, path)


PLACES = {"state": "data/state", "action": "data/action", "episode_ends": "meta/episode_ends"}  # in a zarr group


def _read_npz(path):
    """Yield name, array; None for an array that nobody needs."""
    if not zipfile.is_zipfile(path):
        raise ValueError("not a .npz file, or not all of it")
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            with _blaming(name):
                yield name, file[name] if name in PLACES else None


def _read_zarr(path):
    """Yield name, array. Published zips wrap the group in folders, so we look for it."""
    if path.is_file():
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    else:
        names = [p.relative_to(path).as_posix() for p in path.rglob("*")]
    folders = {"/" + name.rpartition("/")[0] for name in names if name.endswith(("/.zarray", "/zarr.json"))}
    groups = [folder.removesuffix(PLACES["state"]) for folder in folders if folder.endswith("/" + PLACES["state"])]
    if len(groups) != 1:
        raise ValueError(f"{len(groups) or 'no'} zarr arrays 'data/state' are in it")
    try:
        import zarr
    except ImportError:
        raise ValueError("reading zarr needs one more package: pip install 'minidiff[zarr]'") from None
    store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
    for name, place in PLACES.items():
        if groups[0] + place in folders:
            with _blaming(name):
                array = zarr.open_array(store, path=(groups[0] + place)[1:], mode="r")
                if array.dtype.kind not in "fiu":  # before a chunk gets decoded: those of objects may be pickled
                    raise ValueError(f"should be numbers, but is {array.dtype}")
                if array.nchunks_initialized < array.nchunks:  # zarr would read zeros there
                    raise ValueError(f"has only {array.nchunks_initialized} of its {array.nchunks} chunks")
                yield name, np.asarray(array[:])


@contextlib.contextmanager
def _blaming(name):
    try:
        yield
    except Exception as error:
        raise ValueError(f"array '{name}': {error}") from None


def check(arrays, task, path="demonstrations"):
    """The arrays as Demos, if they are what the module's docstring says."""
    def refuse(name, problem):
        raise ValueError(f"{path}: array '{name}' {problem}")

    widths = {"state": len(task.state_range), "action": len(task.action_range)}
    for name in (*widths, "episode_ends"):
        if name not in arrays:
            refuse(name, f"is missing; the file holds {', '.join(sorted(arrays)) or 'nothing'}")
    for name, width in widths.items():
        a, (low, high) = np.asarray(arrays[name]), getattr(task, f"{name}_range").T
        if a.ndim != 2 or a.shape[1] != width or a.dtype.kind not in "fiu":
            refuse(name, f"should be numbers of shape (N, {width}), but is {a.dtype} {a.shape}")
        for problem, bad in (("is not finite", ~np.isfinite(a)), ("is out of range", (a < low) | (a > high))):
            if bad.any():
                row, column = np.argwhere(bad)[0]
                refuse(name, f"{problem} in row {row}, column {column}: {a[row, column]}"
                             + (f" (accepted: {low[column]:g} to {high[column]:g})" if "range" in problem else ""))
    state, action, ends = (np.asarray(arrays[name]) for name in (*widths, "episode_ends"))
    if len(state) != len(action):
        refuse("action", f"has {len(action)} rows, but 'state' has {len(state)}")
    if ends.ndim != 1 or not len(ends) or ends.dtype.kind not in "iu":
        refuse("episode_ends", f"should be integers of shape (E,), E >= 1, but is {ends.dtype} {ends.shape}")
    ends = ends.astype(np.int64)
    rising = ends > np.concatenate([[0], ends[:-1]])
    if not rising.all():
        row = int(np.argmin(rising))
        refuse("episode_ends", f"is not strictly increasing in row {row}: {ends[row]}")
    if ends[-1] != len(state):
        refuse("episode_ends", f"ends at {ends[-1]} in row {len(ends) - 1}, but 'state' has {len(state)} rows")
    return Demos(state.astype(np.float32), action.astype(np.float32), ends)


def join(parts):
    """Several Demos as one, in their order."""
    rows = np.cumsum([0] + [len(part.state) for part in parts])
    return Demos(np.concatenate([part.state for part in parts]), np.concatenate([part.action for part in parts]),
                 np.concatenate([part.episode_ends + row for part, row in zip(parts, rows)]))


def windows(demos, obs_horizon, pred_horizon):
    """Every row t as a training pair: observations t-obs_horizon+1..t and actions t..t+pred_horizon-1.

    At an episode's edges the first observation and the last action repeat.
    Returns obs (N, obs_horizon, S) and actions (N, pred_horizon, D).
    """
    ends = demos.episode_ends
    starts = np.concatenate([[0], ends[:-1]])
    t = np.arange(ends[-1])[:, None]
    first, last = np.repeat(starts, ends - starts)[:, None], np.repeat(ends, ends - starts)[:, None] - 1
    return (demos.state[np.maximum(t + np.arange(1 - obs_horizon, 1), first)],
            demos.action[np.minimum(t + np.arange(pred_horizon), last)])


class Normaliser(NamedTuple):
    """From a task's units to the network's and back: features to mean 0 and variance 1, actions to offsets in their
    frame (origin, axes), divided by the spread that such offsets have at each step of the chunk."""
    mean: np.ndarray  # (F,)
    std: np.ndarray  # (F,)
    scale: np.ndarray  # (H, 1)

    def cond(self, features):
        return ((features - self.mean) / self.std).astype(np.float32)

    def chunk(self, actions, frame):
        origin, axes = frame
        return ((actions - origin[:, None]) @ axes / self.scale).astype(np.float32)

    def actions(self, chunk, frame):
        origin, axes = frame
        return chunk * self.scale @ axes.swapaxes(1, 2) + origin[:, None]


def training_set(demos, task, obs_horizon, pred_horizon, clip):
    """What training draws from: cond (N, F), x0 (N, H, D) within +-clip, and the Normaliser that made them."""
    obs, actions = windows(demos, obs_horizon, pred_horizon)
    features, (origin, axes) = task.features(obs), task.frame(obs)
    offset = (actions - origin[:, None]) @ axes
    scale, std = np.sqrt((offset.astype(np.float64) ** 2).mean((0, 2)))[:, None], features.std(0, np.float64)
    normaliser = Normaliser(features.mean(0, np.float64), np.where(std > 1e-6, std, 1), np.maximum(scale, 1e-6))
    return normaliser.cond(features), np.clip(normaliser.chunk(actions, (origin, axes)), -clip, clip), normaliser
