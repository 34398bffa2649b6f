"""python -m minidiff.pusht: the table of commands, one by one, and errors as sentences."""
from minidiff import stopping
from minidiff.pusht import SHIPPED_POLICY
from minidiff.pusht import __main__ as commands

import importlib
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]], ids=str)
def test_without_a_command_all_commands_are_listed_with_a_line_each(arguments, capsys):
    assert commands.main(arguments) == 0
    said = capsys.readouterr().out
    title, usage, table, rest = said.split("\n\n")
    assert (title, usage) == (commands.__doc__, "usage: python -m minidiff.pusht COMMAND ...")
    assert [line.split(maxsplit=1) for line in table.splitlines()] == [
        [name, does] for name, (_, does) in commands.COMMANDS.items()]
    assert rest == "COMMAND --help explains its arguments.\n"
    assert all(len(line) <= 80 for line in said.splitlines())


@pytest.mark.parametrize("name, shown", [
    ("dance", "dance"), ("9" * 5000, f"{'9' * 79}...{'9' * 18}")], ids=["short", "long"])
def test_an_unknown_command_is_answered_with_those_that_there_are(name, shown, capsys):
    assert commands.main([name]) == 2
    said = capsys.readouterr().err
    assert said == (f"minidiff.pusht: there is no command '{shown}'; choose from watch, record, "
                    "film, compare, bound, forks, collect\n")


USAGE = {
    "watch": "[RUN] [options]",
    "record": "[-h] [--seed SEED] [--seeding {legacy,modern}] FILE.npz",
    "film": "[RUN] FILE [options]",
    "compare": "[-h] A.json B.json",
    "bound": "[-h] [--json FILE] RUN DEMOS",
    "forks": "[-h] [--states STATES] [--plans PLANS] [--off PX] [--json FILE] RUN [RUN ...]",
    "collect": "[-h] --out OUT [--again FILE] [--add-to FILE] [--visited RUN] [--episodes"}


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_each_command_has_a_help_that_fits_a_screen(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        commands.main([name, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    usage = " ".join(said.split())
    assert usage.startswith(f"usage: python -m minidiff.pusht {name} {USAGE[name]}")
    module = importlib.import_module(f"minidiff.pusht.{commands.COMMANDS[name][0]}")
    assert f"\n\n{module.__doc__}\n" in said
    assert len(said.splitlines()) <= 45


@pytest.mark.parametrize("error, code, said", [
    (ValueError("no such file"), 1, "minidiff.pusht compare: no such file\n"),
    (FileNotFoundError(2, "No such file", "a"), 1,
     "minidiff.pusht compare: a: cannot be read or written (No such file)\n"),
    (RuntimeError("no display"), 1, "minidiff.pusht compare: no display\n"),
    (KeyboardInterrupt(), 1, "\nstopped\n"),
    (KeyboardInterrupt("stopped; half of it is in a.part"), 1,
     "\nstopped; half of it is in a.part\n")], ids=repr)
def test_an_error_becomes_a_sentence(error, code, said, monkeypatch, capsys):
    def fail(arguments):
        assert arguments == ["a", "b"]
        raise error

    compare = importlib.import_module("minidiff.pusht.study.compare")
    monkeypatch.setattr(compare, "main", fail)
    assert commands.main(["compare", "a", "b"]) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("arguments, said", [
    (["film", SHIPPED_POLICY, "a.png"], "stopped; a.png was not drawn"),
    (["film", SHIPPED_POLICY, "a.gif"], "stopped; a.gif was not drawn"),
    (["bound", SHIPPED_POLICY, "demos.npz"], "stopped"),
    (["forks", SHIPPED_POLICY], "stopped"),
    (["collect", "--out", "a.npz"], "stopped; nothing was written"),
    (["collect", "--visited", SHIPPED_POLICY, "--out", "a.npz"], "stopped; nothing was written")])
def test_after_a_signal_each_command_says_what_it_leaves(arguments, said, demos_file, tmp_path,
                                                         monkeypatch, capsys):
    if "film" in arguments:
        pytest.importorskip("pygame")
    if "a.gif" in arguments:
        pytest.importorskip("PIL")
    monkeypatch.chdir(tmp_path)
    os.symlink(demos_file, "demos.npz")
    monkeypatch.setattr(stopping, "asked", lambda: True)
    assert commands.main([str(argument) for argument in arguments]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert os.listdir() == ["demos.npz"]


@pytest.mark.slow
def test_ctrl_c_ends_a_command_in_a_sentence(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "minidiff.pusht", "film", str(SHIPPED_POLICY), "a.png",
         "--episodes", "100"], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"})
    process.stdout.readline()  # it names its policy, and begins
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 1 and error.splitlines()[-1] == "stopped; a.png was not drawn"
    assert "Traceback" not in error and os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", *commands.COMMANDS])
def test_a_command_loads_no_other(name):
    program = ("import runpy, sys\n"
               f"sys.argv = ['minidiff.pusht', *{name!r}.split(), '--help']\n"
               "try:\n"
               "    runpy.run_module('minidiff.pusht', run_name='__main__')\n"
               "except SystemExit:\n"
               "    print('loaded', *sys.modules)\n")
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True,
                            text=True)
    loaded = result.stdout.rpartition("loaded")[2].split()
    assert "minidiff.pusht" in loaded, result.stderr
    for other, (module, _) in commands.COMMANDS.items():
        assert other == name or f"minidiff.pusht.{module}" not in loaded
    assert "pygame" not in loaded  # a help needs no window
    if name in ("", "compare"):
        assert "pymunk" not in loaded
