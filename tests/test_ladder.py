"""The ladder from regression to diffusion: how plans are drawn, what is kept, what is printed."""
from minidiff import wall
from minidiff.beyond import baselines
from minidiff.pusht.features import PUSHT
from minidiff.scoring.rollout import EpisodeNoise

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import at_forks, distractors, fidelity, ladder
from conftest import is_png


def show(schedule, eps_theta, x_T, cond, rng, clip=None):
    yield x_T


def draw(sampler, noise, active):
    noise.active = active
    x_T = noise.standard_normal((len(active), 4, 2), np.float32)
    return next(sampler(None, None, x_T, None, SimpleNamespace(rng=noise), clip=4.0))


def test_noise_that_is_kept_is_that_of_an_episodes_first_decision():
    noise, sampler = EpisodeNoise([3, 4, 5], 0), partial(ladder.kept_for_an_episode, show)
    first = draw(sampler, noise, [0, 1, 2])
    np.testing.assert_array_equal(draw(sampler, noise, [0, 2]), first[[0, 2]])
    other = draw(sampler, EpisodeNoise([3, 4, 5], 1), [0, 1, 2])
    assert not np.array_equal(other, first) and not np.array_equal(first[0], first[1])


def test_one_x_T_for_all_depends_on_its_seed_alone():
    sampler = partial(ladder.one_for_all, show, 7)
    first = draw(sampler, EpisodeNoise([3, 4], 0), [0, 1])
    np.testing.assert_array_equal(first[0], first[1])
    np.testing.assert_array_equal(draw(sampler, EpisodeNoise([5], 1), [0])[0], first[0])
    assert not np.array_equal(draw(partial(ladder.one_for_all, show, 8), EpisodeNoise([3], 0), [0]),
                              first[:1])


def test_the_gaussian_has_the_covariance_of_the_residuals(monkeypatch):
    """Fed with impulses it shows a factor L, and L L^T is the mean square of what is left."""
    left = np.random.default_rng(0).standard_normal((50, 3, 2)) @ [[1.0, 0.5], [0, 2]]
    mean = np.random.default_rng(1).standard_normal((50, 3, 2))
    monkeypatch.setattr(baselines, "network_output", lambda *given: mean[:len(given[2])])
    trainer = SimpleNamespace(x0=mean + left, cond=np.zeros((50, 1)))
    sampler = ladder.around_regression(trainer, SimpleNamespace(eps_theta=None))
    impulses = np.concatenate([np.zeros((1, 6)), np.eye(6)]).reshape(7, 3, 2).astype(np.float32)
    x0, = sampler(None, None, impulses, np.zeros((7, 1)), None, clip=1e3)
    columns = (x0 - mean[:7]).reshape(7, 6)
    np.testing.assert_allclose(columns[0], 0, atol=1e-6)
    flat = left.reshape(50, 6)
    np.testing.assert_allclose(columns[1:].T @ columns[1:], flat.T @ flat / 50, rtol=1e-5)


def test_noise_on_actions_is_white_and_in_pixels(tiny_policy):
    policy = tiny_policy()
    trainer = SimpleNamespace(x0=np.zeros((1, 8, 2)))
    factor, = ladder.on_actions(3)(trainer, policy).args
    px = (factor.reshape(8, 2, 16) * policy.normaliser.scale[..., None]).reshape(16, 16)
    np.testing.assert_allclose(px, 3 * np.eye(16), rtol=1e-5)


def test_the_likeliest_component_is_that_of_the_largest_weight(monkeypatch):
    mu = np.arange(2 * 3 * 5 * 2.0).reshape(2, 3, 5, 2)
    log_w = np.log([[0.1, 0.2, 0.4, 0.2, 0.1], [0.6, 0.1, 0.1, 0.1, 0.1]])
    monkeypatch.setattr(baselines, "mixture_parts", lambda *given: (mu, log_w, None))
    x0, = ladder.likeliest(None, None, np.zeros((2, 3, 2)), None, None, clip=100.0)
    np.testing.assert_array_equal(x0, [mu[0, :, 2], mu[1, :, 0]])


