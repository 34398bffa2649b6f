"""How commands end: by signals at safe points, in one sentence, with nobody reading; and that two
runs never share a folder."""
from minidiff import folders, progress, stopping

import errno
import io
import os
import re
import signal
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

PREAMBLE = """
import os, signal, sys
from pathlib import Path
from minidiff import folders, progress, stopping

def send(number):
    os.kill(os.getpid(), number)
"""


def python(program, folder=None, shell="exec {}", **environment):
    """A program in a process of its own, after PREAMBLE -> CompletedProcess."""
    arguments = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(["sh", "-c", shell.format('"$@"'), "sh", *arguments], cwd=folder,
                          env=environment, capture_output=True, text=True, timeout=60)


# ---- signals -------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_sets_a_flag_and_work_goes_on_to_its_next_safe_point(number):
    result = python(f"""
        def work():
            stopping.safe_point()
            send({number})
            print("in the middle", stopping.asked(), flush=True)
            stopping.safe_point()
            print("beyond")

        stopping.listen()
        sys.exit(stopping.run("work", work))
        """)
    assert result.stdout == "in the middle True\n"
    assert result.stderr == "\nstopped\n" and result.returncode == 1


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_program_at_once(first, second):
    result = python(f"stopping.listen(); send({first}); send({second}); print('not reached')")
    assert (result.returncode, result.stdout, result.stderr) == (-second, "", "")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_may_be_told_of_again(first):
    """The shell and the system both send SIGHUP; what is being saved then should be saved."""
    result = python(f"stopping.listen(); send({first}); send(signal.SIGHUP); print('saved')")
    assert (result.returncode, result.stdout) == (0, "saved\n")


def test_nohup_is_respected():
    result = python("stopping.listen(); send(signal.SIGHUP); print(stopping.asked())",
                    shell="nohup {}")
    assert result.stdout == "False\n"


def test_ctrl_c_reaches_a_job_in_the_background_of_a_shell():
    result = python("stopping.listen(); send(signal.SIGINT); print(stopping.asked())",
                    shell="{} & wait $!")
    assert result.stdout == "True\n"


@pytest.mark.parametrize("arguments", [
    "train.py", "eval.py", "-m minidiff", "-m minidiff.pusht compare a b"])
def test_ctrl_c_while_a_command_is_loaded_ends_it_quietly(arguments, tmp_path):
    """There is a NumPy that asks for it when it is imported."""
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
                                       "raise ImportError('not reached')\n")
    result = subprocess.run([sys.executable, *arguments.split()], cwd=ROOT, capture_output=True,
                            env=os.environ | {"PYTHONPATH": str(tmp_path)}, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, b"", b"")


# ---- sentences -----------------------------------------------------------------------------------

@pytest.mark.parametrize("error, said", [
    (ValueError("no such sampler"), "work: no such sampler\n"),
    (FileNotFoundError(2, "No such file", "a"),
     "work: a: cannot be read or written (No such file)\n"),
    (OSError(28, "No space left"), "work: cannot be read or written (No space left)\n"),
    (RuntimeError("no display"), "work: no display\n"),
    (MemoryError(), "work: memory ran out\n"),
    (MemoryError("Unable to allocate 9 TiB"), "work: memory ran out: Unable to allocate 9 TiB\n"),
    (ValueError(f"not {'9' * 5000}, 1"), f"work: not {'9' * 80}...{'9' * 19}, 1\n"),
    (ValueError("a " * 5000), f"work: {'a ' * 347} ... {'a ' * 100}\n"),
    (KeyboardInterrupt(), "\nstopped\n"),
    (stopping.Stopped("stopped; half of it is in a.part"), "\nstopped; half of it is in a.part\n")],
    ids=lambda value: repr(value)[:60])
def test_an_error_is_one_sentence(error, said, capsys):
    def work(*arguments):
        assert arguments == (1, 2)
        raise error

    assert stopping.run("work", work, 1, 2) == 1
    assert capsys.readouterr().err == said


def test_an_error_of_a_library_is_located_where_it_was_called():
    with pytest.raises(np.linalg.LinAlgError) as caught:
        np.linalg.inv(np.zeros((2, 2)))
    said = stopping.located(caught.value)
    assert re.fullmatch(r"LinAlgError: Singular matrix \(test_stopping.py, line \d+\)", said)
    assert stopping.located(ValueError("never raised")) == "ValueError: never raised"


