"""python -m minidiff: the method on data of two modes, from data to noise and back."""
from minidiff import __main__ as walk
from minidiff.demos import to_frame

import io
import re
import sys
from types import SimpleNamespace

import laws
import numpy as np
import pytest


@pytest.mark.slow
def test_it_shows_the_chain_recovers_both_modes_and_keeps_to_the_bound(capsys):
    walk.main(steps=1500)
    said, progress = capsys.readouterr()
    assert progress.splitlines()[-1].startswith("training 1500/1500 ")
    assert len(re.findall(r"^t = +\d+[ ▁▂▃▄▅▆▇█]{99}$", said, re.M)) == 8
    modes = {}
    for name in ("data", "samples"):
        numbers = re.search(rf"{name}: +(\d+)% of all at (\S+), the rest at (\S+)", said)
        modes[name] = [float(number) for number in numbers.groups()]
    tolerances = (8, 0.1, 0.1)  # observed: 1, 0.03, 0.02
    for of_data, of_samples, tolerance in zip(modes["data"], modes["samples"], tolerances):
        assert abs(of_data - of_samples) <= tolerance
    first, last = re.search(r"L_simple fell from (\S+) to (\S+)\n", said).groups()
    assert float(last) < 0.8 * float(first)  # observed: 0.62
    bound, entropy = re.search(r"bound: (\S+) nats; .*\s(\S+)$", said, re.M).groups()
    assert float(entropy) < float(bound) < float(entropy) + 0.3  # observed: 0.12 above it


@pytest.mark.parametrize("stdout, heights", [
    (SimpleNamespace(encoding="utf-8"), "▁▄█"), (SimpleNamespace(encoding="cp1252"), ".=@"),
    (SimpleNamespace(encoding="ascii"), ".=@"), (io.StringIO(), ".=@"), (None, ".=@")],
    ids=["utf-8", "cp1252", "ascii", "text in memory", "closed"])
def test_histograms_are_drawn_in_what_the_terminal_can_show(stdout, heights, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stdout)
    low, middle, high = heights
    line = walk.bars(np.repeat([-1.0, 0.0, 0.5], [1, 4, 8]))
    assert line == f"{'':16}{low}{'':7}{middle}{'':3}{high}{'':19}"  # each mark is 1/8 wide


def test_two_modes_are_told_apart_between_them():
    said = walk.two_modes(np.array([-1.7, -0.3, -0.1, 0.5, 1.1]))
    assert said == "40% of all at -1.00, the rest at +0.50"


def test_the_entropy_is_that_of_the_law():
    """Of two modes far apart: the entropy of the choice, and that of one mode."""
    choice = -(walk.SHARE * np.log(walk.SHARE) + (1 - walk.SHARE) * np.log(1 - walk.SHARE))
    one_mode = 0.5 * np.log(2 * np.pi * np.e * walk.SPREAD**2)
    assert walk.entropy() == pytest.approx(choice + one_mode, abs=1e-4)


def test_data_come_from_both_modes_in_their_shares():
    x = walk.sample_data(40_000, np.random.default_rng(0)).ravel()
    left = x < -0.2
    laws.assert_close(left.mean(), walk.SHARE, np.sqrt(walk.SHARE * (1 - walk.SHARE) / x.size))
    for part, mean in zip((x[left], x[~left]), walk.MEANS):
        laws.assert_close(part.mean(), mean, walk.SPREAD / np.sqrt(part.size))
        laws.assert_close(part.std(), walk.SPREAD, walk.SPREAD / np.sqrt(2 * part.size))


def test_there_is_nothing_to_observe_and_numbers_are_offsets_already():
    x = walk.sample_data(7, np.random.default_rng(0))
    obs = np.zeros((7, 1, 0))
    frame = walk.no_frame(obs)
    features, offsets = walk.no_features(obs, frame), to_frame(x, frame)
    assert features.shape == (7, 0) and np.array_equal(offsets, x)
    assert features.dtype == offsets.dtype == np.float32


def test_numbers_as_demonstrations_are_one_action_an_episode():
    x = walk.sample_data(7, np.random.default_rng(0))
    assert x.shape == (7, 1, 1) and x.dtype == np.float32
    data = walk.demonstrations(x)
    assert np.array_equal(data.action, x[:, 0]) and data.state.shape == (7, 0)
    assert data.episode_ends.tolist() == [1, 2, 3, 4, 5, 6, 7]
