"""train.py as a user runs it: what it leaves behind and says, and what a stopped run goes on to."""
import json
import os
import random
import re
import shlex
import signal
import subprocess
import time

import numpy as np
import pytest
from conftest import ROOT, command, is_png, run

from minidiff import checkpoint, policy
from minidiff.pusht.features import PUSHT

pytestmark = pytest.mark.slow  # each test runs a command or several

SMALL = "--steps 60 --width 16 --blocks 1 --T 10 --batch 32 --score-episodes 2".split()


def sentence(result, code=None):
    """What a command said when it failed: its last line. No traceback; argparse may show its usage before."""
    assert result.returncode == code if code else result.returncode not in (0, None)
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr, result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, demos_file):
    """A finished run in `run`, and what train.py printed."""
    folder = tmp_path_factory.mktemp("trained")
    result = run(folder, "train.py", "--demos", demos_file, "--out", "run", *SMALL)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


# ---- training -----------------------------------------------------------------------------------------------------

def test_training_makes_the_whole_run_folder(trained, demos_file):
    folder = trained[0] / "run"
    assert sorted(os.listdir(folder)) == ["checkpoint.npz", "config.json", "loss.png", "policy.npz",
                                          "rollouts.png", "scores.json"]
    config = json.loads((folder / "config.json").read_text())
    assert config["steps"] == 60 and config["width"] == 16 and config["T"] == 10 and config["net"] == "mlp"
    arrays, meta = checkpoint.load(folder / "checkpoint.npz")
    assert meta["config"] == config and meta["update"] == 60 == len(arrays["losses"])
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert is_png(folder / "loss.png") and is_png(folder / "rollouts.png")
    scores = json.loads((folder / "scores.json").read_text())
    assert {name: s["n"] for name, s in scores.items()} == {"ancestral": 2, "ddim": 2}


def test_the_next_command_that_training_prints_works(trained):
    """As printed, but for fewer and shorter episodes."""
    folder, printed = trained
    python, script, *arguments = shlex.split(re.search(r"^next: (python eval\.py .*?)(   |$)", printed, re.M)[1])
    result = run(folder, script, *arguments, "--episodes", 2, "--max-steps", 8)
    assert result.returncode == 0 and "seeds 300000..300001" in result.stdout, result.stderr


def test_training_again_gives_the_same_weights_and_scores(trained, demos_file, tmp_path):
    assert run(tmp_path, "train.py", "--demos", demos_file, "--out", "again", *SMALL).returncode == 0
    assert_same_run(trained[0] / "run", tmp_path / "again")
    scores = [(folder / "scores.json").read_text() for folder in (trained[0] / "run", tmp_path / "again")]
    assert scores[0] == scores[1]


def test_the_convolutional_denoiser_trains_into_a_folder_of_its_own(demos_file, tmp_path):
    result = run(tmp_path, "train.py", "--demos", demos_file, *SMALL, "--net", "conv", "--steps", 20)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs" / "pusht-conv-0" / "rollouts.png").exists()


def test_chains_and_plans_shorter_than_the_defaults_are_scored_too(demos_file, tmp_path):
    result = run(tmp_path, "train.py", "--demos", demos_file, *SMALL, "--T", 2, "--pred-horizon", 3, "--steps", 5)
    assert result.returncode == 0 and "ddim:" in result.stdout, result.stderr


def test_the_regression_baseline_trains_and_is_scored_by_the_same_commands(demos_file, tmp_path):
    result = run(tmp_path, "train.py", "--demos", demos_file, *SMALL, "--objective", "mse", "--out", "run")
    assert result.returncode == 0 and re.search(r"^regression: score", result.stdout, re.M), result.stderr
    assert "regression, executing 2 of 16 actions" in run(tmp_path, "eval.py", "run", "--episodes", 1).stdout


@pytest.mark.parametrize("objective", ["hybrid", "bound"])
def test_the_objectives_that_learn_a_variance_train_and_sample_with_it(objective, demos_file, tmp_path):
    result = run(tmp_path, "train.py", "--demos", demos_file, *SMALL, "--objective", objective, "--out", "run")
    assert result.returncode == 0 and "ddim:" in result.stdout, result.stderr
    obs = np.full((1, 1, 5), 200.0)
    plans = [policy.load(tmp_path / "run" / "policy.npz", PUSHT, **options)[0].plan(obs, np.random.default_rng(0))
             for options in ({}, {"variance": "learned"}, {"variance": "beta"})]
    assert np.array_equal(plans[0], plans[1]) and np.abs(plans[0] - plans[2]).max() > 0.1
    assert "exactly, along the probability-flow ODE" in run(tmp_path, "eval.py", "run", "--bound", demos_file).stdout