def test_features_are_blurred_in_training_only(monkeypatch):
    seen = []
    monkeypatch.setattr(baselines, "mse_loss", lambda *given: seen.append(given[5]))
    eps = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
    ladder.blurred_loss(None, None, None, None, eps, np.ones((4, 5), np.float32))
    assert seen[0].shape == (4, 5) and 0 < (seen[0] - 1).std() < 3 * ladder.BLUR
    assert ladder.RUNGS["regression, noise on features in training"].sampler(None, None).func \
        is baselines.regression


@pytest.mark.slow
def test_the_ladder_is_climbed_once(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pygame")
    short = wall.TASK.recipe | {"steps": 3, "T": 4}
    monkeypatch.setattr(wall, "TASK", wall.TASK._replace(recipe=short))
    arguments = [str(tmp_path), "--wall", "--episodes", "3", "--seeds", "0", "1"]

    def printed():
        return [line for line in capsys.readouterr().out.splitlines() if line.endswith("solved")]

    ladder.main([*arguments, "--draw", str(tmp_path / "a.png")])
    lines = printed()
    names = [line.split(": ")[0] for line in lines]
    assert names == [name for name, rung in ladder.RUNGS.items() if not rung.obs_noise]
    assert is_png(tmp_path / "a.png")
    kept = json.loads((tmp_path / "results-1.json").read_text())
    assert set(kept) == set(names) and all(len(played) == 3 for played in kept.values())
    monkeypatch.setattr(ladder, "Trainer", None)
    ladder.main(arguments)
    assert printed() == lines


# ---- what is made of it --------------------------------------------------------------------------

def test_the_energy_distance_of_two_points_is_twice_their_distance():
    here, there = np.zeros((3, 4, 2)), np.zeros((5, 4, 2)) + [3, 4]
    assert fidelity.energy_distance(here, there) == pytest.approx(10)
    assert fidelity.energy_distance(here, here) == 0


def test_the_energy_distance_of_equal_laws_has_the_mean_0():
    """Over all ways to give four plans to two sides, two each."""
    plans = np.random.default_rng(0).standard_normal((4, 3, 2))
    halves = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    found = [fidelity.energy_distance(plans[list(half)], np.delete(plans, half, 0))
             for half in halves]
    assert np.mean(found) == pytest.approx(0, abs=1e-12) and np.max(found) > 0.01


def test_the_mean_of_opposite_steps_leads_nowhere():
    plans = np.zeros((2, 8, 2))
    plans[:, 3] = [13, 4], [7, 4]
    assert fidelity.steps(plans, np.array([10.0, 0, 0, 0, 0])) == (5, 4)


def test_useless_features_come_behind_and_differ_within_pixels(arrays):
    obs = np.tile(arrays["state"][:1, None], (2, 1, 1)).astype(float)
    obs[1, 0, 0] += 3
    frame = PUSHT.frame(obs)
    features = distractors.Distracted(10)(obs, frame)
    np.testing.assert_array_equal(features[:, :38], PUSHT.features(obs, frame))
    useless = features[:, 38:]
    assert useless.shape == (2, 10) and np.abs(useless[1] - useless[0]).mean() > 0.3


@pytest.mark.slow
def test_demonstrations_at_forks_start_near_the_axis_at_their_own_states(tmp_path, monkeypatch):
    monkeypatch.setattr(at_forks, "EPISODES", 2)
    at_forks.main(tmp_path / "forks.npz")
    starts = np.load(tmp_path / "forks.npz")["start"]
    off = (starts[:, :2] - starts[:, 2:4]) @ at_forks.forks.ACROSS
    assert len(starts) == 2 and (0 < np.abs(off)).all() and (np.abs(off) <= 10).all()
    assert np.ptp(off) > 0.1
