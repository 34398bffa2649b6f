"""A dask cluster of processes: the same results as here, whoever dies meanwhile."""
from minidiff import demos, wall
from minidiff.beyond import tasks
from minidiff.policy import from_trainer
from minidiff.scoring import cluster, rollout
from minidiff.scoring.workers import Workers
from minidiff.training import Config, Trainer

import concurrent.futures
import functools
import importlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address():
    """Of a scheduler on this machine, with two processes as its workers."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0",
                                  host="127.0.0.1") as local:
        yield local.scheduler_address


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """Of a task whose file lies where no worker looks for modules."""
    path = tmp_path_factory.mktemp("task") / "elsewhere.py"
    path.write_text((ROOT / "minidiff" / "wall.py").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        task = tasks.load(str(path))
        data = demos.own(task)
        trainer = Trainer(Config(**task.recipe | {"steps": 30}), task, data)
        list(trainer)
        yield from_trainer(trainer)
        del sys.modules["elsewhere"]


SEEDS = range(100, 280)  # four chunks


def test_a_cluster_brings_the_same_episodes_to_the_last_bit(address, policy):
    with cluster.Cluster(address, policy.task) as executor:
        there = rollout.evaluate(policy, SEEDS, executor, 3)
    with Workers(2) as executor:
        here = rollout.evaluate(policy, SEEDS, executor, 3)
    assert there == here and len({episode.last_reward for episode in here}) > 1


def slow(k, path):
    """k, after a while; the first call for 0 writes its process id and waits for its death."""
    if k == 0 and not os.path.exists(path):
        with open(path, "w") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(60)
    return k * k


def test_a_worker_that_is_killed_in_the_middle_costs_nothing(address, tmp_path, monkeypatch):
    path = tmp_path / "process"
    task = (slow,)  # this module travels with it
    with cluster.Cluster(address, task) as executor:
        futures = [executor.submit(slow, k, str(path)) for k in range(6)]
        while not (path.exists() and path.read_text().endswith("\n")):
            time.sleep(0.05)
        os.kill(int(path.read_text()), signal.SIGKILL)
        assert [future.result(60) for future in futures] == [0, 1, 4, 9, 16, 25]


def test_a_worker_with_other_versions_is_warned_about(address, monkeypatch, capsys):
    with cluster.Cluster(address):
        assert capsys.readouterr().out == ""
    monkeypatch.setattr(cluster, "__version__", "9")
    with cluster.Cluster(address):
        first, *_ = capsys.readouterr().out.splitlines()
    assert re.match("warning: tcp://.* has {'minidiff': '0.*, this machine {'minidiff': '9'", first)
    assert first.endswith(": results may differ in their last digits")


def fail():
    raise ZeroDivisionError("as asked")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_error_on_the_cluster_is_raised_here(address):
    with cluster.Cluster(address, (fail,)) as executor:
        with pytest.raises(ZeroDivisionError, match="as asked"):
            executor.submit(fail).result(60)


def test_a_task_that_kills_its_workers_is_given_up(address):
    with cluster.Cluster(address, (die,)) as executor:
        with pytest.raises(concurrent.futures.BrokenExecutor, match="the cluster has lost it: "):
            executor.submit(die).result(120)


def test_eval_on_a_cluster_writes_the_same_sheet(address, tmp_path):
    asked = ["--sampler", "ddim", "--sampler-steps", "2", "--episodes", "60", "--max-steps", "8"]
    there = run(tmp_path, "eval.py", *asked, "--scheduler", address, "--json", "there.json")
    here = run(tmp_path, "eval.py", *asked, "--json", "here.json")
    assert there.returncode == here.returncode == 0, there.stderr
    assert there.stdout.splitlines()[2] == here.stdout.splitlines()[2]


def test_demonstrations_made_on_a_cluster_are_the_same_bytes(address, tmp_path):
    pytest.importorskip("pymunk")
    asked = ["-m", "minidiff.pusht", "collect", "--episodes", "3", "--samples", "6", "--out"]
    for out, more in (("there.npz", ["--scheduler", address]), ("here.npz", [])):
        done = subprocess.run([sys.executable, *asked, tmp_path / out, *more], cwd=ROOT,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "there.npz").read_bytes() == (tmp_path / "here.npz").read_bytes()


def test_where_nobody_is_there_it_is_said_before_the_work(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with pytest.raises(ValueError, match="tcp://127.0.0.1:9: no scheduler answers there"):
        cluster.Cluster("tcp://127.0.0.1:9")
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0", host="127.0.0.1") as empty:
        with pytest.raises(ValueError, match="no worker of the cluster can run minidiff: is one"):
            cluster.Cluster(empty.scheduler_address)


class Remote:
    """What a scheduler that has gone makes of a call."""

    def result(self):
        raise concurrent.futures.CancelledError("lost-scheduler")


def test_what_a_lost_scheduler_takes_along_is_broken():
    pytest.importorskip("distributed")
    wanted, unwanted = concurrent.futures.Future(), concurrent.futures.Future()
    unwanted.cancel()
    for future in (wanted, unwanted):
        cluster.hand_over(Remote(), future)
    with pytest.raises(concurrent.futures.BrokenExecutor, match="the cluster has lost it: lost-s"):
        wanted.result(0)
    assert unwanted.cancelled()


def test_a_cluster_is_left_at_the_end_of_the_block(address):
    with cluster.Cluster(address) as executor:
        assert executor.client.status == "running"
    assert executor.client.status == "closed"


class Unknown:
    """A function of a module that no worker has."""
    __name__ = "unknown"

    def __reduce__(self):
        return importlib.import_module, ("minidiff_of_another_name",)

    def __call__(self):
        """It is not called."""


def test_a_worker_without_minidiff_is_refused_in_words(address, monkeypatch):
    monkeypatch.setattr(cluster, "versions", Unknown())
    with pytest.raises(ValueError, match="can run minidiff: .* installed there.*No module named"):
        cluster.Cluster(address)


def test_without_dask_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'minidiff\[dask\]'"):
        cluster.executor("tcp://127.0.0.1:9", 2)
    with cluster.executor(None, 1) as executor:
        assert isinstance(executor, Workers)


def test_of_a_task_only_what_is_not_installed_travels_with_it(monkeypatch):
    assert cluster.homes(wall.TASK) == []
    monkeypatch.setattr(sys, "prefix", str(ROOT)[:-1])  # the folder of another name
    assert cluster.homes((slow, sum, len, 3, os.path.join)) == [sys.modules[__name__]]
    assert cluster.homes((functools.partial(slow, 3),)) == [sys.modules[__name__]]
