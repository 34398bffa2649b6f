"""eval.py as a user runs it: its score sheet, what it says, and what it refuses."""
from minidiff import demos, policy
from minidiff.pusht.features import PUSHT
from minidiff.training import Config, Trainer

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from conftest import ROOT, command, run

pytestmark = pytest.mark.slow  # each test runs the command at least once

QUICK = "--sampler ddim --sampler-steps 2 --episodes 3 --max-steps 12".split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, demos_file):
    """A folder with a small finished run in `run`."""
    folder = tmp_path_factory.mktemp("trained")
    config = Config(steps=60, width=16, blocks=1, T=10, batch=32)
    trainer = Trainer(config, PUSHT, demos.load(demos_file, PUSHT))
    for _ in trainer:
        pass
    policy.save(folder / "run" / "policy.npz", trainer)
    policy.save(folder / "run" / "checkpoint.npz", trainer, resumable=True)
    return folder


def evaluate(folder, *arguments):
    """eval.py on the run -> what it printed."""
    result = run(folder, "eval.py", "run", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def score_sheet(folder, *arguments):
    """eval.py on the run, three short episodes -> the content of its JSON file."""
    evaluate(folder, "--episodes", 3, "--max-steps", 40, "--json", "out/scores.json", *arguments)
    return json.loads((folder / "out" / "scores.json").read_text())


# ---- the score sheet -----------------------------------------------------------------------------

def test_the_json_file_has_every_episode_and_a_summary_that_agrees(trained):
    sheet = score_sheet(trained, "--seed", 7)
    episodes, summary = sheet["episodes"], sheet["summary"]
    assert [e["seed"] for e in episodes] == [7, 8, 9]
    assert (summary["n"], summary["first_seed"], summary["last_seed"]) == (3, 7, 9)
    assert all(1 <= e["steps"] <= 40 for e in episodes)
    for name in ("score", "success", "last_reward"):
        assert summary[name] == pytest.approx(np.mean([e[name] for e in episodes]))
    assert summary["score_ci95"][0] <= summary["score"] <= summary["score_ci95"][1]
    assert summary["plan_ms"] > 0 and summary["seconds"] > 0
    assert sheet["checkpoint"] == "run/checkpoint.npz" and sheet["options"]["episodes"] == 3
    assert sheet["config"]["steps"] == 60 and sheet["incomplete"] is None


def test_the_same_evaluation_is_identical_whatever_the_workers(trained):
    options = "--sampler", "ddim", "--sampler-steps", 3
    one, two = (score_sheet(trained, *options, "--workers", n) for n in (1, 2))
    assert one["episodes"] == two["episodes"]
    for sheet in (one, two):
        del sheet["summary"]["seconds"], sheet["summary"]["plan_ms"]
    assert one["summary"] == two["summary"]
    other = score_sheet(trained, *options, "--noise-seed", 1)
    assert other["episodes"] != one["episodes"]


def test_a_run_is_its_folder_its_checkpoint_or_its_policy_file(trained):
    said = []
    for name in ("run", "run/policy.npz", "run/checkpoint.npz"):
        result = run(trained, "eval.py", name, "--episodes", 2, "--max-steps", 30)
        said.append(result.stdout.split("in all\n")[1])
    assert said[0].startswith("score ") and said[0] == said[1] == said[2]
    small, whole = trained / "run" / "policy.npz", trained / "run" / "checkpoint.npz"
    assert small.stat().st_size < 0.5 * whole.stat().st_size


# ---- what it says --------------------------------------------------------------------------------

def test_it_says_how_plans_are_sampled_and_scores_with_intervals(trained):
    said = evaluate(trained, *QUICK)
    assert said.startswith("run/checkpoint.npz: mlp, 60 of 60 steps")
    assert "ddim, sampler steps 2, executing 4 of 8 actions: " in said
    assert re.search(r"^score 0\.\d{3}, 95 % CI \[.*\]   success .*%, 95 % CI \[.*\]   "
                     r"\(3 episodes, seeds 5000\.\.5002\)$", said, re.M)


def test_candidates_and_disturbances_are_said(trained):
    said = evaluate(trained, *QUICK, "--max-steps", 60, "--candidates", 3, "--kick-block", 50, 45,
                    "--action-latency", 2, "--json", "b.json")
    assert "kick block [50.0, 45.0], action latency 2, the best of 3 plans tried in the s" in said
    summary = json.loads((trained / "b.json").read_text())["summary"]
    assert summary["candidates"] == 3 and summary["decision_ms"] > 0
    assert "tried in the simulator" not in evaluate(trained, *QUICK)


def test_a_budget_of_time_is_spent_on_plans(trained):
    said = evaluate(trained, "--episodes", 1, "--max-steps", 12, "--budget-ms", 60)
    assert int(re.search(r"the best of (\d+) plans tried", said)[1]) >= 4


def test_help_explains_every_option():
    result = run(ROOT, "eval.py", "--help")
    assert result.returncode == 0
    entries = re.split(r"\n  (?=-)", result.stdout)[1:]
    assert len(entries) > 20
    for entry in entries:
        words = re.sub(r"--?[a-zA-Z-]+|\{.*?\}|\b[A-Z_]{2,}\b|\(default: .*?\)", " ", entry,
                       flags=re.S)
        assert re.search(r"[a-zA-Z_]{2,}", words), f"not explained: {entry}"


@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_if_nobody_reads_what_it_says_the_file_is_written_all_the_same(reader, trained, tmp_path):
    path = tmp_path / "c.json"
    words = " ".join(command("eval.py", "run", *QUICK, "--json", path))
    result = subprocess.run(["sh", "-c", f"({words}; echo status $? >&2) | {reader}"],
                            cwd=trained, capture_output=True, text=True, timeout=60)
    assert result.stderr.endswith("status 0\n") and "Error" not in result.stderr
    assert result.stdout == "" or result.stdout.startswith("run/checkpoint.npz: mlp")
    assert len(json.loads(path.read_text())["episodes"]) == 3


# ---- when it ends early --------------------------------------------------------------------------

MANY = "--sampler ddim --sampler-steps 4 --episodes 5000 --workers 2".split()


@pytest.fixture
def scoring(tmp_path):
    """The shipped policy is scored, in a process group of its own; some episodes are over."""
    process = subprocess.Popen(command("eval.py", *MANY, "--json", "a.json"), cwd=tmp_path,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True)
    assert " left" in process.stderr.readline()  # the first line of progress
    yield process
    if in_group(process):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def in_group(process):
    """The process ids in a process group that have not ended."""
    table = subprocess.run(["ps", "-eo", "pgid=,pid=,stat="], capture_output=True, text=True).stdout
    rows = [row.split() for row in table.splitlines()]
    return [int(pid) for group, pid, stat in rows
            if int(group) == process.pid and not stat.startswith("Z")]


def gone(process, seconds):
    """Whether nothing of a process group is left after so many seconds at most."""
    end = time.monotonic() + seconds
    while in_group(process) and time.monotonic() < end:
        time.sleep(0.05)
    return not in_group(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_within_two_seconds_with_what_is_over(number, scoring, tmp_path):
    started = time.monotonic()
    os.killpg(scoring.pid, number)  # as a terminal does: to the workers, too
    out, error = scoring.communicate(timeout=10)
    assert time.monotonic() - started < 2
    assert scoring.returncode == 1 and gone(scoring, 0) and "Traceback" not in error
    sheet = json.loads((tmp_path / "a.json").read_text())
    n = len(sheet["episodes"])
    assert 50 <= n == sheet["summary"]["n"] < 5000
    assert sheet["incomplete"] == f"stopped: {n} of 5000 episodes are over"
    assert f"({n} episodes, " in out and "every episode: a.json" in out
    assert f"eval.py: incomplete, stopped: {n} of 5000 episodes are over. Success ends" in error


def test_a_second_ctrl_c_ends_it_at_once(scoring):
    os.killpg(scoring.pid, signal.SIGINT)
    os.killpg(scoring.pid, signal.SIGINT)
    _, error = scoring.communicate(timeout=2)
    assert scoring.returncode in (-signal.SIGINT, 1) and "Traceback" not in error
    assert gone(scoring, 2)


def test_when_it_is_killed_its_workers_end(scoring):
    assert len(in_group(scoring)) == 3
    scoring.kill()
    scoring.communicate(timeout=5)  # which waits for all who hold its output open
    assert gone(scoring, 5)


def test_when_a_worker_is_killed_it_reports_what_is_over(scoring, tmp_path):
    worker = max(in_group(scoring))
    os.kill(worker, signal.SIGKILL)
    out, error = scoring.communicate(timeout=10)
    assert scoring.returncode == 1 and gone(scoring, 0) and "Traceback" not in error
    sheet = json.loads((tmp_path / "a.json").read_text())
    n = len(sheet["episodes"])
    assert 50 <= n < 5000 and f"({n} episodes, " in out
    assert sheet["incomplete"] == ("a worker process died (signal 9, perhaps because memory ran "
                                   f"out): {n} of 5000 episodes are over")
    assert sheet["incomplete"] in error


# ---- what it refuses -----------------------------------------------------------------------------

def refusal(result):
    """What a command said when it failed: its last line. No traceback."""
    assert result.returncode not in (0, None)
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr, result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("arguments, said", [
    ("nowhere", "eval.py: nowhere: no such"),
    ("run --sampler-steps 3", "the sampler ancestral takes no steps, but variance"),
    ("run --sampler regression", "run: trained by --objective simple, so its plans come from the "
                                 "sampler ancestral or ddim or sde or flow or langevin or pc"),
    ("run --guidance 1", "guidance needs a network that was trained with --drop-cond above 0"),
    ("run --variance learned", "run: trained by --objective simple, which learns no variance"),
    ("run --sampler ddim --langevin-size 0.2", "the sampler ddim takes no size, but steps and eta"),
    ("run --sampler ddim --sampler-steps 11", "1 to T = 10 steps, not 11"),
    ("run --action-horizon 17", "action_horizon 17: a plan has 8 actions: choose from 1 to all"),
    ("run --seed 4294967295 --episodes 2", "--episodes 2: the last seed is 4294967295"),
    ("run --json run/policy.npz", "run/policy.npz: not a file that eval.py --json wrote"),
    ("run --json run", "run is a folder, not a file to write"),
])
def test_what_it_cannot_do_is_refused_in_a_sentence(arguments, said, trained):
    assert said in refusal(run(trained, "eval.py", *arguments.split()))


@pytest.mark.parametrize("arguments", [("",), ("run", "--json", "")])
def test_an_unset_variable_is_refused(arguments, trained):
    assert "is empty: is a variable not set?" in refusal(run(trained, "eval.py", *arguments))


def test_without_pymunk_it_says_what_is_missing(trained):
    (trained / "pymunk.py").write_text("raise ImportError('no pymunk here')")
    try:
        said = refusal(run(trained, "eval.py", "run", PYTHONPATH=str(trained)))
    finally:
        (trained / "pymunk.py").unlink()
    assert said.startswith("eval.py: ") and "pip install 'minidiff[pusht]'" in said
