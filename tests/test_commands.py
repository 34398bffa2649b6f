"""train.py as a user runs it: what it leaves behind and says, what a stopped run goes on to."""
from minidiff import beyond, checkpoint
from minidiff.pusht.features import PUSHT

import importlib.util
import json
import os
import pty
import random
import re
import shlex
import signal
import subprocess
import time

import numpy as np
import pytest
from conftest import ROOT, command, is_png, run

pytestmark = pytest.mark.slow  # each test runs a command or several

SMALL = "--steps 60 --width 16 --blocks 1 --T 10 --batch 32 --score-episodes 2".split()
LONG = "--steps 1200 --width 16 --blocks 1 --T 10 --batch 32 --score-episodes 0 --save-every 10"
LONG = LONG.split()


def train(folder, *arguments, **environment):
    return run(folder, "train.py", *arguments, **environment)


def succeeded(result):
    """What a command printed, which ended well."""
    assert result.returncode == 0, result.stderr
    return result.stdout


def sentence(result, code=None):
    """What a command said when it failed, its last line; there is no traceback."""
    assert result.returncode == code if code else result.returncode not in (0, None)
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr, result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, demos_file):
    """The folder of a finished run, and what train.py printed."""
    folder = tmp_path_factory.mktemp("trained")
    printed = succeeded(train(folder, "--demos", demos_file, "--out", "my run", *SMALL))
    return folder / "my run", printed


# ---- training ------------------------------------------------------------------------------------

def test_training_makes_the_whole_run_folder(trained):
    pytest.importorskip("pygame")
    folder, _ = trained
    assert sorted(os.listdir(folder)) == ["checkpoint.npz", "config.json", "log.csv", "loss.png",
                                          "policy.npz", "rollouts.png", "scores.json"]
    config = json.loads((folder / "config.json").read_text())
    assert config["steps"] == 60 and config["width"] == 16 and config["T"] == 10
    arrays, meta = checkpoint.load(folder / "checkpoint.npz")
    assert config == {"task": "pusht", "demos": meta["demos"], "drop_idle": False, "init": None,
                      **meta["config"]}
    assert meta["update"] == 60 == len(arrays["losses"])
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert is_png(folder / "loss.png") and is_png(folder / "rollouts.png")
    scores = json.loads((folder / "scores.json").read_text())
    assert {name: s["n"] for name, s in scores.items()} == {"ancestral": 2, "ddim": 2}


def test_the_next_command_that_training_prints_works(trained):
    """As printed, but for fewer and shorter episodes. The folder's name has a space."""
    folder, printed = trained
    said = re.search(r"^next: (python eval\.py .*?)(   |$)", printed, re.M)[1]
    _, script, *arguments = shlex.split(said)
    result = run(folder.parent, script, *arguments, "--episodes", 2, "--max-steps", 8)
    assert "seeds 300000..300001" in succeeded(result)


def test_training_again_gives_the_same_weights_and_scores(trained, demos_file, tmp_path):
    succeeded(train(tmp_path, "--demos", demos_file, "--out", "again", *SMALL))
    first, again = trained[0], tmp_path / "again"
    assert_same_run(first, again)
    assert (first / "scores.json").read_text() == (again / "scores.json").read_text()


def test_the_conv_net_trains_into_a_folder_of_its_own(demos_file, tmp_path):
    succeeded(train(tmp_path, "--demos", demos_file, *SMALL, "--net", "conv", "--steps", 20))
    assert (tmp_path / "runs" / "pusht-conv-0" / "policy.npz").exists()


def test_chains_and_plans_shorter_than_the_defaults_are_scored(demos_file, tmp_path):
    short = ("--T", 2, "--pred-horizon", 3, "--steps", 5)
    assert "ddim:" in succeeded(train(tmp_path, "--demos", demos_file, *SMALL, *short))


