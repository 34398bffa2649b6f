"""Where a policy comes to rest: it has not solved its task, and nothing moves any more.

Where each decision is the same function of the observation, a plan that changes nothing is chosen
again and again.
"""
import numpy as np

STEPS = 50  # 5 s
AGENT, BLOCK = 2.0, 1.0  # px


def rests(states):
    """Whether an episode ends at rest: over its last STEPS steps the agent stays within AGENT px of
    where it ends, and the block within BLOCK px.

    states: (n+1, 5), as rollout.rollout records them. False where there are not so many steps.
    """
    if len(states) <= STEPS:
        return False
    away = states[-STEPS - 1:] - states[-1]
    agent, block = np.hypot(away[:, 0], away[:, 1]), np.hypot(away[:, 2], away[:, 3])
    return bool(agent.max() < AGENT and block.max() < BLOCK)
