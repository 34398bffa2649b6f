"""Save and load everything that a run needs, in one .npz file.

The arrays stand under their own names; everything else is one JSON text, `meta`. Loading never
executes anything from the file (allow_pickle=False), and saving never leaves half a file: the new
one replaces the old one when it is whole.
"""
import json
import os
import platform
import zipfile
from pathlib import Path

import numpy as np

from . import __version__

FORMAT = "minidiff checkpoint"
FORMAT_VERSION = 3


def write_atomically(path, write):
    """Call write(file) on a temporary neighbour of `path`, then put it in path's place at once."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value):
    text = json.dumps(value, indent=1)
    write_atomically(path, lambda file: file.write(text.encode()))


def save(path, arrays, meta):
    """Write a checkpoint. arrays: name -> ndarray; meta: whatever JSON can hold."""
    meta = meta | {"format": FORMAT, "format_version": FORMAT_VERSION, "versions": {
        "minidiff": __version__, "numpy": np.__version__, "python": platform.python_version()}}
    write_atomically(path, lambda file: np.savez(file, meta=json.dumps(meta), **arrays))


def load(path, needs=()):
    """Read a checkpoint -> (arrays, meta). `needs` names the arrays that it must hold.

    Raises ValueError with one sentence for a file that is truncated, foreign or of another version
    of this program.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: this is not a {FORMAT}, or not all of it")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # damaged files raise errors of all kinds, even NotImplementedError
        raise ValueError(f"{path}: this is not a {FORMAT}, or it is damaged ({error})") from None
    try:
        meta = json.loads(str(arrays.pop("meta")))
        format = meta["format"]
        version = meta["format_version"]
        author = meta["versions"]["minidiff"]
    except (KeyError, TypeError, json.JSONDecodeError):
        format = None
    if format != FORMAT:
        raise ValueError(f"{path}: this is not a {FORMAT}")
    if version != FORMAT_VERSION:
        age = "a newer" if version > FORMAT_VERSION else "an older"
        raise ValueError(f"{path}: written by {age} minidiff ({author}) in format {version}; this "
                         f"one ({__version__}) reads format {FORMAT_VERSION}: train it again")
    missing = [name for name in needs if name not in arrays]
    if missing:
        raise ValueError(f"{path}: the checkpoint lacks {', '.join(missing)}")
    return arrays, meta
