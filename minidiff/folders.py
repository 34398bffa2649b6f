"""The folder of a run: which one a new run takes, and a lock, so that no two runs share one."""
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

LOCK = ".lock"  # the file that locks a folder on Windows


class Taken(ValueError):
    """Another process is at work in the folder, or the folder holds a run already."""


def holds_run(folder):
    return (Path(folder) / "checkpoint.npz").exists()


@contextlib.contextmanager
def hold(folder):
    """Make a folder if it is not there, and lock it against other processes -> Path.

    Another process that calls this gets Taken. The system releases the lock when the process ends,
    however it ends. Folders that were made here and are still empty are removed at the end.
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
    """A file descriptor that locks the folder while it is open. Taken if another process has it."""
    busy = f"another process is at work in {folder}"
    if fcntl is None:
        temporary = getattr(os, "O_TEMPORARY", 0)  # deleted when the process ends
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
    """`hold` for a new run: Taken, too, if the folder holds a run already."""
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
