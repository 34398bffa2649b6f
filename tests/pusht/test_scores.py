"""Scores: summaries, the intervals around them, and the comparison of two evaluations."""
from minidiff.pusht import scores
from minidiff.pusht.scores import Episode
from minidiff.pusht.study import compare

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

# ---- summaries -----------------------------------------------------------------------------------

def test_a_summary_says_what_the_episodes_say():
    episodes = [Episode(11, 1.0, True, 80, 0.96), Episode(12, 0.4, False, 300, 0.1),
                Episode(13, 1.0, True, 120, 0.97), Episode(10, 0.6, False, 300, 0.57)]
    s = scores.summary(episodes)
    assert s["n"] == 4 and s["first_seed"] == 10 and s["last_seed"] == 13
    assert s["score"] == pytest.approx(0.75) and s["success"] == 0.5 and s["below_half"] == 0.25
    assert s["final_coverage"] == pytest.approx(0.65) and s["steps_to_success"] == 100
    assert s["candidates"] == 1 and s["decision_ms"] is None
    assert s["success_ci95"] == list(scores.wilson(2, 4))
    assert s["score_ci95"] == list(scores.bootstrap(np.array([1.0, 0.4, 1.0, 0.6])))
    assert json.loads(json.dumps(s)) == s
    said = scores.sentence(s)
    for words in ("score 0.750, 95 % CI [", "success 50.0%, 95 % CI [15.0%, 85.0%]",
                  "median 100 steps", "(4 episodes, seeds 10..13)"):
        assert words in said


def test_a_summary_without_success_has_no_steps_to_success():
    s = scores.summary([Episode(0, 0.1, False, 300, 0.1)])
    assert s["steps_to_success"] is None and s["success"] == 0
    assert "median" not in scores.sentence(s)


def test_the_cost_of_decisions_is_summed_up_where_there_is_one():
    s = scores.summary([Episode(0, 0.1, False, 300, 0.1, 16.0, 40.0),
                        Episode(1, 0.1, False, 300, 0.1, 20.0, 60.0), Episode(2, 0, False, 1, 0.0)])
    assert s["candidates"] == pytest.approx(37 / 3) and s["decision_ms"] == 50


# ---- intervals -----------------------------------------------------------------------------------

@pytest.mark.parametrize("successes, n, low, high", [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718)])
def test_wilsons_interval_has_its_published_values(successes, n, low, high):
    """Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3."""
    assert scores.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_lies_within_0_to_1_around_the_share(k_n):
    k, n = k_n
    share = k / n
    low, high = scores.wilson(k, n)
    assert 0 <= low <= share + 1e-15 and share - 1e-15 <= high <= 1 and low < high
    # the interval of the failures is its mirror image
    assert scores.wilson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    for bound in (low, high):  # seen from its bounds, the share is 1.96 standard errors away
        variance = bound * (1 - bound) / n
        assert (share - bound)**2 == pytest.approx(1.959964**2 * variance, abs=1e-12)
    low_4, high_4 = scores.wilson(4 * k, 4 * n)
    assert high_4 - low_4 < high - low


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_the_bootstrap_interval_lies_around_the_mean(values):
    low, high = scores.bootstrap(np.array(values), resamples=200)
    mean = np.mean(values)
    assert min(values) - 1e-9 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= max(values) + 1e-9


def test_the_bootstrap_interval_of_normal_values_is_the_normal_one():
    values = np.random.default_rng(0).normal(0.5, 0.1, 2000)
    mean, half = values.mean(), 1.96 * values.std() / math.sqrt(2000)
    np.testing.assert_allclose(scores.bootstrap(values), [mean - half, mean + half],
                               atol=0.1 * half)


# ---- comparison ----------------------------------------------------------------------------------

def sheet(*rows):
    return [Episode(seed, score, score == 1, 9, 0.5) for seed, score in rows]


A = sheet((1, 0.5), (2, 1.0), (3, 0.25), (9, 1.0))
B = sheet((3, 1.0), (2, 0.75), (1, 0.5), (7, 1.0))


def test_a_comparison_pairs_episodes_by_their_seed():
    d = scores.compare(A, B)
    assert d["n"] == 3 and d["success"] == 0
    assert d["score"] == pytest.approx((0 - 0.25 + 0.75) / 3)
    assert d["only_a"] == 1 and d["only_b"] == 1
    assert d["score_ci95"][0] < d["score"] < d["score_ci95"][1]
    with pytest.raises(ValueError, match="no seed in common"):
        scores.compare(A[:1], B[:1])


def write(path, episodes):
    path.write_text(json.dumps({"episodes": [episode._asdict() for episode in episodes]}))
    return str(path)


def test_the_command_compare_prints_the_paired_differences(tmp_path, capsys):
    a, b = write(tmp_path / "a.json", A), write(tmp_path / "b.json", B)
    compare.main([a, b])
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"{b} compared with {a}, 3 episodes in both:"
    assert re.fullmatch(r"score \+0\.1667, 95 % CI \[-0\.2500, \+0\.7500\]", second)
    assert third == (f"success +0.0 points, 95 % CI [-100.0, +100.0]   "
                     f"(only {a} succeeds: 1, only {b}: 1)")


@pytest.mark.parametrize("text", ["{}", "[1]", "no JSON", '{"episodes": [{"seed": 1}]}'])
def test_compare_refuses_another_file_in_words(text, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json: not a file that eval.py --json wrote"):
        compare.main([write(tmp_path / "a.json", A), str(other)])
