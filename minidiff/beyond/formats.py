"""Demonstrations in other formats than .npz: the zarr groups that Diffusion Policy publishes, and
folders in the layout of LeRobot."""
import json
import zipfile
from pathlib import Path

import numpy as np

from .. import demos
from ..checkpoint import blaming
from ..progress import say

ZARR = "/.zarray", "/zarr.json"  # files that describe a zarr array
PLACES = {  # of the arrays in a zarr group
    "state": "data/state", "action": "data/action", "episode_ends": "meta/episode_ends"}
READABLE = ("what can be read: .npz, one zarr group in a folder or a zip, a folder in LeRobot's "
            "layout")
SIGNATURES = {  # how files of other formats begin
    b"PK": "a .npz or zip that is not whole", b"\x89HDF": "HDF5", b"\x80": "a pickle",
    b"PAR1": "one parquet file", b"\x93NUMPY": "a single array", b"\x1f\x8b": "packed by gzip"}


def load(path, task, own=None):
    """Demos from a .npz file, a zarr folder or zip (extra `zarr`), or a folder in LeRobot's layout
    (extra `lerobot`). The content tells which it is, not the name. Errors as demos.load.

    own: the task's own Demos, if there are any. Where units seem to differ from theirs, a warning
    is printed. ValueError where states or actions have another number of columns.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file of demonstrations")
    arrays = None
    try:
        files = members(path)
        if (path / "meta" / "info.json").is_file():
            arrays = read_lerobot(path, task)
        elif path.is_dir() or any(name.endswith(ZARR) for name in files):
            arrays = read_zarr(path, files)
    except Exception as error:  # damaged files raise errors of all kinds
        raise ValueError(f"{path}: cannot be read as demonstrations: {error}") from None
    data = demos.load(path, task) if arrays is None else demos.check(arrays, task, path)
    if own:
        for name in ("state", "action"):
            held, usual = getattr(data, name).shape[1], getattr(own, name).shape[1]
            if held != usual:
                raise ValueError(f"{path}: array '{name}' has {held} numbers in a row, but the "
                                 f"task's own demonstrations have {usual}")
    odd = other_units(data, own) if own else []
    if odd:
        say(f"warning: {path}: is it in the task's units? {'; '.join(odd)}")
    return data


def other_units(data, own):
    """A sentence for each column of `data` that seems to be in another unit than in the own Demos.

    So it seems where the largest magnitude in the column is more than 20 times the largest in the
    own Demos. It also seems so where it is less than a 20th of the largest magnitude in each of the
    own episodes: in each, because a column may stay near 0 in a single episode. A column of zeros
    is never reported.
    """
    said = []
    starts = np.concatenate([[0], own.episode_ends[:-1]])
    for name in ("state", "action"):
        rows, usual = getattr(data, name), getattr(own, name)
        largest = np.abs(rows).max(0)
        episodes = np.maximum.reduceat(np.abs(usual), starts)  # (E, columns)
        odd = (largest > 20 * episodes.max(0)) | (20 * largest < episodes.min(0))
        for k in np.flatnonzero(odd & (largest > 0) & (episodes.max(0) > 0)):
            span = np.ptp(usual[:, k])
            degrees = abs(np.radians(np.ptp(rows[:, k])) - span) < 0.3 * span
            said.append(f"column {k} of '{name}' is from {rows[:, k].min():.3g} to "
                        f"{rows[:, k].max():.3g}, but in the task's own demonstrations from "
                        f"{usual[:, k].min():.3g} to {usual[:, k].max():.3g}"
                        + (" (degrees for radians?)" if degrees else ""))
    return said


def idle(data):
    """Which rows of Demos are idle, (N,) bool: those in which nothing has moved.

    A row is compared with the last row before it that is not idle. It is idle if no number of the
    state differs by more than 1 % of the standard deviation of its column. So some rows of a slow
    motion are not idle. The first and the last row of an episode are never idle.
    """
    state, ends = data.state, data.episode_ends
    limit = 0.01 * state.std(0, np.float64)
    inside = np.ones(len(state), bool)
    inside[ends - 1] = False
    inside[np.concatenate([[0], ends[:-1]])] = False
    moves = (np.abs(np.diff(state, axis=0, prepend=state[:1])) > limit).any(1)
    still = np.zeros(len(state), bool)
    row = 0
    for begin in np.flatnonzero(inside & ~moves):  # few, so this is quick
        if begin <= row:
            continue
        row = begin  # the row before is not idle
        while inside[row] and (np.abs(state[row] - state[begin - 1]) <= limit).all():
            still[row] = True
            row += 1
    return still


def without_idle(data):
    """The same Demos without the idle rows."""
    kept = ~idle(data)
    return demos.Demos(data.state[kept], data.action[kept], np.cumsum(kept)[data.episode_ends - 1])


def members(path):
    """The names of what is in a folder or a zip; for other files a ValueError that says what they
    seem to be."""
    if path.is_dir():
        return [p.relative_to(path).as_posix() for p in path.rglob("*")]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            return file.namelist()
    with open(path, "rb") as file:
        start = file.read(1000)
    kind = "text" if start.isascii() and b"\0" not in start else "in another format"
    for signature, name in SIGNATURES.items():
        if start.startswith(signature):
            kind = name
    raise ValueError(f"it seems to be {kind if start else 'empty'}; {READABLE}")


def read_zarr(path, files):
    """The arrays that PLACES names. files: the names of all files. In published zips the group lies
    inside other folders, so it is looked for among these names."""
    folders = set()
    for name in files:
        if name.endswith(ZARR):
            folders.add("/" + name.rpartition("/")[0])
    groups = [folder.removesuffix(PLACES["state"]) for folder in folders
              if folder.endswith("/" + PLACES["state"])]
    if len(groups) != 1:
        raise ValueError(f"{len(groups) or 'no'} zarr arrays 'data/state' are in it; {READABLE}")
    try:
        import zarr
    except ImportError:
        raise ValueError("reading zarr needs one more package: "
                         "pip install 'minidiff[zarr]'") from None
    store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
    arrays = {}
    for name, place in PLACES.items():
        place = groups[0] + place
        if place in folders:
            with blaming(name):
                arrays[name] = numbers(zarr.open_array(store, path=place[1:], mode="r"),
                                       f"{path}: array '{name}'")
    return arrays


def numbers(array, where):
    """A zarr array as an array in memory. where: what a warning calls it.

    Zarr does not store a chunk that holds the fill value alone. A chunk that was lost looks the
    same, so a missing chunk gives a warning. ValueError where more than half of the chunks are
    missing: a damaged file may claim a size that does not fit into memory. ValueError as well for a
    missing chunk without a fill value, for anything but numbers, and for an array in shards.
    """
    if array.dtype.kind not in "fiu":  # before a chunk is decoded: objects may be pickled in it
        raise ValueError(f"should be numbers, but is {array.dtype}")
    if array.shards:  # which chunks a shard lacks cannot be counted
        raise ValueError("is stored in shards: save it without")
    chunks = array.nchunks
    missing = chunks - array.nchunks_initialized
    if missing > chunks / 2 or missing and array.fill_value is None:
        raise ValueError(f"lacks {missing} of its {chunks} chunks")
    if missing:
        say(f"warning: {where} lacks {missing} of its {chunks} chunks, which are read as its fill "
            f"value {array.fill_value}: make sure that none is lost")
    return np.asarray(array[:])


# ---- LeRobot -------------------------------------------------------------------------------------

def read_lerobot(path, task):
    """The arrays of a folder in LeRobot's layout, v2 or v3, made from the columns in task.columns.

    The parquet files in data/chunk-*/ hold one episode each (v2) or many (v3). Each row tells its
    place: row `frame_index` of episode `episode_index`.
    """
    info = json.loads((path / "meta" / "info.json").read_text(encoding="utf-8"))
    columns = table(path, ["episode_index", "frame_index", *sum(task.columns.values(), ())])
    episode, frame = columns["episode_index"][:, 0], columns["frame_index"][:, 0]
    order = np.lexsort((frame, episode))
    held, first, lengths = np.unique(episode[order], return_index=True, return_counts=True)
    absent = np.setdiff1d(np.arange(info["total_episodes"]), held)
    if len(absent):
        raise ValueError(f"episode {absent[0]} of the {info['total_episodes']} that meta/info.json "
                         "counts is not there")
    wrong = frame[order] != np.arange(len(frame)) - np.repeat(first, lengths)
    if wrong.any():
        raise ValueError(f"episode {episode[order][wrong][0]}: column 'frame_index' is not 0, 1, "
                         "2, ...: a row is lost, or there twice")
    arrays = {name: np.concatenate([columns[part] for part in parts], 1)[order]
              for name, parts in task.columns.items()}
    if task.from_columns:
        arrays["state"] = task.from_columns(arrays["state"])
    return arrays | {"episode_ends": np.cumsum(lengths)}


def table(path, names):
    """The named columns of all parquet files of a folder, as arrays (N, width) by name."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError("reading LeRobot's layout needs one more package: "
                         "pip install 'minidiff[lerobot]'") from None
    parts = {name: [] for name in names}
    files = sorted(path.glob("data/*/*.parquet"))
    if not files:
        raise ValueError("no parquet file is in the folders of 'data'")
    for file in files:
        where = file.relative_to(path)
        try:
            opened = ParquetFile(file)
            held = opened.schema_arrow.names
            for name, rows in parts.items():
                where = f"{file.relative_to(path)}: column '{name}'"
                if name not in held:
                    raise ValueError(f"is missing; there are {demos.listed(held)}")
                rows.append(numbers_of(opened.read([name]).column(name)))
                if rows[-1].shape[1] != rows[0].shape[1]:
                    raise ValueError(f"has {rows[-1].shape[1]} numbers a row, but in "
                                     f"{files[0].name} {rows[0].shape[1]}")
        except Exception as error:  # damaged files raise errors of all kinds
            raise ValueError(f"{where}: {error}") from None
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def numbers_of(column):
    """A column of numbers, or of lists of equally many numbers, as an array (N, width)."""
    from pyarrow import compute, types

    kind = getattr(column.type, "value_type", column.type)  # a list's is that of its elements
    if not types.is_integer(kind) and not types.is_floating(kind):
        raise ValueError(f"should be numbers or lists of them, but is {column.type}")
    if column.null_count:
        raise ValueError("has no value in some of its rows")
    if kind == column.type:
        return column.to_numpy()[:, None]
    lengths = compute.list_value_length(column).to_numpy()
    ragged = lengths != lengths[:1]
    if ragged.any():
        row = np.argmax(ragged)
        raise ValueError(f"has {lengths[row]} numbers in row {row}, but in row 0 {lengths[0]}")
    return compute.list_flatten(column).to_numpy().reshape(len(lengths), -1)
