"""Scores: summaries, the intervals around them, and the comparison of two evaluations."""
from minidiff.pusht.study import compare
from minidiff.scoring import scores
from minidiff.scoring.scores import Episode

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

# ---- summaries -----------------------------------------------------------------------------------

def test_a_summary_says_what_the_episodes_say():
    episodes = [Episode(11, 1.0, True, 80, 0.96), Episode(12, 0.4, False, 300, 0.1),
                Episode(14, 1.0, True, 250, 0.97), Episode(10, 0.5, False, 300, 0.47),
                Episode(13, 1.0, True, 90, 0.96)]
    s = scores.summary(episodes)
    assert s["n"] == 5 and s["first_seed"] == 10 and s["last_seed"] == 14
    assert s["score"] == pytest.approx(0.78) and s["success"] == 0.6 and s["below_half"] == 0.2
    assert s["last_reward"] == pytest.approx(0.692) and s["steps_to_success"] == 90
    assert s["candidates"] == 1 and s["decision_ms"] is None
    assert s["success_ci95"] == list(scores.clopper_pearson(3, 5))
    assert s["score_ci95"] == list(scores.betting_interval([1.0, 0.4, 1.0, 0.5, 1.0]))
    assert json.loads(json.dumps(s)) == s
    low, high = s["score_ci95"]
    assert scores.sentence(s) == (
        f"score 0.780, 95 % CI [{low:.3f}, {high:.3f}]   success 60.0%, 95 % CI [14.7%, 94.7%], "
        "median 90 steps   (5 episodes, seeds 10..14)")


def test_a_summary_without_success_has_no_steps_to_success():
    s = scores.summary([Episode(0, 0.1, False, 300, 0.1)])
    assert s["steps_to_success"] is None and s["success"] == 0
    assert "median" not in scores.sentence(s)


def test_a_summary_of_returns_has_a_normal_interval_and_no_success():
    returns = [-120.0, -180.0, -150.0, -150.0]
    s = scores.summary([Episode(k, r, None, 200, -1.0) for k, r in enumerate(returns)], None)
    half = 1.96 * np.std(returns) / 2
    assert s["score_ci95"] == pytest.approx([-150 - half, -150 + half])
    assert s["success"] is s["success_ci95"] is s["below_half"] is None
    assert scores.sentence(s) == (f"score -150.000, 95 % CI [{-150 - half:.3f}, {-150 + half:.3f}]"
                                  "   (4 episodes, seeds 0..3)")
    wide = scores.summary([Episode(0, 7.0, True, 3, 1.0)] * 9, (0, 10))
    assert wide["score_ci95"] == list(scores.betting_interval([7.0] * 9, 0, 10))


@pytest.mark.parametrize("values", [[0.5, 1.5], [-0.5, 0.5]])
def test_a_score_beyond_its_range_is_refused_on_either_side(values):
    with pytest.raises(ValueError, match="lie beyond the task's score_range, 0 to 1"):
        scores.mean_interval(values, (0, 1))


def test_of_no_episode_there_is_nothing_to_say():
    assert scores.sentence({"n": 0}) == "no episode is over"


@pytest.mark.parametrize("least, most, bounded", [(0, 1, True), (0, 1.5, False), (-0.5, 1, False)])
def test_a_comparison_knows_the_range_of_scores_between_0_and_1(least, most, bounded):
    a = [Episode(0, least, True, 1, 0.0), Episode(1, most, True, 1, 0.0)]
    b = [Episode(0, 0.5, True, 1, 0.0), Episode(1, 0.5, True, 1, 0.0)]
    differences = [0.5 - least, 0.5 - most]
    known = scores.betting_interval(differences, -1, 1) if bounded else None
    expected = known or scores.mean_interval(differences, None)
    assert scores.compare(a, b)["score_ci95"] == pytest.approx(list(expected))


