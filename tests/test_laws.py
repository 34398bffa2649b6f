"""What the proofs rely on: estimates are judged by their standard errors, and not too many."""
import laws
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def others(monkeypatch):
    """These estimates do not count among those of the suite."""
    monkeypatch.setattr(laws, "estimates", [])


def test_an_estimate_may_be_off_by_six_standard_errors_and_a_bias():
    laws.assert_close(np.array([1.0, -1.19]), 0, 0.2)
    laws.assert_close(1.21, 0, 0.2, bias=0.02)
    for estimate in (1.21, np.array([0, -1.21]), np.nan):
        with pytest.raises(AssertionError, match="standard errors away from 0"):
            laws.assert_close(estimate, 0, 0.2)


def test_the_whole_suite_has_a_false_alarm_with_at_most_1e_6():
    """A normal estimate, and with it each of 500."""
    for _ in range(5):
        laws.assert_close(np.zeros(100), 0, 1)
    assert 500 * laws.FALSE_ALARM < laws.MOST_FALSE_ALARMS == 1e-6
    with pytest.raises(AssertionError, match="too many estimates for the suite"):
        laws.assert_close(np.zeros(10), 0, 1)
