"""What the proofs rely on: estimates are judged by their standard errors, and not too many."""
import math

import laws
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def others(monkeypatch):
    """These estimates do not count among those of the suite."""
    monkeypatch.setattr(laws, "estimates", [])


def test_an_estimate_may_be_off_by_its_standard_errors_and_a_bias():
    laws.assert_close(np.array([1.0, -1.29]), 0, 0.2)
    laws.assert_close(1.31, 0, 0.2, bias=0.02)
    for estimate in (1.31, np.array([0, -1.31]), np.nan):
        with pytest.raises(AssertionError, match="standard errors away from 0"):
            laws.assert_close(estimate, 0, 0.2)


def test_the_whole_suite_has_a_false_alarm_with_at_most_1e_6():
    """The tail of a normal law, and of a count of 200 (Poisson's), whose upper one is longer."""
    assert math.erfc(laws.STANDARD_ERRORS / math.sqrt(2)) < laws.FALSE_ALARM
    more = range(int(200 + laws.STANDARD_ERRORS * math.sqrt(200)) + 1, 700)
    counts = [math.exp(k * math.log(200) - 200 - math.lgamma(k + 1)) for k in more]
    assert sum(counts) < laws.FALSE_ALARM
    most = int(laws.MOST_FALSE_ALARMS / laws.FALSE_ALARM)
    assert laws.MOST_FALSE_ALARMS == 1e-6
    laws.assert_close(np.zeros(most), 0, 1)
    with pytest.raises(AssertionError, match="too many estimates for the suite"):
        laws.assert_close(np.zeros(1), 0, 1)
