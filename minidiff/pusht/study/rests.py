"""Where a policy comes to rest: it has not solved its task, and its decisions repeat.

Suppose a decision is a function of the observation alone, and it leads to the same observation
again. Then it repeats for ever: a fixed point. The agent stands still, or moves on a small closed
path.
"""
import numpy as np

from ...scoring.rollout import CHUNK, rollout

STEPS = 48  # of the world, at the end of an episode: 4.8 s
AGENT, BLOCK = 2.0, 1.0  # px, by which the positions of a repetition may differ


def rests(states, action_horizon=4):
    """Whether an episode ends at rest: its last STEPS steps repeat the path of the last decision,
    or of the last two. The agent's position may differ by AGENT px, the block's by BLOCK px.

    states: (n+1, 5), as rollout.rollout records them. action_horizon: steps of the world for a
    decision. False for fewer steps than STEPS, or where a decision is longer than half of STEPS. A
    policy whose actions vary by more than AGENT px is never at rest, however little it achieves.
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
