"""Many machines: the workers of a dask.distributed cluster as an executor (extra `dask`).

    dask scheduler                                on one machine, which prints the address
    dask worker tcp://HOST:8786 --nthreads 1      on each: --nworkers 16 starts as many processes
    python eval.py --scheduler tcp://HOST:8786

On every machine, that of the scheduler too, minidiff must be installed, in the same version.
"""
import concurrent.futures
import functools
import importlib.metadata
import pickle
import sys
from pathlib import Path

from .. import __version__
from ..progress import say
from .workers import Workers

PATIENCE = 10  # s to wait for a scheduler, and for a worker


def executor(address, count, task=None):
    """The executor for the work: a Cluster where there is an address, else `count` Workers.

    task: the Task whose functions a Cluster carries out. Its file need not be on the workers'
    machines.
    """
    return Cluster(address, task) if address else Workers(count)


class Cluster(concurrent.futures.Executor):
    """The workers that a dask scheduler has, for use in a `with` block.

    If a worker dies, another one repeats its call, with the same result. A future raises
    BrokenExecutor where several workers have died during its call (dask's allowed-failures), or
    where the scheduler is gone. ValueError without dask, a scheduler or a worker that has minidiff.
    """

    def __init__(self, address, task=None):
        try:
            import cloudpickle
            import distributed
        except ImportError:
            raise ValueError("a cluster needs one more package: "
                             "pip install 'minidiff[dask]'") from None
        try:
            self.client = distributed.Client(address, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise ValueError(f"{address}: no scheduler answers there ({error})") from None
        self.pickle = cloudpickle.dumps
        for module in homes(task or ()):
            cloudpickle.register_pickle_by_value(module)
        self.check()

    def check(self):
        """ValueError where no worker can run minidiff; a warning where one has other versions."""
        try:
            self.client.wait_for_workers(1, timeout=PATIENCE)
            there = self.client.run(versions)
        except Exception as error:  # dask raises what a worker says as a plain Exception
            self.client.close()
            raise ValueError(f"no worker of the cluster can run minidiff: is one started, and "
                             f"minidiff installed there? ({error})") from None
        for worker, theirs in there.items():
            if theirs != versions():
                say(f"warning: {worker} has {theirs}, this machine {versions()}: results may "
                    "differ in their last digits")

    def submit(self, function, /, *args, **options):
        future = concurrent.futures.Future()
        call = self.pickle((function, args, options))
        remote = self.client.submit(carry_out, call, pure=False)
        remote.add_done_callback(functools.partial(hand_over, future=future))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Leave the cluster. It drops the calls that it has not finished."""
        self.client.close()


def homes(task):
    """The modules of a task's functions that the workers may lack: neither in minidiff nor in an
    installed package. They are sent by value."""
    parts = [getattr(part, "func", part) for part in task if callable(part)]  # of a partial
    names = {getattr(part, "__module__", None) for part in parts}
    own = []
    for module in [sys.modules[name] for name in names if name in sys.modules]:
        file = Path(getattr(module, "__file__", None) or sys.prefix)  # built in: as if installed
        installed = any(file.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix))
        if not installed and module.__name__.partition(".")[0] != "minidiff":
            own.append(module)
    return own


def hand_over(remote, future):
    """Give the outcome of a call on the cluster, `remote`, to the future that `submit` returned."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(remote.result())
    except Exception as error:
        import distributed
        lost = (distributed.KilledWorker, concurrent.futures.CancelledError, OSError)
        future.set_exception(concurrent.futures.BrokenExecutor(f"the cluster has lost it: {error}")
                             if isinstance(error, lost) else error)


# ---- on a worker ---------------------------------------------------------------------------------

def carry_out(call):
    """The result of a pickled call (function, args, options)."""
    function, args, options = pickle.loads(call)
    return function(*args, **options)


def versions():
    """The versions of the packages that a result depends on, by name; None where not installed."""
    found = {"minidiff": __version__}
    for name in ("numpy", "pymunk"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found