def test_regression_trains_and_is_scored_by_the_same_commands(demos_file, tmp_path):
    options = (*SMALL, "--objective", "mse", "--out", "run")
    options = [option for option in options if option not in ("--T", "10")]
    printed = succeeded(train(tmp_path, "--demos", demos_file, *options))
    assert re.search(r"^regression: score", printed, re.M)
    scored = succeeded(run(tmp_path, "eval.py", "run", "--episodes", 1))
    assert "regression, executing 4 of 8 actions" in scored


@pytest.mark.parametrize("objective", ["hybrid", "bound"])
def test_a_learned_variance_is_sampled_with(objective, demos_file, tmp_path):
    options = (*SMALL, "--objective", objective, "--out", "run")
    assert "ddim:" in succeeded(train(tmp_path, "--demos", demos_file, *options))
    obs = np.full((1, 1, 5), 200.0)
    plans = {}
    for variance in (None, "learned", "beta"):
        options = {"variance": variance} if variance else {}
        policy, _ = beyond.load(tmp_path / "run", PUSHT, **options)
        plans[variance] = policy.plan(obs, np.random.default_rng(0))
    assert np.array_equal(plans[None], plans["learned"])
    assert np.abs(plans[None] - plans["beta"]).max() > 0.1


def test_a_network_that_also_saw_nothing_can_be_guided(demos_file, tmp_path):
    succeeded(train(tmp_path, "--demos", demos_file, *SMALL, "--drop-cond", 0.2, "--out", "run"))
    scored = run(tmp_path, "eval.py", "run", "--episodes", 1, "--max-steps", 20, "--guidance", 1.5)
    assert "ancestral, guidance 1.5, executing" in succeeded(scored)


@pytest.mark.parametrize("missing, left, said", [
    ("pygame", ["checkpoint.npz", "config.json", "log.csv", "policy.npz", "scores.json"],
     "pictures need pygame"),
    ("pymunk", ["checkpoint.npz", "config.json", "log.csv", "policy.npz"],
     "PushT's world needs pymunk")])
def test_training_needs_numpy_alone_and_says_what_is_missing(missing, left, said, demos_file,
                                                             tmp_path):
    (tmp_path / f"{missing}.py").write_text("raise ImportError('it is not here')")
    options = ("--demos", demos_file, *SMALL, "--out", "run")
    printed = succeeded(train(tmp_path, *options, PYTHONPATH=str(tmp_path)))
    assert said in printed and "pip install 'minidiff[pusht]'" in printed
    assert "next: " in printed
    assert sorted(os.listdir(tmp_path / "run")) == left


def test_a_run_that_diverges_stops_in_words_and_keeps_what_is_good(demos_file, tmp_path):
    options = ("--demos", demos_file, "--out", "run", *SMALL, "--lr", 1e30, "--warmup", 1000)
    said = sentence(train(tmp_path, *options), 1)  # long before the last step
    assert re.match(r"diverged at step \d: .* nothing was saved yet. Try a smaller", said)
    said = sentence(train(tmp_path, *options, "--steps", 1, "--lr", 1e39, "--warmup", 0), 1)
    assert re.match(r"diverged at step 1: array 'theta' .* nothing was saved yet", said)
    said = sentence(train(tmp_path, *options, "--save-every", 1, "--lr", 1e10), 1)
    assert re.match(r"diverged at step \d+: .* is kept in run/checkpoint.npz. Try", said)
    assert said.endswith("--lr 3e+09")
    arrays, meta = checkpoint.load(tmp_path / "run" / "checkpoint.npz")
    assert meta["update"] >= 1
    assert np.isfinite(arrays["theta"]).all() and np.isfinite(arrays["losses"]).all()


# ---- stopping and resuming -----------------------------------------------------------------------

