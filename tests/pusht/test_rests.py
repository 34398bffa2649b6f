"""An episode ends at rest where, for its last 50 steps, nothing has moved to speak of."""
from minidiff.pusht.study.rests import rests

import numpy as np
import pytest

STILL = np.tile([100.0, 200.0, 300.0, 250.0, 1.0], (60, 1))


def moved(row, column, px):
    states = STILL.copy()
    states[row, column] += px
    return states


@pytest.mark.parametrize("states, expected", [
    (STILL, True), (STILL[:51], True), (STILL[:50], False),
    (moved(30, 0, 1.9), True), (moved(30, 1, 2.1), False), (moved(30, 0, -2.1), False),
    (moved(30, 2, 0.9), True), (moved(30, 3, 1.1), False),
    (moved(9, 0, 2.1), False), (moved(8, 0, 50), True)],
    ids=["still", "50 steps", "49 steps", "agent a little", "agent", "agent back", "block a little",
         "block", "50 steps ago", "before"])
def test_an_episode_ends_at_rest(states, expected):
    assert rests(states) is expected
