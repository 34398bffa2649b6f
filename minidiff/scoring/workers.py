"""Processes that run functions, and that end when the program ends."""
import collections
import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import time
import traceback

from .. import stopping

PATIENCE = 0.1  # s between two checks whether the program is to stop

Worker = collections.namedtuple("Worker", "process connection thread")
_to_program = None  # in a worker: the connection to the program


class Workers(concurrent.futures.Executor):
    """`count` processes as a concurrent.futures.Executor, for use in a `with` block.

    What a function hands to `report` is added at once to the list `reported` of its future. All
    futures that are not done raise Stopped after a signal (stopping.py), and BrokenExecutor after
    the death of a process. An error that leaves the `with` block ends the processes at once, and so
    does the death of the program.
    """

    def __init__(self, count):
        self.tasks = queue.SimpleQueue()
        self.workers = []
        self.broken = None  # or why no call can be carried out any more
        for _ in range(count):  # before the first thread: with threads running, a fork is unsafe
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            thread = threading.Thread(target=self._serve, args=(process, ours), daemon=True)
            self.workers.append(Worker(process, ours, thread))
        for worker in self.workers:
            worker.thread.start()

    def submit(self, function, /, *args, **options):
        future = concurrent.futures.Future()
        future.reported = []
        self.tasks.put((future, (function, args, options)))
        return future

    def _serve(self, process, connection):
        """The thread of one process: gives it one call after another."""
        for future, call in iter(self.tasks.get, None):
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._ask(process, connection, call, future.reported))
            except BaseException as error:
                future.set_exception(error)

    def _ask(self, process, connection, call, reported):
        """The result of a call (function, args, options), carried out by a process."""
        try:
            self._check()
            connection.send(call)
            kind, value = self._receive(connection)
            while kind == "reported":
                reported.append(value)
                kind, value = self._receive(connection)
        except (EOFError, OSError):
            process.join()
            time.sleep(2 * PATIENCE)  # a signal to all processes may have reached this one first
            stopping.safe_point()
            self.broken = self.broken or f"a worker process died ({cause(process.exitcode)})"
            raise concurrent.futures.BrokenExecutor(self.broken) from None
        if kind == "error":
            error, its_traceback = value
            raise error from RuntimeError(its_traceback)
        return value

    def _receive(self, connection):
        """The next (kind, value) from a process. EOFError if it has died."""
        while not connection.poll(PATIENCE):
            self._check()
        return connection.recv()

    def _check(self):
        """Stopped or BrokenExecutor if there is no point in going on."""
        stopping.safe_point()
        if self.broken:
            raise concurrent.futures.BrokenExecutor(self.broken)

    def shutdown(self, wait=True, *, cancel_futures=False):
        """End the processes once all submitted calls are done; both arguments are ignored."""
        for _ in self.workers:
            self.tasks.put(None)
        for worker in self.workers:
            worker.thread.join()
        for worker in self.workers:
            worker.process.kill()  # idle by now
            worker.process.join()
            worker.connection.close()

    def __exit__(self, kind, error, trace):
        if kind:
            for worker in self.workers:
                worker.process.kill()
        self.shutdown()


def awaited(future, meanwhile=None):
    """The result of a future of any executor; Stopped if a signal comes first (stopping.py).

    meanwhile(): called every PATIENCE seconds until the result is there.
    """
    while not concurrent.futures.wait([future], PATIENCE).done:
        stopping.safe_point()
        if meanwhile:
            meanwhile()
    return future.result()


def cause(exitcode):
    """How a process has ended, in words."""
    if exitcode == -9:
        return "signal 9, perhaps because memory ran out"
    if exitcode is not None and exitcode < 0:
        return f"signal {-exitcode}"
    return f"exit status {exitcode}"


# ---- in a worker ---------------------------------------------------------------------------------

def _work(connection):
    """Carry out the calls that the program sends, and send back what they return or raise."""
    global _to_program
    _to_program = connection
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program decides what a Ctrl-C means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_program, daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError, stopping.Stopped):  # the program has ended
        while True:
            function, args, options = connection.recv()
            try:
                reply = "result", function(*args, **options)
            except Exception as error:
                reply = "error", (error, traceback.format_exc())  # pickled, it loses its traceback
            connection.send(reply)


def _end_with_the_program():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def report(value):
    """In a worker: hand a value to the program before the function returns. Elsewhere: nothing."""
    if _to_program:
        _to_program.send(("reported", value))
