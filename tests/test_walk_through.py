"""python -m minidiff: the method on data of two modes, from data to noise and back."""
from minidiff import __main__ as walk
from minidiff.demos import to_frame
from minidiff.diffusion import cosine_schedule

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
    assert max(map(len, said.splitlines())) <= 80
    shown = re.findall(r"^x_(\d+) [ ▁▂▃▄▅▆▇█]+$", said, re.M)
    assert shown == [*map(str, walk.SHOWN), *map(str, walk.SHOWN[::-1])]
    assert re.search(r"^x_50 at once +[▁▂▃▄▅▆▇█]", said, re.M)
    modes = {}
    for name in ("data", "samples"):
        numbers = re.search(rf"{name}: +(\d+)% of all at (\S+), the rest at (\S+)", said)
        modes[name] = [float(number) for number in numbers.groups()]
    tolerances = (8, 0.1, 0.1)  # observed: 1, 0.03, 0.02
    for of_data, of_samples, tolerance in zip(modes["data"], modes["samples"], tolerances):
        assert abs(of_data - of_samples) <= tolerance
    first, last, least = re.search(r"fell from (\S+) to (\S+)\. It cannot fall below (\S+):",
                                   said).groups()
    assert float(least) - 0.01 < float(last) < 0.8 * float(first)  # observed: 0.62
    assert float(last) < float(least) + 0.03  # observed: 0.003
    bound, entropy = re.search(r"\(eq. 10\) is (\S+) nats, .* data (\S+)\.$", said, re.M).groups()
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


def test_the_least_loss_is_that_of_the_ideal_denoiser():
    """By its definition: the variance of eps that is left, given x_t, on a fine grid."""
    schedule, scale = cosine_schedule(4), 0.7
    x0, eps = np.meshgrid(np.linspace(-4, 4, 801), np.linspace(-5, 5, 401))
    density = np.exp(-0.5 * eps**2) * sum(
        share * np.exp(-0.5 * ((x0 * scale - mean) / walk.SPREAD)**2)
        for share, mean in zip((walk.SHARE, 1 - walk.SHARE), walk.MEANS))
    left = []
    for t in range(1, 5):
        x_t = np.sqrt(schedule.alpha_bar[t]) * x0 + np.sqrt(1 - schedule.alpha_bar[t]) * eps
        cell = np.round(x_t / 0.02).astype(int)
        cell -= cell.min()
        weight, first, second = [np.bincount(cell.ravel(), (density * eps**k).ravel())
                                 for k in range(3)]
        seen = weight > 0
        left.append((second[seen] - first[seen]**2 / weight[seen]).sum() / weight.sum())
    found = walk.least_loss(schedule, scale, 200_000, np.random.default_rng(0))
    assert found == pytest.approx(np.mean(left), abs=0.01)


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