def test_a_command_without_options_refuses_them():
    result = subprocess.run([sys.executable, "-m", "minidiff", "--steps", "5"], cwd=ROOT,
                            capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.endswith("python -m minidiff: error: unrecognized arguments: --steps 5\n")


def test_a_value_that_is_refused_is_not_shown_at_full_length(capsys):
    parser = stopping.Parser(prog="work")
    parser.add_argument("--count", type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(["--count", "9" * 5000])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("work: error: argument --count: invalid int value: '999") and len(
        said) < 160


def test_a_sentence_that_cannot_be_written_is_let_go():
    result = python("print(stopping.run('work', int, 'x'))", shell="{} 2>/dev/full")
    assert result.stdout == "1\n"


def test_a_mistake_of_ours_is_no_sentence():
    def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stopping.run("work", work)


# ---- nobody reads --------------------------------------------------------------------------------

@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_printing_to_nobody_is_quiet(unbuffered):
    program = "sys.exit(stopping.run('work', lambda: [print(n) for n in range(100_000)]))"
    result = python(program, shell="{} | head -n 1", PYTHONUNBUFFERED=unbuffered)
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_a_few_lines_to_nobody_are_quiet():
    """They wait in a buffer, and the error comes last."""
    program = "time.sleep(0.2); sys.exit(stopping.run('work', print, 'a line'))"
    result = python("import time; " + program, shell="{} | true", PYTHONUNBUFFERED="")
    assert (result.stdout, result.stderr) == ("", "")


def test_work_goes_on_when_nobody_reads_what_it_says(tmp_path):
    result = python("""
        def work():
            for n in range(10_000):
                progress.say(n)
            Path("done").touch()

        sys.exit(stopping.run('work', work))
        """, tmp_path, shell="({}; echo status $? >&2) | head -n 1")
    assert (result.stdout, result.stderr) == ("0\n", "status 0\n")
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("number, silent", [
    (errno.EPIPE, True), (errno.EIO, True), (errno.ENOSPC, False)])
def test_a_reader_or_a_terminal_that_is_gone_is_no_error_a_full_disk_is(number, silent,
                                                                        monkeypatch):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    calls = []
    monkeypatch.setattr("builtins.print", fail)
    monkeypatch.setattr(progress, "fall_silent", lambda: calls.append("silent"))
    if silent:
        progress.say("a result")
    else:
        with pytest.raises(OSError, match="No space"):
            progress.say("a result")
    assert calls == (["silent"] if silent else [])


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", "2>/dev/full"])
def test_work_needs_no_output_at_all(closed, tmp_path):
    result = python("""
        def work():
            bar = progress.Progress("work", 1)
            bar.show(1)
            progress.say("a line")
            Path("done").touch()

        sys.exit(stopping.run('work', work))
        """, tmp_path, shell=f"{{}} {closed}")
    assert (tmp_path / "done").exists() and "Traceback" not in result.stderr
    assert result.returncode == 0
    assert result.stdout == ("" if "1>&-" in closed else "a line\n")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_the_terminal_cannot_show_is_replaced(encoding):
    result = python("sys.exit(stopping.run('work', print, 'runs/\\u65e5'))",
                    PYTHONIOENCODING=encoding)
    assert result.stdout == ("runs/\u65e5\n" if encoding == "utf-8" else "runs/?\n")
    assert (result.returncode, result.stderr) == (0, "")


# ---- how far a long job is -----------------------------------------------------------------------

@pytest.fixture
def clock(monkeypatch):
    """clock.now is what time it is."""
    clock = SimpleNamespace(now=100, monotonic=lambda: clock.now)
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_a_line_after_two_seconds_and_every_ten(clock, capsys):
    """Of a run that goes on after 100 steps, one a second: the speed is that of the steps since."""
    bar = progress.Progress("training", 200, done=100)
    for clock.now in range(100, 125):
        bar.show(clock.now, "loss 1")
    assert capsys.readouterr().err == ("training 102/200 (51%)  loss 1  1/s  1:38 left\n"
                                       "training 112/200 (56%)  loss 1  1/s  1:28 left\n"
                                       "training 122/200 (61%)  loss 1  1/s  1:18 left\n")


def test_a_terminal_sees_a_line_that_renews_itself_until_all_is_done(clock, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "31")
    bar = progress.Progress("scoring", 4)
    for clock.now, done in [(100, 0), (100.125, 1), (100.25, 2), (100.375, 3), (100.5, 4)]:
        bar.show(done)
    assert terminal.getvalue() == ("\rscoring 0/4 (0%)  starting    "
                                   "\rscoring 2/4 (50%)  8/s  0:00 l"  # cut, so that it renews
                                   "\rscoring 4/4 (100%)  8/s  0:00 \n")


def test_what_takes_longer_than_a_second_is_told_in_seconds_each(clock, capsys):
    bar = progress.Progress("demonstrations", 10)
    clock.now += 14
    bar.show(4)
    assert capsys.readouterr().err == "demonstrations 4/10 (40%)  3.5 s each  0:21 left\n"


def test_a_job_that_is_done_at_once_has_a_speed_all_the_same(clock, capsys):
    bar = progress.Progress("collecting", 1)
    bar.show(1)
    bar.show(1)
    said = capsys.readouterr().err
    assert said.startswith("collecting 1/1 (100%)  ") and said.count("\n") == 1


@pytest.mark.parametrize("seconds, text", [
    (0.4, "0:00"), (0.5, "0:01"), (60, "1:00"), (3599, "59:59"), (3600, "1:00:00"),
    (7380, "2:03:00")])
def test_seconds_are_told_in_hours_and_minutes(seconds, text):
    assert progress.duration(seconds) == text


# ---- the folder of a run -------------------------------------------------------------------------

@pytest.fixture(params=["locks", "no locks"])
def system(request, monkeypatch):
    """Systems with fcntl, and those without, as Windows."""
    if request.param == "no locks":
        monkeypatch.setattr(folders, "fcntl", None)


def test_a_folder_is_held_by_one_process_at_a_time(system, tmp_path):
    """And nothing stays open, whether one gets it or not."""
    folder, before = tmp_path / "runs" / "a", len(os.listdir("/dev/fd"))
    with folders.hold(folder) as held:
        assert held == folder and folder.is_dir()
        with pytest.raises(folders.Taken, match="another process is at work in .*runs/a"):
            with folders.hold(folder):
                pass
        with folders.hold(tmp_path / "runs" / "b"):
            pass
    with folders.hold(folder):
        pass
    assert len(os.listdir("/dev/fd")) <= before


def test_folders_that_stay_empty_are_removed_and_others_are_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), folders.hold(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    with folders.hold(tmp_path / "mine"):
        pass
    with folders.hold(tmp_path / "c" / "d") as folder:
        (folder / "config.json").touch()
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["c", "c/d", "c/d/config.json", "mine"]


@pytest.mark.parametrize("name", ["file", "loop", "file/below"])
def test_what_is_no_folder_is_refused_in_words(name, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=f"{name}: cannot be used as a folder") as error:
        with folders.hold(tmp_path / name):
            pass
    assert "Errno" not in str(error.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_process_leaves_its_folder_free_and_empty(number, tmp_path):
    with folders.hold(tmp_path / "run"):  # it is there before
        pass
    (tmp_path / "run").mkdir()
    result = python(f"""
        with folders.hold("run"):
            stopping.listen()
            send({number})
            send({number})
        """, tmp_path)
    assert result.returncode == -number
    assert os.listdir(tmp_path / "run") == []
    with folders.hold(tmp_path / "run"):
        pass


def test_a_drive_that_cannot_lock_is_used_with_a_warning(tmp_path, monkeypatch, capsys):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    with folders.hold(tmp_path / "run") as folder:
        assert folder.is_dir()
    assert capsys.readouterr().out == (f"warning: {folder} cannot be locked (No locks available): "
                                       "make sure that nothing else writes into it\n")


def test_a_new_run_takes_the_first_folder_that_is_free(tmp_path, capsys):
    base = str(tmp_path / "pusht-mlp-0")
    with folders.hold_next(base) as first:
        assert str(first) == base
        (first / "checkpoint.npz").touch()
    assert capsys.readouterr().out == ""
    with folders.hold_next(base) as second, folders.hold_next(base) as third:
        assert [str(second), str(third)] == [base + "-2", base + "-3"]  # 2 has nothing in it yet
    assert f"{base} is taken; this run goes into {base}-3\n" in capsys.readouterr().out
    with pytest.raises(folders.Taken, match="already holds a run: continue it with --resume"):
        with folders.hold_new(base):
            pass


# ---- a table that grows --------------------------------------------------------------------------

def test_a_table_grows_row_by_row_and_drops_what_is_done_again(tmp_path):
    path = tmp_path / "log.csv"
    table = progress.Table(path, ("step", "loss", "score"))
    assert path.read_text() == "step,loss,score\n"
    table.add(1, 0.123456789, None)
    table.add(2, float("nan"), 1e-9)
    table.add(30, 2.0, 1)
    assert path.read_text() == "step,loss,score\n1,0.123457,\n2,,1e-09\n30,2,1\n"
    path.write_text(path.read_text() + "2,0.1")  # killed in the middle of a row
    progress.Table(path, ("step", "loss", "score"), done=2).add(3, 0, 0)
    assert path.read_text() == "step,loss,score\n1,0.123457,\n2,,1e-09\n3,0,0\n"
    progress.Table(path, ("step", "loss"))
    assert path.read_text() == "step,loss\n"


def test_a_table_of_a_million_steps_goes_on(tmp_path):
    path = tmp_path / "log.csv"
    progress.Table(path, ("step", "loss")).add(1_234_567, 0.5)
    progress.Table(path, ("step", "loss"), done=2_000_000)
    assert path.read_text() == "step,loss\n1234567,0.5\n"
