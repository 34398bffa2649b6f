"""Worker processes: what they bring and report, and that they never outlast the program."""
from minidiff import stopping
from minidiff.scoring import workers
from minidiff.scoring.workers import Workers

import concurrent.futures
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT


def report_and_wait(values, seconds):
    for value in values:
        workers.report(value)
    time.sleep(seconds)
    return "done"


def die(number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def fail(text):
    raise EOFError(text)


def wait_for(condition, seconds=10):
    """Wait until condition() holds, up to so many seconds -> whether it does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def alive(pid):
    """Whether a process is there, and has not ended already."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True).stdout
    return state.strip() != "" and not state.startswith("Z")


# ---- what they bring -----------------------------------------------------------------------------

def test_results_come_in_the_order_of_the_tasks():
    with Workers(2) as executor:
        assert list(executor.map(pow, range(40), [2] * 40)) == [n * n for n in range(40)]
        assert executor.submit(int, "11", base=2).result() == 3
        large = bytes(3_000_000)  # more than a pipe holds, both ways
        assert executor.submit(bytes.__add__, large, b"1").result() == large + b"1"


def test_leaving_the_block_waits_for_what_was_submitted():
    with Workers(2) as executor:
        futures = [executor.submit(report_and_wait, [], 0.05) for _ in range(5)]
    assert [future.result(timeout=0) for future in futures] == ["done"] * 5
    assert not any(worker.process.is_alive() for worker in executor.workers)


def test_a_task_that_is_taken_back_is_not_run_and_the_next_is():
    with Workers(1) as executor:
        executor.submit(report_and_wait, [], 0.05)
        taken_back = executor.submit(fail, "never run")
        assert taken_back.cancel()
        assert executor.submit(int, "7").result(timeout=5) == 7


def test_an_error_is_raised_here_with_the_place_where_it_happened():
    with Workers(1) as executor:
        with pytest.raises(EOFError, match="of its own") as caught:
            executor.submit(fail, "of its own").result()
        assert "in fail\n" in str(caught.value.__cause__)
        with pytest.raises(Exception, match="pickle"):
            executor.submit(lambda: None).result()
        assert executor.submit(int, "7").result() == 7  # and the worker goes on


def test_what_is_reported_is_here_before_the_function_ends():
    with Workers(2) as executor:
        other = executor.submit(report_and_wait, "xyz", 0)
        future = executor.submit(report_and_wait, range(2000), 60)  # more than a pipe holds
        assert wait_for(lambda: len(future.reported) == 2000)
        assert future.reported == list(range(2000)) and not future.done()
        assert other.result() == "done" and other.reported == ["x", "y", "z"]
        for worker in executor.workers:
            worker.process.kill()


def test_a_signal_ends_the_waiting_for_a_future_of_any_executor(monkeypatch):
    looks = iter([1, 2])
    monkeypatch.setattr(stopping, "asked", lambda: next(looks, 3) == 3)
    never = iter([1, 2])
    with pytest.raises(stopping.Stopped):
        workers.awaited(concurrent.futures.Future(), lambda: next(never))
    assert list(never) == []


def test_reports_of_others_go_nowhere():
    assert report_and_wait([1, 2], 0) == "done"
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        assert executor.submit(report_and_wait, [1, 2], 0).result() == "done"


# ---- their end -----------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_where_a_worker_dies_nothing_is_waited_for(number):
    with Workers(2) as executor:
        long = executor.submit(report_and_wait, "ab", 60)
        assert wait_for(lambda: len(long.reported) == 2)
        futures = [long, executor.submit(die, number)]
        futures += [executor.submit(report_and_wait, [], 60) for _ in range(50)]
        started = time.monotonic()
        for future in futures:
            with pytest.raises(concurrent.futures.BrokenExecutor, match=f"signal {int(number)}"):
                future.result()
        assert time.monotonic() - started < 2
    assert long.reported == ["a", "b"]
    assert not any(worker.process.is_alive() for worker in executor.workers)


def test_a_task_that_ends_its_worker_is_answered_with_the_exit_status():
    with Workers(1) as executor:
        future = executor.submit(sys.exit, 3)
        with pytest.raises(concurrent.futures.BrokenExecutor, match=r"died \(exit status 3\)"):
            future.result(timeout=5)


@pytest.mark.parametrize("exitcode, words", [
    (-9, "signal 9, perhaps because memory ran out"), (-15, "signal 15"), (0, "exit status 0"),
    (9, "exit status 9"), (None, "exit status None")])
def test_the_end_of_a_process_in_words(exitcode, words):
    assert workers.cause(exitcode) == words


@pytest.mark.parametrize("end", [EOFError, BrokenPipeError, ConnectionResetError, stopping.Stopped])
def test_a_worker_says_nothing_where_the_program_has_ended(end, monkeypatch):
    class Connection:
        def recv(self):
            raise end

    monkeypatch.setattr(workers, "_to_program", None)
    monkeypatch.setattr(workers, "_end_with_the_program", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda number, action: None)
    workers._work(Connection())


def test_after_a_signal_to_the_program_nothing_is_waited_for(monkeypatch):
    with Workers(2) as executor:
        futures = [executor.submit(report_and_wait, "a", 60) for _ in range(50)]
        assert wait_for(lambda: futures[1].reported)
        monkeypatch.setattr(stopping, "asked", lambda: True)
        started = time.monotonic()
        for future in futures:
            with pytest.raises(stopping.Stopped):
                future.result()
        assert time.monotonic() - started < 1
    assert not any(worker.process.is_alive() for worker in executor.workers)


def test_an_error_in_the_block_ends_what_is_under_way():
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError), Workers(2) as executor:
        for _ in range(50):
            executor.submit(report_and_wait, [], 60)
        raise ZeroDivisionError
    assert time.monotonic() - started < 5
    assert not any(worker.process.is_alive() for worker in executor.workers)


def test_workers_leave_ctrl_c_and_a_closed_terminal_to_the_program():
    with Workers(1) as executor:
        future = executor.submit(report_and_wait, "a", 0.5)
        assert wait_for(lambda: future.reported)
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(executor.workers[0].process.pid, number)
        assert future.result() == "done"


def test_a_program_that_does_not_leave_the_block_ends_all_the_same():
    program = "from minidiff.scoring.workers import Workers; executor = Workers(1)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=5, check=True)


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_do_not_outlast_the_program(number, busy):
    """And so they do not hold its output open, for which communicate() would wait."""
    program = (
        "import time\n"
        "from minidiff.scoring.workers import Workers\n"
        "with Workers(3) as executor:\n"
        "    [executor.submit(pow, 7, 7).result() for _ in range(9)]\n"
        f"    [executor.submit(time.sleep, 60) for _ in range({3 * busy})]\n"
        "    print(*[worker.process.pid for worker in executor.workers], flush=True)\n"
        "    time.sleep(60)\n")
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pids = process.stdout.readline().split()
    assert len(pids) == 3 and all(alive(pid) for pid in pids)
    process.send_signal(number)
    out, error = process.communicate(timeout=5)
    assert (out, error) == ("", "")
    assert wait_for(lambda: not any(alive(pid) for pid in pids), 5)
