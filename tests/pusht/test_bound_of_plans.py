"""The bound of a policy on demonstrated plans: its terms, its units, and who has none."""
from minidiff import checkpoint, demos, policy
from minidiff.beyond import OBJECTIVES
from minidiff.beyond.baselines import mip_loss, mixture_loss, mse_loss, network_output
from minidiff.beyond.samplers import log_likelihood
from minidiff.diffusion import l_hybrid, l_simple, variational_bound
from minidiff.pusht.features import PUSHT
from minidiff.pusht.study import bound
from minidiff.training import Config, Trainer

import re

import numpy as np
import pytest


def small_run(folder, data, objective="simple", loss=l_simple, outputs=1):
    """A policy after a few gradient steps, saved in a folder."""
    config = Config(objective=objective, outputs=outputs, steps=20, width=16, blocks=1, T=8,
                    batch=32, pred_horizon=4)
    trainer = Trainer(config, PUSHT, data, loss)
    for _ in trainer:
        pass
    policy.save(folder / "policy.npz", trainer)
    return folder


@pytest.fixture(scope="module")
def data(demos_file):
    return demos.load(demos_file, PUSHT)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("simple"), data)


def normalised(trained, obs, actions):
    frame = PUSHT.frame(obs)
    cond = trained.normaliser.standardise(PUSHT.features(obs, frame))
    return trained.normaliser.normalise(actions, frame), cond


def test_bound_and_likelihood_are_those_of_the_normalised_plans(run, data):
    trained, _ = policy.load(run, PUSHT)
    obs, actions = (rows[:6] for rows in demos.windows(data, 1, 4))
    x0, cond = normalised(trained, obs, actions)
    terms = bound.bound(trained, obs, actions, np.random.default_rng(0))
    expected = variational_bound(trained.schedule, trained.eps_theta, x0, cond,
                                 np.random.default_rng(0), "beta")
    np.testing.assert_array_equal(terms, expected)
    assert terms.shape == (9,)
    for steps in ([], [2]):
        exact = bound.log_likelihood(trained, obs, actions, *steps)
        expected = log_likelihood(trained.schedule, trained.eps_theta, x0, cond, *steps)
        np.testing.assert_array_equal(exact, expected)
        assert exact.shape == (6,)


def test_a_learned_variance_enters_the_bound(data, tmp_path):
    trained, _ = policy.load(small_run(tmp_path, data, "hybrid", l_hybrid, outputs=2), PUSHT)
    obs, actions = (rows[:6] for rows in demos.windows(data, 1, 4))
    x0, cond = normalised(trained, obs, actions)
    terms = bound.bound(trained, obs, actions, np.random.default_rng(0))
    expected = variational_bound(trained.schedule, trained.eps_theta, x0, cond,
                                 np.random.default_rng(0), "learned")
    np.testing.assert_array_equal(terms, expected)


def test_a_density_in_pixels_is_that_in_the_networks_units_by_the_scale(run):
    """x_0 = actions / scale in an orthonormal frame: the log of the Jacobian, for each number."""
    trained, _ = policy.load(run, PUSHT)
    obs = np.array([[[200.0, 300.0, 256.0, 220.0, 0.3]]])
    frame = PUSHT.frame(obs)
    origin = trained.normaliser.denormalise(np.zeros((1, 4, 2)), frame)
    columns = []
    for unit in np.eye(8).reshape(8, 1, 4, 2):
        columns.append((trained.normaliser.denormalise(unit, frame) - origin).ravel())
    _, log_det = np.linalg.slogdet(np.array(columns))
    assert bound.log_scale(trained) == pytest.approx(log_det / 8)


def test_the_command_prints_the_sum_of_the_terms_and_pixels_only_shift_it(run, data, demos_file,
                                                                          capsys):
    bound.main([str(run), str(demos_file)])
    said = capsys.readouterr().out
    figures = re.search(r"<= (\S+) nats .*; (\S+) in pixels\n"
                        r" +L_0 (\S+), L_1 .. L_T-1 (\S+), L_T (\S+)", said).groups()
    total, pixels, *terms = map(float, figures)
    assert total == pytest.approx(sum(terms), abs=2e-3)
    trained, _ = policy.load(run, PUSHT)
    assert pixels - total == pytest.approx(bound.log_scale(trained), abs=2e-3)


