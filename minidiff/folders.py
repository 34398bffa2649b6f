"""The folder of a run: which one a new run takes, and that two never share one."""
import contextlib
import itertools
import os
import shlex
from pathlib import Path

from .progress import say

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

LOCK = ".lock"  # in the folder; only on Windows


class Taken(ValueError):
    """Another process is at work in a folder, or it holds a run already."""


def holds_run(folder):
    return (Path(folder) / "checkpoint.npz").exists()


@contextlib.contextmanager
def hold(folder):
    """Make a folder if it is not there, and keep other processes out of it -> Path.

    Other processes ask here, too, and get Taken. The system frees the folder when the process ends,
    however it ends. What was made here and stayed empty is removed.
    """
    folder = Path(folder)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(folder)
    except OSError as error:
        raise OSError(f"{folder}: cannot be used as a folder ({error.strerror})") from None
    try:
        yield folder
    finally:
        os.close(descriptor)
        (folder / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            for each in made:
                each.rmdir()


def _lock(folder):
    """A descriptor; while it is open, nobody else gets one. Taken if somebody has."""
    busy = f"another process is at work in {folder}"
    if fcntl is None:
        temporary = getattr(os, "O_TEMPORARY", 0)  # the file goes when the process does
        try:
            return os.open(folder / LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR | temporary)
        except FileExistsError:
            raise Taken(busy) from None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Taken(busy) from None
    except OSError as error:  # as on some network drives
        say(f"warning: {folder} cannot be locked ({error.strerror}): make sure that nothing else "
            "writes into it")
    return descriptor


@contextlib.contextmanager
def hold_new(folder):
    """`hold` for a new run: Taken as well if the folder holds one."""
    with hold(folder) as held:
        if holds_run(held):
            raise Taken(f"{held} already holds a run: continue it with --resume "
                        f"{shlex.quote(str(held))}, or choose another folder")
        yield held


@contextlib.contextmanager
def hold_next(folder):
    """`hold_new` of the first that is free: folder, folder-2, folder-3, .."""
    with contextlib.ExitStack() as stack:
        for number in itertools.count(1):
            candidate = folder if number == 1 else f"{folder}-{number}"
            if holds_run(candidate):
                continue
            with contextlib.suppress(Taken):
                held = stack.enter_context(hold_new(candidate))
                break
        if number > 1:
            say(f"{folder} is taken; this run goes into {held}")
        yield held
