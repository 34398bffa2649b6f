"""Demonstrations in other formats than .npz: the zarr groups that Diffusion Policy publishes."""
import zipfile
from pathlib import Path

import numpy as np

from .. import demos
from ..checkpoint import blaming
from ..progress import say

PLACES = {  # of the arrays in a zarr group
    "state": "data/state", "action": "data/action", "episode_ends": "meta/episode_ends"}


def load(path, task):
    """Demos from a .npz file, or from a zarr folder or zip (extra `zarr`). Errors as demos.load."""
    path = Path(path)
    if not path.is_dir() and path.suffix != ".zip":
        return demos.load(path, task)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file of demonstrations")
    try:
        arrays = read_zarr(path)
    except Exception as error:  # damaged files raise errors of all kinds, even NotImplementedError
        raise ValueError(f"{path}: cannot be read as demonstrations: {error}") from None
    return demos.check(arrays, task, path)


def read_zarr(path):
    """The arrays that PLACES names. Published zips wrap the group in folders, so we look for it."""
    if path.is_file():
        with zipfile.ZipFile(path) as file:
            files = file.namelist()
    else:
        files = [p.relative_to(path).as_posix() for p in path.rglob("*")]
    folders = set()
    for name in files:
        if name.endswith(("/.zarray", "/zarr.json")):
            folders.add("/" + name.rpartition("/")[0])
    groups = [folder.removesuffix(PLACES["state"]) for folder in folders
              if folder.endswith("/" + PLACES["state"])]
    if len(groups) != 1:
        raise ValueError(f"{len(groups) or 'no'} zarr arrays 'data/state' are in it")
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
    """A zarr array in memory, if it is of numbers. where: what a warning calls it.

    Zarr leaves out chunks in which all is the fill value; one that was lost looks the same. Where
    most are not there, the file is damaged; it might take hours to read, and more than the memory.
    """
    if array.dtype.kind not in "fiu":  # before a chunk is decoded: those of objects may be pickled
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
