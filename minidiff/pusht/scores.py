"""Scores of a policy: what an episode brought, the means over many episodes, and their intervals.

Score and success are those of PushT (Florence et al. 2021; Chi et al. 2023). The score of an
episode is its highest min(coverage / 0.95, 1); it succeeds if coverage is above 0.95 at some step.
"""
import math
from typing import NamedTuple

import numpy as np


class Episode(NamedTuple):
    """One row of a score sheet."""
    seed: int
    score: float  # max over the episode of min(coverage / 0.95, 1)
    success: bool  # coverage > 0.95 at some step
    steps: int  # steps taken; an episode ends with success or at the limit
    final_coverage: float
    candidates: float = 1.0  # plans sampled for a decision, on average
    decision_ms: float | None = None  # median time of a decision; None where episodes share a batch


def summary(episodes):
    """The figures of a score sheet, with 95 % intervals for score and success, as a dictionary.

    `steps_to_success` and `decision_ms` are medians, None where there is nothing to take one of.
    """
    n = len(episodes)
    seeds = [e.seed for e in episodes]
    scores = np.array([e.score for e in episodes])
    steps = [e.steps for e in episodes if e.success]
    successes = len(steps)
    times = [e.decision_ms for e in episodes if e.decision_ms is not None]
    return {
        "n": n,
        "first_seed": min(seeds),
        "last_seed": max(seeds),
        "score": float(scores.mean()),
        "score_ci95": bootstrap(scores).tolist(),
        "success": successes / n,
        "success_ci95": list(wilson(successes, n)),
        "below_half": float((scores < 0.5).mean()),
        "final_coverage": float(np.mean([e.final_coverage for e in episodes])),
        "steps_to_success": float(np.median(steps)) if steps else None,
        "candidates": float(np.mean([e.candidates for e in episodes])),
        "decision_ms": float(np.median(times)) if times else None,
    }


def sentence(s):
    """A summary in one line."""
    score_low, score_high = s["score_ci95"]
    low, high = s["success_ci95"]
    steps = f", median {s['steps_to_success']:.0f} steps" if s["steps_to_success"] else ""
    return (f"score {s['score']:.3f}, 95 % CI [{score_low:.3f}, {score_high:.3f}]   "
            f"success {s['success']:.1%}, 95 % CI [{low:.1%}, {high:.1%}]{steps}   "
            f"({s['n']} episodes, seeds {s['first_seed']}..{s['last_seed']})")


def compare(a, b):
    """The mean differences b - a of score and success over the seeds that two score sheets share.

    a, b: lists of Episodes. They are paired by seed, so the difficulty of a start cancels out; the
    95 % intervals are bootstraps over the pairs. `only_a` and `only_b` count the seeds at which one
    succeeds alone. ValueError where no seed is in both.
    """
    by_seed = {e.seed: e for e in a}
    pairs = [(by_seed[e.seed], e) for e in b if e.seed in by_seed]
    if not pairs:
        raise ValueError("the two have no seed in common, so there is nothing to compare")
    scores = np.array([y.score - x.score for x, y in pairs])
    successes = np.array([float(y.success) - float(x.success) for x, y in pairs])
    return {
        "n": len(pairs),
        "score": float(scores.mean()),
        "score_ci95": bootstrap(scores).tolist(),
        "success": float(successes.mean()),
        "success_ci95": bootstrap(successes).tolist(),
        "only_a": len([x for x, y in pairs if x.success and not y.success]),
        "only_b": len([y for x, y in pairs if y.success and not x.success]),
    }


def bootstrap(values, resamples=2000):
    """The 95 % percentile interval of the mean (Efron 1979, Annals of Statistics 7, 1-26).

    Scores pile up at 1, so a normal interval would reach beyond it; this one cannot.
    values: (n,) -> low and high, (2,).
    """
    rng = np.random.default_rng(0)
    means = []
    for _ in range(resamples):
        resample = values[rng.integers(0, len(values), len(values))]
        means.append(resample.mean())
    return np.percentile(means, [2.5, 97.5])


def wilson(successes, n, z=1.959964):
    """Wilson's 95 % interval for a proportion (Wilson 1927, JASA 22, 209-212) -> low, high.

    All p with |successes / n - p| <= z sqrt(p (1 - p) / n). Unlike p +- z standard errors, it holds
    near 0 and 1.
    """
    p = successes / n
    z2 = z * z / n
    centre = (p + z2 / 2) / (1 + z2)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n)) / (1 + z2)
    return max(centre - half, 0.0), min(centre + half, 1.0)  # beyond 0 and 1 lies only rounding