def test_scores_of_any_size_are_compared_by_their_standard_error(tmp_path):
    a = [Episode(k, -100.0 - k, None, 9, -1.0) for k in range(9)]
    b = [Episode(k, -100.0 + k, None, 9, 0.0) for k in range(9)]
    d = scores.compare(a, b)
    half = 1.96 * np.std(2 * np.arange(9)) / 3
    assert d["score_ci95"] == pytest.approx([8 - half, 8 + half])
    assert (d["only_a"], d["only_b"]) == (0, 0)
    assert d["success"] is d["success_ci95"] is None
    paths = [write(tmp_path / "a.json", a), write(tmp_path / "b.json", b)]
    compare.main(paths)  # such sheets are read, too


def test_where_some_episodes_tell_of_success_the_others_are_none():
    told = [Episode(0, 0.0, None, 9, 0.0), Episode(1, 1.0, True, 4, 1.0)]
    s = scores.summary(told)
    assert s["success"] == 0.5 and s["steps_to_success"] == 4


def test_a_score_may_be_beyond_its_range_by_rounding():
    above = sum([0.05] * 20)
    assert above > 1
    low, high = scores.summary([Episode(0, above, None, 20, 0.05)] * 9)["score_ci95"]
    assert 0.5 < low < high == pytest.approx(1)


def test_sheets_that_tell_nothing_of_success_are_compared_by_score():
    a, b = ([Episode(seed, score + seed / 8, None, 9, -1.0) for seed in range(2)]
            for score in (-0.5, 0.25))
    difference = scores.compare(a, b)
    assert (difference["score"], difference["score_ci95"]) == (0.75, [0.75, 0.75])
    assert difference["success"] is None
    assert compare.sentence("a", "b", difference).splitlines()[1:] == [
        "score +0.7500, 95 % CI [+0.7500, +0.7500]"]


def test_the_cost_of_decisions_is_summed_up_where_there_is_one():
    s = scores.summary([Episode(0, 0.1, False, 300, 0.1, 16.0, 40.0),
                        Episode(1, 0.1, False, 300, 0.1, 20.0, 60.0), Episode(2, 0, False, 1, 0.0),
                        Episode(3, 0.1, False, 300, 0.1, 12.0, 95.0)])
    assert s["candidates"] == 12.25 and s["decision_ms"] == 60


# ---- intervals -----------------------------------------------------------------------------------

@pytest.mark.parametrize("successes, n, low, high", [
    (81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684),
    (1, 29, 0.0009, 0.1776)])
def test_the_exact_interval_has_its_published_values(successes, n, low, high):
    """Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 5."""
    assert scores.clopper_pearson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_at_its_ends_the_exact_interval_leaves_half_of_alpha(k_n):
    k, n = k_n
    low, high = scores.clopper_pearson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert scores.clopper_pearson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)
    if k > 0:
        assert scores.binomial(n, low)[k:].sum() == pytest.approx(0.025, abs=1e-6)
    if k < n:
        assert scores.binomial(n, high)[:k + 1].sum() == pytest.approx(0.025, abs=1e-6)


@given(st.integers(1, 200), st.floats(0.01, 0.99))
def test_binomial_probabilities_have_their_sum_and_mean(n, p):
    law = scores.binomial(n, p)
    assert law.sum() == pytest.approx(1) and law @ np.arange(n + 1) == pytest.approx(n * p)