def assert_same_run(a, b):
    """The same weights, optimiser and losses, to the last bit."""
    arrays_a, meta_a = checkpoint.load(a / "checkpoint.npz")
    arrays_b, meta_b = checkpoint.load(b / "checkpoint.npz")
    assert meta_a["update"] == meta_b["update"] and meta_a["rng"] == meta_b["rng"]
    assert set(arrays_a) == set(arrays_b) >= {"theta", "ema", "m", "v", "losses"}
    for name in arrays_a:
        assert arrays_a[name].tobytes() == arrays_b[name].tobytes(), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, demos_file):
    folder = tmp_path_factory.mktemp("uninterrupted")
    succeeded(train(folder, "--demos", demos_file, "--out", "run", *LONG))
    return folder / "run"


def begun(folder, *arguments):
    """Start to train into "my run"; wait for the first checkpoint -> the process."""
    started = command("train.py", "--out", "my run", *LONG, *arguments)
    process = subprocess.Popen(started, cwd=folder, text=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    while not (folder / "my run" / "checkpoint.npz").exists() and process.poll() is None:
        time.sleep(0.005)
    return process


def stopped(folder, demos_file, *numbers):
    """Train; send signals soon after the first checkpoint -> exit status, stderr, steps done."""
    process = begun(folder, "--demos", demos_file)
    time.sleep(random.uniform(0, 0.4))
    for number in numbers:
        process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    done = checkpoint.load(folder / "my run" / "checkpoint.npz")[1]["update"]
    assert 0 < done < 1200, f"it was too late for a signal: {done} steps done"
    return process.returncode, error, done


PICTURES = ["loss.png"] if importlib.util.find_spec("pygame") else []
WHOLE = ["checkpoint.npz", "config.json", "log.csv", *PICTURES, "policy.npz"]  # but for scores


@pytest.mark.parametrize("numbers", [[signal.SIGKILL], [signal.SIGINT, signal.SIGINT]])
def test_a_killed_run_resumes_to_the_same_weights(numbers, uninterrupted, demos_file, tmp_path):
    code, error, _ = stopped(tmp_path, demos_file, *numbers)
    assert code in (-numbers[-1], 1) and "Traceback" not in error
    succeeded(train(tmp_path, "--resume", "my run", "--save-every", 10, "--score-episodes", 0))
    assert_same_run(uninterrupted, tmp_path / "my run")
    assert sorted(os.listdir(tmp_path / "my run")) == WHOLE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_saves_and_names_the_command_that_goes_on(number, uninterrupted, demos_file,
                                                                tmp_path):
    code, error, done = stopped(tmp_path, demos_file, number)
    assert code == 1 and "Traceback" not in error
    said = re.search(r"stopped at step (\d+) and saved; go on with: python (.*)", error)
    assert int(said[1]) == done
    succeeded(run(tmp_path, *shlex.split(said[2]), "--score-episodes", 0))
    assert_same_run(uninterrupted, tmp_path / "my run")
    assert sorted(os.listdir(tmp_path / "my run")) == WHOLE


def test_when_its_terminal_is_closed_a_run_saves(demos_file, tmp_path):
    """What it says then goes nowhere, which is no error."""
    parent, child = pty.openpty()
    arguments = command("train.py", "--demos", demos_file, "--out", "run", *LONG,
                        "--steps", 100_000)
    program = ("import fcntl, os, sys, termios; os.setsid(); "
               "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])")
    process = subprocess.Popen([arguments[0], "-c", program, *arguments], cwd=tmp_path,
                               stdin=child, stdout=child, stderr=child)
    os.close(child)
    while not (tmp_path / "run" / "checkpoint.npz").exists() and process.poll() is None:
        time.sleep(0.005)
    os.close(parent)
    assert process.wait(timeout=10) == 1
    done = checkpoint.load(tmp_path / "run" / "checkpoint.npz")[1]["update"]
    assert 0 < done < 100_000 and sorted(os.listdir(tmp_path / "run")) == WHOLE[:3]


def test_ctrl_c_while_it_scores_keeps_the_run(demos_file, tmp_path):
    options = [*SMALL, "--steps", 5, "--score-episodes", 1000, "--out", "run"]
    process = subprocess.Popen(command("train.py", "--demos", demos_file, *options), cwd=tmp_path,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True)
    while not process.stdout.readline().startswith("trained in"):
        assert process.poll() is None
    time.sleep(1)
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=10)
    assert time.monotonic() - started < 2 and process.returncode == 1
    assert re.search(r"\nincomplete, stopped: \d+ of 1000 episodes are over; the run itself is "
                     r"complete, and this scores it again: python train.py --resume run "
                     r"--score-episodes 1000\n$", error)
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint.npz", "config.json", "log.csv",
                                                    "policy.npz", "scores.json"]
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["ancestral"]["incomplete"].startswith("stopped: ")


