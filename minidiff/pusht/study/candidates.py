"""The best of many plans: each is tried in a copy of the world, and the best is carried out.

This uses the simulator at decision time, which a policy alone does not; scores made with it say so.
"""
import time

import numpy as np

from ..env import PushTEnv
from ..geometry import pose_error

BATCH = 4  # plans sampled at once where there is a time budget


def best(env, scratch, plans):
    """The best plan (H, D) of plans (K, H, D), and its outcome: the least pose error on its way.

    scratch: a PushTEnv to try them in. If plans are equally good, as where none reaches the block,
    the first of them is the best.
    """
    outcomes = []
    for plan in plans:
        scratch.reset(options={"state": env.motion, "order": "exact"})
        states = scratch.simulate(plan)  # (H, 5)
        outcomes.append(pose_error(states[:, 2:]).min())
    k = int(np.argmin(outcomes))
    return plans[k], outcomes[k]


class BestOf:
    """Chooses the best of `candidates` plans; use it as the `decide` of rollout and run_episode.

    With budget_ms, `candidates` has no effect: each decision tries as many plans, BATCH at a time,
    as fit into that time (ms), and at least BATCH.
    """

    def __init__(self, policy, candidates, budget_ms=None):
        self.policy = policy
        self.candidates = candidates
        self.budget_ms = budget_ms
        self.scratch = PushTEnv()
        self.tried = []  # the number of plans of each decision so far
        self.spent = []  # the time of each decision so far, ms

    def start(self):
        """A fresh BestOf with the same settings, for one more episode."""
        return BestOf(self.policy, self.candidates, self.budget_ms)

    def cost(self):
        """The mean number of plans tried for a decision, and the median time of a decision, ms."""
        return float(np.mean(self.tried)), float(np.median(self.spent))

    def __call__(self, env, obs, rng):
        """env, obs (obs_horizon, S), rng -> plan (H, D)."""
        started = time.perf_counter()
        batch = self.candidates if self.budget_ms is None else BATCH
        tried = 0
        chosen, least = None, np.inf
        while True:
            plans = self.policy.plan(np.repeat(obs[None], batch, 0), rng)  # (batch, H, D)
            plan, outcome = best(env, self.scratch, plans)
            if outcome < least:
                chosen, least = plan, outcome
            tried += batch
            spent = 1000 * (time.perf_counter() - started)
            after_one_more = spent * (tried + batch) / tried
            if self.budget_ms is None or after_one_more > self.budget_ms:
                break
        self.tried.append(tried)
        self.spent.append(spent)
        return chosen
