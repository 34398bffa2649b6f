"""What train.py has of PushT: the score at the end, the curves of the loss, the film."""
from minidiff.pusht import setting
from minidiff.pusht.view import charts, films
from minidiff.scoring import rollout, scores
from minidiff.scoring.scores import Episode
from minidiff.training import Config

import contextlib
import os
from types import SimpleNamespace

import numpy as np
import pytest

NAN = float("nan")


@pytest.fixture
def scored(monkeypatch):
    """scored(outcome, episodes): the summary and what evaluate was called with, on four cores."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(setting, "Workers", contextlib.nullcontext)

    def score(outcome, episodes):
        calls = []

        def evaluate(policy, seeds, executor, progress):
            calls.append((policy, seeds, executor))
            progress(episodes)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(rollout, "evaluate", evaluate)
        return setting.score("a policy", "ddim", episodes), *calls
    return score


@pytest.mark.parametrize("episodes, workers", [(50, 1), (51, 2), (500, 4)])
def test_a_score_takes_the_seeds_for_tuning_on_as_many_cores_as_help(episodes, workers, scored,
                                                                     capsys):
    played = [Episode(5000, 0.5, False, 9, 0.5)]
    summary, (policy, seeds, executor) = scored(played, episodes)
    assert summary == scores.summary(played)
    assert (policy, executor) == ("a policy", workers)
    assert seeds == range(5000, 5000 + episodes)
    assert f"scoring (ddim) {episodes}/{episodes} " in capsys.readouterr().err


def test_a_score_that_ends_early_is_of_what_is_over_and_says_why(scored):
    played = [Episode(5000, 0.5, False, 9, 0.5)]
    summary, _ = scored(rollout.Unfinished("stopped", played), 50)
    assert summary == scores.summary(played) | {"incomplete": "stopped"}
    assert setting.sentence(summary) == scores.sentence(summary)
    summary, _ = scored(rollout.Unfinished("stopped", []), 50)
    assert summary == {"n": 0, "incomplete": "stopped"}
    assert setting.sentence(summary) == "no episode is over"


def drawn(monkeypatch, by_t, n, first=0.0, **options):
    """What draw_loss draws for losses first, first + 1, ..: its lines by name, all else."""
    calls = []
    monkeypatch.setattr(charts, "curves", lambda *given: calls.append(given))
    config = Config(steps=400, weight="uniform", **options)
    setting.draw_loss("loss.png", SimpleNamespace(
        config=config, n=n, losses=first + np.arange(400.0), loss_by_t=np.array(by_t)))
    (path, lines, *words), = calls
    assert path == "loss.png"
    return {name: (list(x), list(y)) for name, x, y in lines}, words


def test_the_loss_is_drawn_as_means_over_hundredths_of_the_run(monkeypatch):
    lines, words = drawn(monkeypatch, np.full((2, 4), NAN), 301)  # the last is left over
    middles = np.arange(1.5, 300, 3)
    assert lines == {"training loss": (list(middles), list(middles - 0.5))}
    assert words == ["L_simple, lambda = uniform, mlp", "gradient step", "loss", True,
                     "training loss: means over 3 steps"]
    assert drawn(monkeypatch, np.full((2, 4), NAN), 301, first=-9.0)[1][-2] is False
    lines, _ = drawn(monkeypatch, np.full((2, 4), NAN), 2)
    assert lines == {"training loss": ([0.5, 1.5], [0, 1])}


def test_the_loss_is_drawn_by_the_quarters_of_the_chain_that_there_are(monkeypatch):
    by_t = [[1, NAN, 5, 7], [2, NAN, NAN, 8]]
    lines, words = drawn(monkeypatch, by_t, 301, T=10)
    del lines["training loss"]
    assert list(lines) == ["t = 1..2", "t = 6..7", "t = 8..10"]
    assert lines["t = 8..10"] == ([0, 200], [7, 8])
    assert words[-1].endswith("steps; the others: quarters of the chain")
    lines, words = drawn(monkeypatch, np.ones((2, 4)), 301, T=1)
    assert list(lines) == ["training loss", "t = 1..1"] and "the others" in words[-1]


def test_the_film_is_of_the_first_episodes_that_are_scored(monkeypatch):
    calls = []
    monkeypatch.setattr(films, "film", lambda *given, before: calls.append((*given, before)))
    setting.draw_episodes("a.png", "before", "after", 3)
    assert calls == [("a.png", "after", range(5000, 5003), "before")]
