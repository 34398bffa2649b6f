"""Where a policy comes to rest: it has not solved its task, and its decisions repeat.

Where a decision is a function of the observation alone, and what it leads to is the same
observation again, nothing else will ever follow: a fixed point. The agent stands still, or moves on
a small closed path.
"""
import numpy as np

from ...scoring.rollout import CHUNK, rollout

STEPS = 48  # of the end of an episode, 4.8 s
AGENT, BLOCK = 2.0, 1.0  # px


def rests(states, action_horizon=4):
    """Whether an episode ends at rest: its last STEPS steps repeat the last decision, or the last
    two, again and again, the agent within AGENT px and the block's position within BLOCK px.

    states: (n+1, 5), as rollout.rollout records them. False where there are not so many steps, or
    decisions are longer than half of them. A policy whose actions are noisier than AGENT px
    is never at rest, however little it achieves.
    """
    if len(states) <= STEPS:
        return False
    for period in (action_horizon, 2 * action_horizon):
        if 2 * period > STEPS:  # nothing could repeat
            break
        rounds = states[len(states) - STEPS // period * period:].reshape(-1, period, 5)
        away = rounds - rounds[-1]
        agent = np.hypot(away[..., 0], away[..., 1]).max()
        block = np.hypot(away[..., 2], away[..., 3]).max()
        if agent < AGENT and block < BLOCK:
            return True
    return False


def resting(policy, seeds):
    """The episodes that a policy does not solve and that end at rest: yields (Episode, states)."""
    for first in range(0, len(seeds), CHUNK):
        episodes, paths = rollout(policy, seeds[first:first + CHUNK], record=True)
        for episode, states in zip(episodes, paths):
            if not episode.success and rests(states, policy.action_horizon):
                yield episode, states
