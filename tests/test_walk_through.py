"""python -m minidiff: the method on a law of two modes, from data to noise and back."""
import re

import numpy as np
import pytest

from minidiff import __main__ as walk


@pytest.mark.slow
def test_it_shows_the_chain_both_ways_recovers_both_modes_and_keeps_to_the_bound(capsys):
    walk.main(steps=1500)
    said = capsys.readouterr().out
    assert len(re.findall(r"^t = +\d+[ ▁▂▃▄▅▆▇█]{99}$", said, re.M)) == 8
    data, samples = (re.search(rf"{name}: +(\d+)% of all at (\S+), the rest at (\S+)", said) for name in ("data", "samples"))
    for drawn, made, tolerance in zip(data.groups(), samples.groups(), (8, 0.1, 0.1)):  # observed: 1, 0.03, 0.02
        assert abs(float(drawn) - float(made)) <= tolerance
    bound, entropy = map(float, re.search(r"bound: (\S+) nats; .*, (\S+)$", said, re.M).groups())
    assert entropy < bound < entropy + 0.3  # observed: 0.12 above it


def test_the_entropy_is_that_of_the_law():
    """Of two modes far apart: the entropy of the choice, and that of one mode."""
    choice = -(walk.SHARE * np.log(walk.SHARE) + (1 - walk.SHARE) * np.log(1 - walk.SHARE))
    assert walk.entropy() == pytest.approx(choice + 0.5 * np.log(2 * np.pi * np.e * walk.SPREAD**2), abs=1e-4)


def test_data_come_from_both_modes_in_their_shares():
    x = walk.draw_data(40_000, np.random.default_rng(0)).ravel()
    left = x < -0.2
    assert left.mean() == pytest.approx(walk.SHARE, abs=0.012)  # 5 standard errors
    for part, mean in zip((x[left], x[~left]), walk.MEANS):
        assert part.mean() == pytest.approx(mean, abs=0.007) and part.std() == pytest.approx(walk.SPREAD, rel=0.04)
