"""Scores of a policy: the result of an episode, means over many episodes, and their intervals.

A task says which number of an episode's rewards is its score (demos.Task). An episode succeeds
where the environment says so at some step, by info["is_success"].
"""
import math
from typing import NamedTuple

import numpy as np


class Episode(NamedTuple):
    """The result of one episode."""
    seed: int
    score: float  # Task.score of the rewards
    success: bool | None  # None where the environment never reports is_success
    steps: int  # of the world
    last_reward: float
    candidates: float = 1.0  # plans sampled for a decision, on average
    decision_ms: float | None = None  # median time of a decision; None where episodes share a batch


def wrong(episode):
    """What is wrong with an Episode that comes from a file, in words, or None."""
    for name in ("seed", "steps"):
        if type(getattr(episode, name)) is not int:
            return f"{name} is no whole number"
    if type(episode.success) not in (bool, type(None)):
        return "success is neither true nor false"
    limits = {"score": (-1e300, 1e300), "last_reward": (-1e300, 1e300), "candidates": (0, 1e9)}
    if episode.decision_ms is not None:
        limits["decision_ms"] = (0, 1e12)
    for name, (least, most) in limits.items():
        value = getattr(episode, name)
        if type(value) not in (int, float) or not least <= value <= most:
            return f"{name} is {value!r}"
    return None


def summary(episodes, score_range=(0.0, 1.0)):
    """Figures of many Episodes as a dictionary, with 95 % intervals for score and success.

    score_range: the lowest and the highest possible score, None where they are not known.
    ValueError for a score beyond it. Most figures are means. `steps_to_success`, the steps of the
    successful episodes, and `decision_ms` are medians; None where no episode has them.
    `below_half`: the share of scores below 0.5, None for another range than 0 to 1. An episode
    whose success is None counts as no success. If all are None, so are `success` and its interval.
    """
    n = len(episodes)
    seeds = [e.seed for e in episodes]
    scores = np.array([e.score for e in episodes])
    steps = [e.steps for e in episodes if e.success]
    successes = len(steps)
    told = any(e.success is not None for e in episodes)
    times = [e.decision_ms for e in episodes if e.decision_ms is not None]
    return {
        "n": n,
        "first_seed": min(seeds),
        "last_seed": max(seeds),
        "score": float(scores.mean()),
        "score_ci95": list(mean_interval(scores, score_range)),
        "success": successes / n if told else None,
        "success_ci95": list(clopper_pearson(successes, n)) if told else None,
        "below_half": float((scores < 0.5).mean()) if score_range == (0.0, 1.0) else None,
        "last_reward": float(np.mean([e.last_reward for e in episodes])),
        "steps_to_success": float(np.median(steps)) if steps else None,
        "candidates": float(np.mean([e.candidates for e in episodes])),
        "decision_ms": float(np.median(times)) if times else None,
    }


def sentence(s):
    """A summary in one line."""
    if not s["n"]:
        return "no episode is over"
    score_low, score_high = s["score_ci95"]
    success = ""
    if s["success"] is not None:
        low, high = s["success_ci95"]
        success = f"success {s['success']:.1%}, 95 % CI [{low:.1%}, {high:.1%}]"
        if s["steps_to_success"]:
            success += f", median {s['steps_to_success']:.0f} steps"
        success += "   "
    return (f"score {s['score']:.3f}, 95 % CI [{score_low:.3f}, {score_high:.3f}]   {success}"
            f"({s['n']} episodes, seeds {s['first_seed']}..{s['last_seed']})")


def compare(a, b):
    """The mean differences b - a of score and success over the seeds that a and b share.

    a, b: lists of Episodes. They are paired by seed, so the difficulty of a start cancels out.
    `only_a` and `only_b` count the seeds at which only one of the two succeeds. `p` is that of the
    exact McNemar test of the hypothesis that both cases are equally likely. An episode whose
    success is None counts as no success. If all are None, `success` is None. ValueError where a and
    b share no seed.
    """
    by_seed = {e.seed: e for e in a}
    pairs = [(by_seed[e.seed], e) for e in b if e.seed in by_seed]
    if not pairs:
        raise ValueError("the two have no seed in common, so there is nothing to compare")
    scores = np.array([y.score - x.score for x, y in pairs])
    bounded = all(0 <= e.score <= 1 for pair in pairs for e in pair)
    told = any(e.success is not None for pair in pairs for e in pair)
    successes = np.array([float(bool(y.success)) - float(bool(x.success)) for x, y in pairs])
    only_a = int((successes < 0).sum())
    only_b = int((successes > 0).sum())
    return {
        "n": len(pairs),
        "score": float(scores.mean()),
        "score_ci95": list(mean_interval(scores, (-1.0, 1.0) if bounded else None)),
        "success": float(successes.mean()) if told else None,
        "success_ci95": list(betting_interval(successes, -1.0, 1.0)) if told else None,
        "only_a": only_a,
        "only_b": only_b,
        "p": mcnemar(only_a, only_b),
    }


