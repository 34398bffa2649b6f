"""What train.py scores a policy by: so many episodes, on as many cores as help."""
from minidiff.scoring import rollout, scores
from minidiff.scoring.scores import Episode
from minidiff.wall import TASK

import contextlib
import os
from types import SimpleNamespace

import pytest

POLICY = SimpleNamespace(task=TASK)


@pytest.fixture
def scored(monkeypatch):
    """scored(outcome, episodes): the summary and what evaluate was called with, on four cores."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(rollout, "Workers", contextlib.nullcontext)

    def score(outcome, episodes, task=TASK):
        calls = []

        def evaluate(policy, seeds, executor, progress):
            calls.append((policy, seeds, executor))
            progress(episodes)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(rollout, "evaluate", evaluate)
        return rollout.score(POLICY if task is TASK else SimpleNamespace(task=task),
                             range(5000, 5000 + episodes), "ddim"), *calls
    return score


@pytest.mark.parametrize("episodes, workers", [(50, 1), (51, 2), (500, 4)])
def test_a_score_takes_the_seeds_for_tuning_on_as_many_cores_as_help(episodes, workers, scored,
                                                                     capsys):
    played = [Episode(5000, 0.5, False, 9, 0.5)]
    summary, (policy, seeds, executor) = scored(played, episodes)
    assert summary == scores.summary(played)
    assert (policy, executor) == (POLICY, workers)
    assert seeds == range(5000, 5000 + episodes)
    assert f"scoring (ddim) {episodes}/{episodes} " in capsys.readouterr().err


@pytest.mark.parametrize("early", [False, True])
def test_a_score_has_the_range_of_its_task(early, scored, monkeypatch):
    monkeypatch.setattr(POLICY, "task", TASK._replace(score_range=(-9.0, -2.0)))
    played = [Episode(5000, -5.0, None, 9, 0.5)]
    summary, _ = scored(rollout.Unfinished("stopped", played) if early else played, 50)
    low, high = summary["score_ci95"]
    assert -9 <= low < -5 < high <= -2


def test_a_score_that_ends_early_is_of_what_is_over_and_says_why(scored):
    played = [Episode(5000, 0.5, False, 9, 0.5)]
    summary, _ = scored(rollout.Unfinished("stopped", played), 50)
    assert summary == scores.summary(played) | {"incomplete": "stopped"}
    far = [Episode(5000, 9.0, None, 9, 0.5)]
    summary, _ = scored(rollout.Unfinished("stopped", far), 50, TASK._replace(score_range=None))
    assert summary["score_ci95"] == [9.0, 9.0]
    summary, _ = scored(rollout.Unfinished("stopped", []), 50)
    assert summary == {"n": 0, "incomplete": "stopped"}
    assert scores.sentence(summary) == "no episode is over"
