"""The first hour: the commands of the README and of the help, as printed, in their order."""
import ast
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run

pytestmark = pytest.mark.slow

COLLECT = ("-m", "minidiff.pusht", "collect")
SHORT = {  # what makes a command short; it stands behind what is printed
    "train.py": "--steps 20 --width 16 --T 6 --score-episodes 0",
    "eval.py": "--episodes 1 --max-steps 60"}


def commands(text):
    """The lines of a text that are commands, without their comments; python alone."""
    text = re.sub(r"\\\s*\n\s*", "", text)  # a command over two lines
    lines = re.findall(r"^    (python (?:-m )?[\w.]+.*)$", text, re.M)
    return [re.split(r"\s{2,}|\s#", line)[0].split()[1:] for line in lines]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A fresh copy of the repository."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("minidiff", "train.py", "eval.py", "README.md"):
        os.symlink(ROOT / name, folder / name)
    return folder


def windowed(folder, arguments):
    """A command that opens a window, ended by Ctrl-C after it has been open for a moment."""
    environment = os.environ | {"SDL_VIDEODRIVER": "dummy"}
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert "Traceback" not in said, said


def try_all(folder, listed, arrays):
    """Each command in turn; a file of demonstrations is there once one could have been made."""
    for script, *arguments in listed:
        if script == "-m" and arguments[0] == "minidiff.pusht":
            pytest.importorskip("pygame")
            if arguments[1] in ("watch", "record"):
                windowed(folder, [script, *arguments])
            if arguments[1] == "record":
                np.savez(folder / arguments[2], **arrays)
            if arguments[1] in ("watch", "record"):
                continue
        more = SHORT.get(script, "").split()
        if (script, *arguments[:2]) == COLLECT and "--again" not in arguments:
            more = ["--episodes", "2", "--seed", "0"]
            if "--add-to" in arguments:
                more = ["--episodes", "1"]
            else:
                more += ["--samples", "6", "--refine", "2"]
        fixed = any(name in arguments for name in ("--resume", "--init"))
        if fixed or "conv" in arguments:
            more = [word for word in more if word not in ("--width", "16", "--T", "6")]
        result = run(folder, script, *arguments, *more) if script != "-m" else subprocess.run(
            [sys.executable, script, *arguments, *more], cwd=folder, capture_output=True, text=True)
        printed = " ".join(["python", script, *arguments])
        assert result.returncode == 0, f"{printed}\n{result.stdout}{result.stderr}"


def test_the_commands_of_the_readme_work_as_printed_in_their_order(checkout, arrays):
    pytest.importorskip("pymunk")
    listed = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    listed = [command for command in listed if command[0] != "-m" or command[1] != "venv"]
    names = [" ".join(command) for command in listed]
    assert "train.py" in names and "eval.py" in names and "-m minidiff.pusht watch" in names
    assert len(names) >= 9 and len(set(names)) == len(names)
    try_all(checkout, listed, arrays)


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_the_examples_of_the_help_work_as_printed_in_their_order(script, tmp_path, arrays):
    pytest.importorskip("pymunk")
    for name in ("minidiff", "train.py", "eval.py"):
        os.symlink(ROOT / name, tmp_path / name)
    np.savez(tmp_path / "mine.npz", **arrays)
    if script == "eval.py":
        for task in ([], ["--task", "minidiff/wall.py"]):
            made = run(tmp_path, "train.py", *task, *SHORT["train.py"].split())
            assert made.returncode == 0, made.stderr
    help = run(tmp_path, script, "--help").stdout
    listed = [[word.replace("FILE", "mine.npz") for word in command if word != "..."]
              for command in commands(help.partition("\nused most")[0])]
    assert len(listed) >= 6
    try_all(tmp_path, [command for command in listed if "minidiff.pusht" not in command], arrays)


PAGES = {"pusht/README.md": [], "pusht/data/collect.py": ["runs/mine"],
         "pusht/study/compare.py": ["runs/a", "runs/b"]}


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_the_task_work_as_printed_in_their_order(page, tmp_path, arrays):
    """page: a page or a docstring. Runs that it takes for granted are there."""
    pytest.importorskip("pymunk")
    for name in ("minidiff", "train.py", "eval.py"):
        os.symlink(ROOT / name, tmp_path / name)
    for wanted in PAGES[page]:
        made = run(tmp_path, "train.py", "--out", wanted, *SHORT["train.py"].split())
        assert made.returncode == 0, made.stderr
    text = (ROOT / "minidiff" / page).read_text(encoding="utf-8")
    if page.endswith(".py"):
        text = ast.get_docstring(ast.parse(text))
    listed = commands(text)
    assert len(listed) >= 3
    try_all(tmp_path, listed, arrays)


def test_the_last_line_of_the_training_opens_a_window_on_what_it_trained(checkout):
    pytest.importorskip("pygame")
    done = run(checkout, "train.py", "--out", "a run", *SHORT["train.py"].split())
    *_, last = done.stdout.splitlines()
    printed = re.fullmatch(r"watch it plan: (python .*)", last)[1]
    windowed(checkout, shlex.split(printed)[1:])
    assert Path(checkout / "a run").is_dir()
