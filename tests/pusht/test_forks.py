"""What is measured and drawn about the plans of a policy: forks, steering, and the pictures of the README."""
import re
import subprocess

import numpy as np
import pytest
from conftest import ROOT, is_png, mirror

from minidiff import policy
from minidiff.pusht import SHIPPED_POLICY, gallery, modes
from minidiff.pusht.features import PUSHT

STATES = modes.symmetric_states(6, np.random.default_rng(0))


def test_the_states_are_their_own_mirror_images():
    reflected, _ = mirror(STATES, STATES[:, :2])
    away = reflected - STATES
    away[:, 4] %= 2 * np.pi
    np.testing.assert_allclose(away[:, 4], 0, atol=1e-9)
    np.testing.assert_allclose(away[:, :4], 0, atol=1e-9)


def test_the_demonstrator_goes_both_ways_equally():
    shown = modes.demonstrated(STATES[0], 8, np.random.default_rng(0))
    assert shown.shape == (16, modes.STEPS, 2)
    away = ((shown - STATES[0, :2]) @ modes.ACROSS).mean(1)
    np.testing.assert_allclose(away[:8], -away[8:], atol=1e-9)


@pytest.mark.parametrize("shares", [(3, 0, 3), (0, 6, 0), (1, 2, 3)])
def test_plans_are_counted_by_the_side_they_take(shares):
    """Straight plans that end 40 px to the left, on the axis or 40 px to the right: 20 px away on average."""
    ends = np.repeat([-1, 0, 1], shares)[:, None, None] * np.linspace(0, 40, modes.STEPS)[:, None] * modes.ACROSS
    row = modes.measure(lambda state, rng: state[:2] + ends, STATES, [state[:2] + ends for state in STATES])
    assert (row["left"], row["between"], row["right"]) == pytest.approx(np.array(shares) / 6)
    assert row["both"] == (min(shares[0], shares[2]) > 0) and row["distance"] == pytest.approx(0, abs=1e-9)


def test_the_distance_is_that_to_the_nearest_demonstrated_motion():
    still = lambda state, rng: np.tile(state[:2], (4, modes.STEPS, 1))
    row = modes.measure(still, STATES, [state[:2] + np.array([[[30, 40]], [[3, 4]]]) * np.ones((2, modes.STEPS, 1))
                                        for state in STATES])
    assert row["distance"] == pytest.approx(5)


def test_a_policy_of_single_actions_sees_where_they_led(tiny_policy):
    class Onward:
        obs_horizon, pred_horizon = 2, 1

        def plan(self, obs, rng):
            return obs[:, -1:, :2] + 20.0
    moved, = modes.motions(Onward(), STATES[0], 1, None)
    assert moved.shape == (modes.STEPS, 2) and (np.diff(moved, axis=0) > 0.5).all()


# ---- steering -------------------------------------------------------------------------------------------------------

def test_a_plan_that_is_told_where_to_end_ends_there(tiny_policy):
    ending = gallery.to_end_at(tiny_policy(), STATES[0], (300.0, 200.0))
    plans = modes.motions(ending, STATES[0], 5, np.random.default_rng(0)) if ending.pred_horizon >= 16 else ending.plan(
        np.tile(STATES[0], (5, 2, 1)), np.random.default_rng(0))
    np.testing.assert_allclose(plans[:, -1], [[300, 200]] * 5, atol=1e-3)
    assert np.ptp(plans[:, 0], axis=0).max() > 1


def test_a_cost_moves_the_plans_of_the_shipped_policy_to_one_side():
    shipped, _ = policy.load(SHIPPED_POLICY, PUSHT)
    share = lambda p: (((modes.motions(p, gallery.STATE, 60, np.random.default_rng(0)) - gallery.STATE[:2])
                        @ modes.ACROSS).mean(1) > 0).mean()  # to the right
    assert share(shipped) < 0.6 and share(gallery.to_one_side(shipped)) > 0.8


def test_a_picture_whose_program_fails_is_named_and_the_others_are_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gallery", "--out", str(tmp_path)])
    monkeypatch.setattr(gallery.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess((), 1))
    for name in ("forward", "schedules", "steering"):
        monkeypatch.setattr(gallery, name, lambda path, *_: None)
    for name in ("film", "animation"):
        monkeypatch.setattr(gallery.rollout, name, lambda *_: None)
    gallery.main()
    said = capsys.readouterr().out
    assert re.findall(r"^no .*/(\S+): python -m (\S+) failed", said, re.M) == [
        ("fork.png", "train"), ("second_task.png", "tests.test_second_task")]
    assert said.count("picture: ") == 5


@pytest.mark.slow
def test_one_command_makes_every_picture_of_the_readme_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gallery", "--out", str(tmp_path)])
    monkeypatch.setattr(gallery, "REGRESSION_STEPS", 20)
    gallery.main()
    readme = set(re.findall(r"pictures/(\w+\.png)", (ROOT / "README.md").read_text(encoding="utf-8")))
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert readme <= drawn == {path.name for path in gallery.PICTURES.glob("*.png")}
    assert all(map(is_png, tmp_path.glob("*.png")))
    assert (tmp_path / "rollouts.webp").exists() or "pip install 'minidiff[film]'" in capsys.readouterr().out