# ---- two runs, one folder ------------------------------------------------------------------------

def test_a_folder_in_use_is_refused_before_any_work(demos_file, tmp_path):
    process = begun(tmp_path, "--demos", demos_file, "--steps", 100_000)
    try:
        for options in (["--resume", "my run"], ["--demos", demos_file, "--out", "my run"]):
            said = sentence(train(tmp_path, *options), 1)
            assert said == "train.py: another process is at work in my run"
        process.send_signal(signal.SIGINT)
        assert "stopped at step" in process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert sorted(os.listdir(tmp_path / "my run")) == WHOLE[:3]


def test_runs_without_a_name_are_numbered(demos_file, tmp_path):
    options = ("--demos", demos_file, *LONG, "--steps", 5)
    printed = [succeeded(train(tmp_path, *options)) for _ in range(3)]
    assert sorted(os.listdir(tmp_path / "runs")) == ["pusht-mlp-0", "pusht-mlp-0-2",
                                                     "pusht-mlp-0-3"]
    assert "taken" not in printed[0]
    assert printed[2].startswith("runs/pusht-mlp-0 is taken; this run goes into "
                                 "runs/pusht-mlp-0-3\n")
    assert "next: python eval.py runs/pusht-mlp-0-3 " in printed[2]


def test_a_finished_run_resumes_to_itself(trained, tmp_path):
    (tmp_path / "run").mkdir()
    whole = (trained[0] / "checkpoint.npz").read_bytes()
    (tmp_path / "run" / "checkpoint.npz").write_bytes(whole)
    succeeded(train(tmp_path, "--resume", "run", "--score-episodes", 0))
    assert_same_run(trained[0], tmp_path / "run")


def test_a_run_does_not_resume_with_other_demonstrations(arrays, tmp_path):
    np.savez(tmp_path / "d.npz", **arrays)
    succeeded(train(tmp_path, "--demos", "d.npz", "--out", "run", *LONG, "--steps", 5))
    before = (tmp_path / "run" / "checkpoint.npz").read_bytes()
    other = arrays["action"] + np.eye(len(arrays["action"]), 2, dtype=np.float32)
    np.savez(tmp_path / "d.npz", **arrays | {"action": other})
    said = sentence(train(tmp_path, "--resume", "run"), 1)
    assert said.endswith("d.npz: not the demonstrations that the run was started with")
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == before


def test_a_resumed_run_finds_its_files_of_demonstrations_again(arrays, demos_file, tmp_path):
    """From another folder than it was started in, too."""
    np.savez(tmp_path / "more.npz", **arrays)
    options = ("--out", "run", *LONG, "--steps", 5, "--demos", demos_file, "more.npz")
    printed = succeeded(train(tmp_path, *options))
    assert printed.startswith(f"{2 * len(arrays['episode_ends'])} demonstrations")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["demos"] == [str(demos_file), str(tmp_path / "more.npz")]
    succeeded(train(tmp_path.parent, "--resume", tmp_path / "run", "--score-episodes", 0))


def test_a_run_is_never_overwritten(trained, demos_file):
    folder = trained[0]
    before = (folder / "checkpoint.npz").read_bytes()
    said = sentence(train(folder.parent, "--demos", demos_file, "--out", "my run", *SMALL))
    assert said.endswith("my run already holds a run: continue it with --resume 'my run', "
                         "or choose another folder")
    assert (folder / "checkpoint.npz").read_bytes() == before