def bets(x, m):
    """The wealth that betting on a mean above m makes of 1, number after number, as written."""
    wealth, most = 1.0, 1.0
    mean, var = 0.5, 0.25
    square = 0.25
    for t, value in enumerate(x, 1):
        bet = min(math.sqrt(2 * math.log(40) / (len(x) * var)), 0.75 / m)
        wealth *= 1 + bet * (value - m)
        most = max(most, wealth)
        mean = (mean * t + value) / (t + 1)
        square += (value - mean)**2
        var = square / (t + 1)
    return most


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
@example([1.0, 0.3, 0.9] * 20)  # both ends are refuted
@example([0.1, 0.0, 0.6, 0.2] * 12)
def test_a_betting_interval_ends_where_the_bets_would_win(values):
    low, high = scores.betting_interval(values)
    mean = np.mean(values)
    assert 0 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= 1 and low < high
    if 1e-6 < low < mean:
        assert bets(values, low - 1e-7) > 40 * (1 - 1e-4) and bets(values, low + 1e-7) <= 40.001
    mirrored = scores.betting_interval([1 - value for value in values])
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-7)
    stretched = scores.betting_interval([4 * value - 3 for value in values], -3, 1)
    assert stretched == pytest.approx((4 * low - 3, 4 * high - 3), abs=1e-6)


def test_after_an_unusual_beginning_the_mean_is_still_in_the_interval():
    values = np.repeat([1.0, 0.0], 200)
    low, high = scores.betting_interval(values)
    assert low == 0.5 and high > 0.6  # after 200 ones the bets have refuted a half
    assert scores.betting_interval(1 - values) == (pytest.approx(1 - high), 0.5)


@pytest.mark.parametrize("n, low", [(50, 0.907), (1000, 0.995)])
def test_a_thousand_perfect_scores_leave_room_for_a_failure(n, low):
    assert scores.betting_interval(np.ones(n)) == (pytest.approx(low, abs=5e-4), 1.0)


