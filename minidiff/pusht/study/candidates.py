"""Many plans for one moment, judged: each is carried out in a copy of the world, and the best is kept.

This uses the simulator at decision time, which a policy alone does not; scores made with it say so.
"""
import time

import numpy as np

from ..geometry import pose_error

BATCH = 4  # plans drawn at once while a time budget lasts


def best(env, scratch, plans):
    """The plan (H, D) of plans (K, H, D), and its pose_error: the least that the block comes to on the way.

    scratch: a PushTEnv to try them in. Of plans that do equally well, as where none reaches the block, the first.
    """
    outcomes = []
    for plan in plans:
        scratch.reset(options={"state": env.motion, "order": "exact"})
        outcomes.append(pose_error(scratch.simulate(plan)[:, 2:]).min())
    k = int(np.argmin(outcomes))
    return plans[k], outcomes[k]


def decide(policy, env, scratch, obs, rng, candidates, budget_ms=None):
    """The best of `candidates` plans for obs (obs_horizon, S); or of as many, BATCH at a time, as can be drawn and tried
    before budget_ms is over, and at least BATCH. Returns the plan (H, D), how many were tried, and milliseconds."""
    started, tried, chosen, least = time.perf_counter(), 0, None, np.inf
    n = candidates if budget_ms is None else BATCH
    while True:
        plan, outcome = best(env, scratch, policy.plan(np.repeat(obs[None], n, 0), rng))
        if outcome < least:
            chosen, least = plan, outcome
        tried, spent = tried + n, 1000 * (time.perf_counter() - started)
        if budget_ms is None or spent * (tried + n) / tried > budget_ms:
            return chosen, tried, spent
