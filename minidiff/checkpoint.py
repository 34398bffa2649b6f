"""Checkpoints: arrays by name in one .npz file, and all else in it as one JSON text, `meta`.

Loading executes nothing from the file, and trusts no size that the file states: an array is read
only if it is asked for, holds numbers or text, and has as many bytes as its shape needs. Saving
never leaves half a file: the new one replaces the old one once it is complete.
"""
import contextlib
import json
import math
import os
import platform
import re
import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np

from . import __version__

FORMAT = "minidiff checkpoint"
FORMAT_VERSION = 3
DEFLATE = 1100  # zip cannot compress data by a larger factor


# ---- writing -------------------------------------------------------------------------------------

def write_atomically(path, write):
    """Call write(file) on a temporary file next to `path`, then rename it to `path` in one step.

    If path is a link, the file that it leads to is replaced. A device or a pipe is written to.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as file:
            return write(file)
    clean(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path):
    """Raise now, before long work, if write_atomically could not write to this path."""
    if not str(path):
        raise ValueError("the name of a file to write is empty: is a variable not set?")
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file to write")
    if path.exists() and not path.is_file():
        return  # a device or a pipe
    folder = next(filter(os.path.lexists, path.parents))  # those below will be made
    try:
        if not folder.is_dir():
            raise NotADirectoryError(0, f"{folder} is no folder")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{path}: cannot be written there ({error.strerror})") from None


def clean(path):
    """Remove temporary files of processes that were killed while they wrote `path`."""
    for left in path.parent.glob(f".{glob_escape(path.name)}.*.tmp"):
        process = re.fullmatch(r"\.(\d+)\.\d+\.tmp", left.name[len(path.name) + 1:])
        if process and os.name == "posix" and not alive(int(process[1])):
            left.unlink(missing_ok=True)


def glob_escape(name):
    return re.sub(r"([*?[])", r"[\1]", name)


def alive(process):
    """Whether a process with that number runs on this machine (POSIX)."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_json(path, value):
    text = json.dumps(value, indent=1)
    write_atomically(path, lambda file: file.write(text.encode()))


def save(path, arrays, meta):
    """Write a checkpoint. arrays: name -> ndarray; meta: whatever JSON can hold."""
    meta = meta | {"format": FORMAT, "format_version": FORMAT_VERSION, "versions": {
        "minidiff": __version__, "numpy": np.__version__, "python": platform.python_version()}}
    write_atomically(path, lambda file: np.savez(file, meta=json.dumps(meta), **arrays))


# ---- reading -------------------------------------------------------------------------------------

def read_npz(path, names):
    """The arrays of a .npz that `names` asks for (None: all), by name, and the names of all in it.

    ValueError, which names the array, if it is damaged, pickled, or neither numbers nor text.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("not a .npz file, or not all of it")
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        held = [name.removesuffix(".npy") for name in archive.namelist()]
        for name in held:
            if names is None or name in names:
                with blaming(name):
                    arrays[name] = _read_array(archive, archive.getinfo(f"{name}.npy"))
    return arrays, held


def _read_array(archive, info):
    if info.file_size > DEFLATE * info.compress_size:
        raise ValueError("it is compressed more than zip can")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                       (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = read_header(file)
    if dtype.kind not in "fiubU" or not dtype.itemsize:
        raise ValueError(f"should be numbers, but is {dtype}")
    if math.prod(shape) * dtype.itemsize > info.file_size:
        raise ValueError("it has fewer bytes than its shape needs")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


@contextlib.contextmanager
def blaming(name):
    """An error of any kind inside becomes a ValueError that names the array."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"array '{name}': {str(error) or type(error).__name__}") from None


def load(path, needs=None):
    """Read a checkpoint -> (arrays, meta). `needs` names the arrays to read; None: all.

    Raises ValueError with one sentence if the file is damaged, is no checkpoint, has the format of
    another version of this program, or lacks an array.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        arrays, held = read_npz(path, None if needs is None else ("meta", *needs))
    except Exception as error:
        raise ValueError(f"{path}: this is not a {FORMAT}, or it is damaged ({error})") from None
    try:
        meta = json.loads(str(arrays.pop("meta")))
        format = meta["format"]
        version = meta["format_version"]
        author = meta["versions"]["minidiff"]
    except (KeyError, TypeError, ValueError, RecursionError):
        format = None
    if format != FORMAT:
        raise ValueError(f"{path}: this is not a {FORMAT}")
    if version != FORMAT_VERSION:
        older = isinstance(version, int) and version < FORMAT_VERSION
        raise ValueError(f"{path}: written by {'an older' if older else 'a newer'} minidiff "
                         f"({author}) in format {version}; this one ({__version__}) reads format "
                         f"{FORMAT_VERSION}: train it again")
    missing = [name for name in needs or () if name not in held]
    if missing:
        raise ValueError(f"{path}: the checkpoint lacks {', '.join(missing)}")
    return arrays, meta