# Shares of failing episodes, whose scores are uniform; and one of a wide spread.
POPULATIONS = [0.001, 0.005, 0.02, 0.1, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 1000])
@pytest.mark.parametrize("failures", POPULATIONS)
def test_the_interval_of_a_mean_covers_what_it_says(failures, n):
    """Of 200 sheets at least 86 %. If 95.5 % contain the truth, as they do here or more, fewer than
    that happen by chance with a probability of 3e-8."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        failed = rng.uniform(size=n) < failures
        low, high = scores.betting_interval(np.where(failed, rng.uniform(size=n), 1.0))
        hits += low <= 1 - failures / 2 <= high
    assert hits >= 0.86 * 200


# ---- comparison ----------------------------------------------------------------------------------

def sheet(*rows):
    return [Episode(seed, score, score == 1, 9, 0.5) for seed, score in rows]


A = sheet((1, 0.5), (2, 1.0), (3, 0.25), (9, 1.0))
B = sheet((3, 1.0), (2, 0.75), (1, 0.5), (7, 1.0))


def test_a_comparison_pairs_episodes_by_their_seed():
    d = scores.compare(A, B)
    assert d["n"] == 3 and d["success"] == 0
    assert d["score"] == pytest.approx((0 - 0.25 + 0.75) / 3)
    assert d["only_a"] == 1 and d["only_b"] == 1 and d["p"] == 1
    assert d["score_ci95"][0] < d["score"] < d["score_ci95"][1]
    with pytest.raises(ValueError, match="no seed in common"):
        scores.compare(A[:1], B[:1])


def test_compare_reads_all_that_an_episode_can_have(tmp_path):
    """Coverage may exceed 1 by rounding."""
    extremes = [Episode(1, 0, False, 0, 0, 0, 0), Episode(2, 1, True, 1, 1 + 1e-9, 1e9, 1e12)]
    assert compare.read(write(tmp_path / "a.json", extremes)) == extremes


def write(path, episodes):
    path.write_text(json.dumps({"episodes": [episode._asdict() for episode in episodes]}))
    return str(path)


def test_the_command_compare_prints_the_paired_differences(tmp_path, capsys):
    a, b = write(tmp_path / "a.json", A), write(tmp_path / "b.json", B)
    compare.main([a, b])
    assert capsys.readouterr().out == compare.sentence(a, b, scores.compare(A, B)) + "\n"


def test_a_comparison_in_words_has_each_number_in_its_place():
    found = {"n": 9, "score": 0.1, "score_ci95": [-0.2, 0.3], "success": -0.04,
             "success_ci95": [-0.5, 0.6], "only_a": 2, "only_b": 1, "p": 0.7}
    assert compare.sentence("a", "b", found) == (
        "b compared with a, 9 episodes in both:\nscore +0.1000, 95 % CI [-0.2000, +0.3000]\n"
        "success -4.0 points, 95 % CI [-50.0, +60.0]   "
        "(only a succeeds: 2, only b: 1; exact McNemar p = 0.7)")


@pytest.mark.parametrize("only_a, only_b, p", [
    (0, 0, 1), (0, 6, 2 / 64), (6, 0, 2 / 64), (1, 9, 2 * 11 / 1024), (5, 5, 1)])
def test_mcnemars_test_is_the_exact_binomial_one(only_a, only_b, p):
    assert scores.mcnemar(only_a, only_b) == pytest.approx(p)


def test_a_comparison_has_the_sign_of_b_less_a():
    """Lopsided on purpose: B is worse at three seeds, better at none."""
    a = sheet(*[(seed, 1.0) for seed in range(20)])
    b = sheet(*[(seed, 0.5 if seed < 3 else 1.0) for seed in range(20)])
    d = scores.compare(a, b)
    assert d["score"] == pytest.approx(-0.075) and d["success"] == pytest.approx(-0.15)
    assert (d["only_a"], d["only_b"]) == (3, 0) and d["p"] == pytest.approx(0.25)
    assert scores.compare(b, a)["only_b"] == 3
    differences = [-1.0] * 3 + [0.0] * 17
    assert d["success_ci95"] == list(scores.betting_interval(differences, -1, 1))
    assert d["score_ci95"] == list(scores.betting_interval(np.array(differences) / 2, -1, 1))


def test_two_perfect_sheets_do_not_prove_that_there_is_no_difference():
    a = sheet(*[(seed, 1.0) for seed in range(100)])
    low, high = scores.compare(a, a)["score_ci95"]
    assert low < -0.01 and high > 0.01


@pytest.mark.parametrize("text", ["{}", "[1]", "no JSON", '{"episodes": [{"seed": 1}]}', "1",
                                  '{"episodes": 3}', '{"episodes": [[1, 2]]}', "[" * 100_000])
def test_compare_refuses_another_file_in_words(text, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json: not a file that eval.py --json wrote"):
        compare.main([write(tmp_path / "a.json", A), str(other)])
    with pytest.raises(ValueError, match=r"a\.json is the same as .*a\.json: give it only once"):
        compare.main([str(tmp_path / "a.json"), str(tmp_path / "." / "a.json")])
    for name in ("nowhere.json", "."):
        with pytest.raises(FileNotFoundError, match="no such file: eval.py --json writes one"):
            compare.main([str(other), str(tmp_path / name)][::-1])


@pytest.mark.parametrize("change, said", [
    ({"score": "good"}, "score is 'good'"), ({"score": float("nan")}, "score is nan"),
    ({"score": 1e301}, "score is 1e"), ({"score": None}, "score is None"),
    ({"seed": 1.5}, "seed is no whole number"), ({"success": 1.0}, "success is neither"),
    ({"steps": True}, "steps is no whole number"), ({"last_reward": "0"}, "last_reward is '0'"),
    ({"last_reward": float("inf")}, "last_reward is inf"),
    ({"candidates": 1e10}, "candidates is 1"),
    ({"decision_ms": [1]}, r"decision_ms is \[1\]"), ({"decision_ms": 1e13}, "decision_ms is 1"),
    ({"seed": 2}, "seed 2 is there twice")])
def test_compare_refuses_what_no_episode_can_have(change, said, tmp_path):
    rows = [episode._asdict() for episode in A]
    rows[2] |= change
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"episodes": rows}))
    with pytest.raises(ValueError, match=f"bad.json: episode 2: {said}"):
        compare.main([write(tmp_path / "a.json", A), str(bad)])