def test_a_network_that_also_saw_nothing_can_be_guided(demos_file, tmp_path):
    result = run(tmp_path, "train.py", "--demos", demos_file, *SMALL, "--drop-cond", 0.2, "--out", "run")
    assert result.returncode == 0, result.stderr
    result = run(tmp_path, "eval.py", "run", "--episodes", 1, "--guidance", 1.5)
    assert "ancestral, guidance 1.5, executing" in result.stdout, result.stderr


def test_without_pygame_training_still_scores_and_says_what_is_missing(demos_file, tmp_path):
    (tmp_path / "pygame.py").write_text("raise ImportError('no pygame here')")
    result = run(tmp_path, "train.py", "--demos", demos_file, *SMALL, "--out", "run", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "pictures need pygame" in result.stdout and "next: " in result.stdout
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint.npz", "config.json", "policy.npz", "scores.json"]


def test_a_run_that_diverges_stops_in_words_and_its_last_good_checkpoint_loads(demos_file, tmp_path):
    arguments = ("train.py", "--demos", demos_file, "--out", "run", *SMALL, "--lr", 1e30, "--warmup", 1000)
    said = sentence(run(tmp_path, *arguments), 1)
    assert re.match(r"diverged at step \d: .* nothing was saved yet. Try a smaller", said)  # long before the last step
    said = sentence(run(tmp_path, *arguments, "--steps", 1, "--lr", 1e39, "--warmup", 0), 1)
    assert re.match(r"diverged at step 1: .* nothing was saved yet", said)  # the loss was finite, the weights are not
    said = sentence(run(tmp_path, *arguments, "--save-every", 1), 1)
    assert re.match(r"diverged at step \d+: .* is kept in run/checkpoint.npz. Try a smaller.*: --lr 3e\+29", said)
    arrays, meta = checkpoint.load(tmp_path / "run" / "checkpoint.npz")
    assert meta["update"] >= 1 and np.isfinite(arrays["theta"]).all() and np.isfinite(arrays["losses"]).all()


# ---- stopping and resuming ----------------------------------------------------------------------------------------

LONG = "--steps 1200 --width 16 --blocks 1 --T 10 --batch 32 --score-episodes 0 --save-every 10".split()


def assert_same_run(a, b):
    """The same weights, optimiser and losses, to the last bit."""
    (a, meta_a), (b, meta_b) = (checkpoint.load(folder / "checkpoint.npz") for folder in (a, b))
    assert meta_a["update"] == meta_b["update"] and meta_a["rng"] == meta_b["rng"]
    assert set(a) == set(b) >= {"theta", "ema", "m", "v", "losses"}
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, demos_file):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(folder, "train.py", "--demos", demos_file, "--out", "run", *LONG).returncode == 0
    return folder / "run"


def stopped(folder, demos_file, number):
    """Train, and send a signal at a random moment after the first checkpoint -> exit status, stderr, steps done."""
    process = subprocess.Popen(command("train.py", "--demos", demos_file, "--out", "run", *LONG), cwd=folder, text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    path = folder / "run" / "checkpoint.npz"
    while not path.exists() and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.4))
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    done = checkpoint.load(path)[1]["update"]
    assert 0 < done < 1200, f"it was too late for a signal: {done} steps done"
    return process.returncode, error, done