# ---- words ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["--demos", "--resume", "--out"])
def test_an_unset_variable_is_refused(name, tmp_path):
    said = sentence(train(tmp_path, name, ""))
    assert f"argument {name}: is empty: is a variable not set?" in said
    assert os.listdir(tmp_path) == []


def test_actions_that_are_mostly_clipped_are_warned_about(arrays, tmp_path):
    """Resting but for a few long moves: a standard deviation is small, and a move many of them."""
    action = arrays["state"][:, :2].copy()
    action[::35] += 200
    np.savez(tmp_path / "d.npz", **arrays | {"action": action})
    options = ("--demos", "d.npz", *SMALL[:-1], 0, "--steps", 2, "--pred-horizon", 1, "--out")
    assert "% of the numbers in the actions exceed --clip 4 standard deviations" in succeeded(
        train(tmp_path, *options, "run"))
    assert "exceed" not in succeeded(train(tmp_path, *options, "other", "--clip", 50))


def test_help_explains_every_flag():
    printed = succeeded(train(ROOT, "--help"))
    usage, _, options = printed.partition("options:")
    entries = re.split(r"\n  (?=-)", options)[1:]
    explained = set()
    for entry in entries:
        explained |= set(re.findall(r"--[a-zA-Z-]+", entry))
        words = re.sub(r"--?[a-zA-Z-]+|\{.*?\}|\b[A-Z_]{2,}\b|\(default: .*?\)", " ", entry,
                       flags=re.S)
        assert re.findall(r"[a-zA-Z_]{2,}", words), f"not explained: {entry}"
    assert explained >= set(re.findall(r"\[(--[a-zA-Z-]+)", usage)) and len(explained) > 12


@pytest.mark.parametrize("arguments, said", [
    ("--demos nowhere.npz", "nowhere.npz: no such file of demonstrations"),
    ("--demos notes.txt", "notes.txt: cannot be read as demonstrations"),
    ("--demos d.npz --lr -1", "--lr must be at least 1e-09, not -1.0"),
    ("--demos d.npz --T 0", "--T must be at least 1, not 0"),
    ("--demos d.npz --steps many", "argument --steps: invalid int value: 'many'"),
    ("--demos d.npz --ema 1", "--ema must be below 1, not 1.0"),
    ("--demos d.npz --drop-cond 1", "--drop-cond must be below 1, not 1.0"),
    ("--demos d.npz --seed -1", "--seed must be at least 0, not -1"),
    ("--demos d.npz --net conv --width 12", "--width must be a multiple of 8 for --net conv, not"),
    ("--demos d.npz --save-every 0", "--save-every: must be from 1 to 1000000000, not 0"),
    ("--demos d.npz --T 1000000000000", "--T must be at most 100000, not 1000000000000"),
    ("--demos d.npz --blocks 1000000000000", "--blocks must be at most 1000, not"),
    ("--demos d.npz --width 8000 --blocks 900", "parameters is too large: at most 67,108,864"),
    ("--demos d.npz --out notes.txt", "notes.txt"),
    ("--resume nowhere", "train.py: nowhere: there is no such folder of a run"),
    ("--resume broken", "train.py: broken/checkpoint.npz: this is not a minidiff checkpoint"),
    ("--resume broken --lr 1", "--resume goes on with the run's own config and folder; it takes "
                               "no --lr"),
    ("--resume broken --demos d.npz", "it takes no --demos"),
])
def test_train_refuses_bad_input_in_a_sentence_and_leaves_nothing(arguments, said, demos_file,
                                                                  tmp_path):
    (tmp_path / "d.npz").symlink_to(demos_file)
    (tmp_path / "notes.txt").write_text("not demonstrations")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "checkpoint.npz").write_text("not a checkpoint")
    assert said in sentence(train(tmp_path, *arguments.split()))
    assert sorted(os.listdir(tmp_path)) == ["broken", "d.npz", "notes.txt"]
