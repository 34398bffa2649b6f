"""The tasks of tests/benchmarks/tasks, and what is measured of them and of fine-tuning."""
from minidiff import demos

import importlib
import json

import numpy as np
import pytest
from benchmarks import fine_tuning, own_tasks

NAMES = [pytest.param(name, id=name) for name in ("arm", "park", "chain")]


@pytest.mark.parametrize("name", NAMES)
def test_a_demonstrator_solves_its_task_and_noise_changes_its_way(name):
    for seed in range(10):
        states, actions, episode = own_tasks.episode(name, seed)
        assert episode.success and len(states) == len(actions) == episode.steps
        noisy, intended, _ = own_tasks.episode(name, seed, noise=1.0)
        assert np.array_equal(intended[0], actions[0]) and noisy.tolist() != states.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_demonstrations_stay_at_the_end(name):
    data = own_tasks.demonstrated(name, 3)
    _, _, alone = own_tasks.episode(name, 0, noise=1.0)
    assert data.episode_ends[0] == alone.steps + 20 and len(data.episode_ends) == 3
    task = importlib.import_module(f"benchmarks.tasks.{name}").TASK
    assert isinstance(demos.check(data._asdict(), task), demos.Demos)


def test_a_demonstrator_may_take_either_way():
    ends = [own_tasks.episode("park", seed)[0][-1, 0] for seed in range(20)]
    assert {bool(end > 0) for end in ends} == {False, True}
    assert all(0.9 < abs(end) < 1.1 for end in ends)


@pytest.mark.slow
def test_the_figures_are_those_of_the_demonstrator_and_each_way_to_learn(monkeypatch, tmp_path):
    park = importlib.import_module("benchmarks.tasks.park")
    short = park.TASK._replace(recipe={"steps": 3, "T": 4, "width": 8}, max_steps=30)
    monkeypatch.setattr(park, "TASK", short)
    path = tmp_path / "park.json"
    own_tasks.main(f"park --seeds 0 1 --episodes 3 --json {path}".split())
    figures = json.loads(path.read_text())
    counts = {name: len(sheet["episodes"]) for name, sheet in figures.items()}
    assert counts == {"demonstrator": 3, "DDIM, 4 steps": 6, "ancestral": 6, "regression": 6}
    assert all(episode["success"] for episode in figures["demonstrator"]["episodes"])


def test_pendulums_demonstrator_swings_it_up():
    pytest.importorskip("gymnasium")
    returns = [own_tasks.episode("pendulum", seed)[2].score for seed in range(10)]
    assert min(returns) > -400 and np.mean(returns) > -200


def test_demonstrations_are_split_between_two_of_them():
    state = np.arange(20.0).reshape(10, 2)
    data = demos.Demos(state, -state, np.array([3, 7, 10]))
    few, others = fine_tuning.split(data, 2)
    assert few.episode_ends.tolist() == [3, 7] and others.episode_ends.tolist() == [3]
    assert np.array_equal(np.concatenate([few.state, others.state]), state)
    assert np.array_equal(np.concatenate([few.action, others.action]), -state)