def test_a_killed_run_resumes_to_the_same_weights_to_the_last_bit(uninterrupted, demos_file, tmp_path):
    code, _, done = stopped(tmp_path, demos_file, signal.SIGKILL)
    assert code == -signal.SIGKILL and done % 10 == 0
    assert run(tmp_path, "train.py", "--resume", "run", "--save-every", 10, "--score-episodes", 0).returncode == 0
    assert_same_run(uninterrupted, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_and_names_the_command_that_goes_on_to_the_same_weights(number, uninterrupted, demos_file,
                                                                                   tmp_path):
    code, error, done = stopped(tmp_path, demos_file, number)
    assert code == 1 and "Traceback" not in error
    said = re.search(r"stopped at step (\d+) and saved; go on with: python (.*)", error)
    assert int(said[1]) == done
    assert run(tmp_path, *shlex.split(said[2]), "--score-episodes", 0).returncode == 0
    assert_same_run(uninterrupted, tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint.npz", "config.json", "loss.png", "policy.npz"]


def test_a_finished_run_resumes_to_itself(trained, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.npz").write_bytes((trained[0] / "run" / "checkpoint.npz").read_bytes())
    assert run(tmp_path, "train.py", "--resume", "run", "--score-episodes", 0).returncode == 0
    assert_same_run(trained[0] / "run", tmp_path / "run")


def test_a_run_does_not_resume_with_other_demonstrations(arrays, tmp_path):
    np.savez(tmp_path / "d.npz", **arrays)
    assert run(tmp_path, "train.py", "--demos", "d.npz", "--out", "run", *LONG, "--steps", 5).returncode == 0
    before = (tmp_path / "run" / "checkpoint.npz").read_bytes()
    arrays = arrays | {"action": arrays["action"] + np.eye(len(arrays["action"]), 2, dtype=np.float32)}
    np.savez(tmp_path / "d.npz", **arrays)
    said = sentence(run(tmp_path, "train.py", "--resume", "run"), 1)
    assert said == "train.py: d.npz: not the demonstrations that run was started with"
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == before


def test_several_files_are_learned_from_together_and_a_resumed_run_finds_them_again(arrays, demos_file, tmp_path):
    np.savez(tmp_path / "more.npz", **arrays)
    first = run(tmp_path, "train.py", "--out", "run", *LONG, "--steps", 5, "--demos", demos_file, "more.npz")
    assert first.returncode == 0 and first.stdout.startswith(f"{2 * len(arrays['episode_ends'])} demonstrations"), first.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["demos"] == f"{demos_file}{os.pathsep}more.npz"
    assert run(tmp_path, "train.py", "--resume", "run", "--score-episodes", 0).returncode == 0
    name = f"a{os.pathsep}b.npz"
    assert "cannot be told from two names" in sentence(run(tmp_path, "train.py", "--demos", name), 2)


def test_a_run_is_never_overwritten(trained, demos_file):
    before = (trained[0] / "run" / "checkpoint.npz").read_bytes()
    said = sentence(run(trained[0], "train.py", "--demos", demos_file, "--out", "run", *SMALL))
    assert "run already holds a run: continue it with --resume run, or choose another --out" in said
    assert (trained[0] / "run" / "checkpoint.npz").read_bytes() == before


# ---- words --------------------------------------------------------------------------------------------------------

def test_help_explains_every_flag():
    result = run(ROOT, "train.py", "--help")
    assert result.returncode == 0
    usage, _, options = result.stdout.partition("options:")
    entries = re.split(r"\n  (?=-)", options)[1:]
    explained = {flag for entry in entries for flag in re.findall(r"--[a-zA-Z-]+", entry)}
    assert explained >= set(re.findall(r"\[(--[a-zA-Z-]+)", usage)) and len(explained) > 12
    for entry in entries:
        words = re.sub(r"--?[a-zA-Z-]+|\{.*?\}|\b[A-Z_]{2,}\b|\(default: .*?\)", " ", entry, flags=re.S)
        assert len(re.findall(r"[a-zA-Z_]{2,}", words)) >= 1, f"not explained: {entry}"


@pytest.mark.parametrize("arguments, said", [
    ("--demos nowhere.npz", "train.py: nowhere.npz: no such file of demonstrations"),
    ("--demos notes.txt", "train.py: notes.txt: cannot be read as demonstrations"),
    ("--demos d.npz --lr -1", "--lr must be at least 1e-09, not -1.0"),
    ("--demos d.npz --T 0", "--T must be at least 1, not 0"),
    ("--demos d.npz --steps many", "argument --steps: invalid int value: 'many'"),
    ("--demos d.npz --ema 1", "--ema must be below 1, not 1.0"),
    ("--demos d.npz --drop-cond 1", "--drop-cond must be below 1, not 1.0"),
    ("--demos d.npz --seed -1", "--seed must be at least 0, not -1"),
    ("--demos d.npz --net conv --width 12", "--width must be a multiple of 8 for --net conv, not 12"),
    ("--demos d.npz --save-every 0", "--save-every must be at least 1, not 0"),
    ("--demos d.npz --out notes.txt", "notes.txt"),
    ("--resume nowhere", "train.py: nowhere/checkpoint.npz: no such checkpoint"),
    ("--resume broken", "train.py: broken/checkpoint.npz: this is not a minidiff checkpoint"),
    ("--resume broken --lr 1", "--resume goes on with the run's own config and folder; it takes no --lr"),
])
def test_train_refuses_what_it_cannot_do_in_a_sentence_and_leaves_nothing(arguments, said, demos_file, tmp_path):
    (tmp_path / "d.npz").symlink_to(demos_file)
    (tmp_path / "notes.txt").write_text("not demonstrations")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "checkpoint.npz").write_text("not a checkpoint")
    assert said in sentence(run(tmp_path, "train.py", *arguments.split()))
    assert sorted(os.listdir(tmp_path)) == ["broken", "d.npz", "notes.txt"]