# ---- intervals -----------------------------------------------------------------------------------

def mean_interval(values, value_range):
    """A 95 % interval for the mean -> low, high; ValueError for a value beyond value_range.

    value_range: the lowest and the highest possible value. None where they are not known: then the
    interval is the mean +- 1.96 standard errors, which suits many values without rare outliers.
    """
    if value_range:
        low, high = value_range
        rounding = 1e-9 * (high - low)
        if min(values) < low - rounding or max(values) > high + rounding:
            raise ValueError(f"scores from {min(values):.6g} to {max(values):.6g} lie beyond the "
                             f"task's score_range, {low} to {high}")
        return betting_interval(values, *value_range)
    half = 1.96 * np.std(values) / math.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def betting_interval(values, low=0.0, high=1.0, alpha=0.05):
    """A 1-alpha interval for the mean of independent numbers within low..high -> low, high.

    Valid for any distribution and any n (Waudby-Smith & Ramdas 2024, JRSS B 86, 1-27). For a number
    m, one player bets that the mean is larger than m, another that it is smaller. If m is the mean,
    the bets are fair. Then a player's stake ever grows to 2/alpha times its size with a probability
    of at most alpha/2. The interval holds all m for which neither stake has grown so.

    Nearly perfect scores need such an interval: where no failure was seen, a bootstrap gives one of
    width 0. The bets are placed in the order of the values. So after unusual first values the
    interval may miss the mean of the values; it is then extended to it.
    """
    unit = (np.asarray(values, np.float64) - low) / (high - low)
    smallest = _smallest_mean(unit, alpha / 2)
    largest = 1 - _smallest_mean(1 - unit, alpha / 2)
    smallest, largest = min(smallest, unit.mean()), max(largest, unit.mean())
    return low + (high - low) * smallest, low + (high - low) * largest


def _smallest_mean(x, alpha):
    """The least m in 0..1 that bets on a larger mean of x (n,) do not refute, by bisection.

    The bets are those of that paper's hedged interval: sqrt(2 log(1/alpha) / (n var)), where var is
    the variance of the numbers before this one. They are at most 3/4 of 1/m, the bet that can lose
    the whole stake.
    """
    n = len(x)
    t = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(x)) / (t + 1)
    var = (0.25 + np.cumsum((x - mean) ** 2)) / (t + 1)
    var = np.concatenate([[0.25], var[:-1]])  # before each bet
    bets = np.sqrt(2 * math.log(1 / alpha) / (n * var))
    refuted, kept = 0.0, 1.0
    while kept - refuted > 1e-9:
        m = (refuted + kept) / 2
        log_wealth = np.cumsum(np.log1p(np.minimum(bets, 0.75 / m) * (x - m)))
        if log_wealth.max() > math.log(1 / alpha):
            refuted = m
        else:
            kept = m
    return refuted


def clopper_pearson(successes, n, alpha=0.05):
    """The exact 1-alpha interval for a proportion (Clopper & Pearson 1934) -> low, high.

    It holds the p under which "as many successes or more" and "as many or fewer" both have a
    probability of at least alpha/2.
    """
    def least(k):  # the p under which k successes or more have the probability alpha/2
        if k == 0:
            return 0.0
        below, above = 0.0, 1.0
        while above - below > 1e-12:
            p = (below + above) / 2
            if binomial(n, p)[k:].sum() < alpha / 2:
                below = p
            else:
                above = p
        return below
    return least(successes), 1 - least(n - successes)


def binomial(n, p):
    """The probabilities (n+1,) of 0..n successes in n trials, 0 < p < 1."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    log_choose = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    return np.exp(log_choose + k * math.log(p) + (n - k) * math.log1p(-p))


def mcnemar(only_a, only_b):
    """The two-sided p of the exact McNemar test (1947). Hypothesis: both cases equally likely."""
    n = only_a + only_b
    if n == 0:
        return 1.0
    return min(1.0, 2 * float(binomial(n, 0.5)[:min(only_a, only_b) + 1].sum()))