def test_the_command_takes_the_exact_likelihood_on_a_few_plans(run, data, demos_file, monkeypatch,
                                                               capsys):
    monkeypatch.setattr(bound, "EXACTLY", 32)
    bound.main([str(run), str(demos_file)])
    said = re.search(r"ODE: (\S+) nats .* on 32 of them, where the bound is (\S+)\n",
                     capsys.readouterr().out)
    trained, _ = policy.load(run, PUSHT)
    rng = np.random.default_rng(0)
    obs, actions = demos.windows(PUSHT.relabel(data), 1, 4)
    many = rng.permutation(len(obs))
    bound.bound(trained, obs[many], actions[many], rng)  # draws its noise first
    few = obs[many[:32]], actions[many[:32]]
    nats = -bound.log_likelihood(trained, *few).mean() / 8
    assert float(said[1]) == pytest.approx(nats, abs=6e-4)
    assert float(said[2]) == pytest.approx(bound.bound(trained, *few, rng).sum(), abs=6e-4)


def test_the_density_of_a_mixture_is_its_loss(data, demos_file, tmp_path, capsys):
    outputs = OBJECTIVES["mixture"].outputs
    run = small_run(tmp_path, data, "mixture", mixture_loss, outputs)
    bound.main([str(run), str(demos_file)])
    trained, _ = policy.load(run, PUSHT, mixture_loss)
    obs, actions = demos.windows(PUSHT.relabel(data), 1, 4)
    x0, cond = normalised(trained, obs, actions)
    nats = mixture_loss(None, trained.eps_theta, x0, None, None, cond) + np.log(2 * np.pi) / 2
    said = re.search(r"^-log p\(plan\) = (\S+) nats .*; (\S+) in pixels$", capsys.readouterr().out,
                     re.MULTILINE)
    assert float(said[1]) == pytest.approx(nats, abs=6e-4)
    assert float(said[2]) - float(said[1]) == pytest.approx(bound.log_scale(trained), abs=2e-3)


def test_the_density_around_a_regression_is_that_of_its_covariance(data, demos_file, tmp_path,
                                                                   capsys):
    """One normal density after another, for the covariance of the even rows."""
    bound.main([str(small_run(tmp_path, data, "mse", mse_loss)), str(demos_file)])
    assert re.search(r"^139 plans .*\n-log p\(plan\) = \S+ nats", capsys.readouterr().out)
    trained, _ = policy.load(tmp_path, PUSHT, mse_loss)
    obs, actions = demos.windows(data, 1, 4)
    x0, cond = normalised(trained, obs, actions)
    left = (x0 - network_output(trained.eps_theta, (4, 2), cond)).reshape(-1, 8).astype(float)
    C = sum(np.outer(row, row) for row in left[::2]) / len(left[::2])
    root = np.linalg.cholesky(C)
    white = np.linalg.solve(root, left[1::2].T)
    log_p = -(white**2).sum(0) / 2 - np.log(np.diag(root)).sum() - 4 * np.log(2 * np.pi)
    assert bound.gaussian_nats(trained, obs, actions) == pytest.approx(-log_p.mean() / 8)


def test_a_covariance_from_too_few_plans_is_refused(data, tmp_path):
    trained, _ = policy.load(small_run(tmp_path, data, "mse", mse_loss), PUSHT, mse_loss)
    obs, actions = (rows[:16] for rows in demos.windows(data, 1, 4))
    with pytest.raises(ValueError, match="of 8 numbers takes more than 16 plans, not 16"):
        bound.gaussian_nats(trained, obs, actions)


def test_a_policy_of_two_steps_has_no_density(data, demos_file, tmp_path):
    with pytest.raises(ValueError, match="trained by --objective mip; it has no p"):
        bound.main([str(small_run(tmp_path, data, "mip", mip_loss)), str(demos_file)])


def test_a_bound_that_is_not_finite_is_refused(run, demos_file, tmp_path):
    arrays, meta = policy.read(run)
    huge = arrays["ema"] * np.float32(9e8 / np.abs(arrays["ema"]).max())
    checkpoint.save(tmp_path / "p.npz", arrays | {"ema": huge}, meta)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="the density is not finite"):
        bound.main([str(tmp_path / "p.npz"), str(demos_file)])
