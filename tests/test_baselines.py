"""The regression baseline: it learns the conditional mean, and answers without noise."""
import numpy as np
from conftest import CONFIG
from hypothesis import given
from hypothesis import strategies as st

from minidiff import policy
from minidiff.baselines import mse_loss, regressed, regression
from minidiff.optim import AdamW, flat_gradient
from minidiff.pusht.features import PUSHT
from minidiff.tensor import Tape, Tensor

COND = 3


def make(seed=0):
    """-> schedule, eps_theta on chunks of (8, 2) with three features, its weights away from their start."""
    schedule, eps_theta = policy.build(CONFIG, PUSHT, COND, np.random.default_rng(seed))
    eps_theta.net.theta += np.random.default_rng(seed).normal(0, 0.1, eps_theta.net.theta.size).astype(np.float32)
    return schedule, eps_theta


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_the_loss_is_the_mean_squared_distance_from_the_answer(batch, seed):
    rng, (_, eps_theta) = np.random.default_rng(seed), make()
    x0, cond = rng.standard_normal((batch, 8, 2), np.float32), rng.standard_normal((batch, COND), np.float32)
    answer = regressed(eps_theta, (8, 2), cond).data
    assert answer.shape == x0.shape
    np.testing.assert_allclose(mse_loss(eps_theta, x0, cond).data, ((answer - x0) ** 2).mean(), rtol=1e-5)


def test_the_network_is_shown_no_noise_at_time_0():
    _, eps_theta = make()
    cond = np.random.default_rng(1).standard_normal((4, COND), np.float32)
    shown = eps_theta.net(Tensor(np.zeros((4, 8, 2), np.float32)), np.repeat(eps_theta.embedding[:1], 4, 0), cond)
    np.testing.assert_array_equal(regressed(eps_theta, (8, 2), cond).data, shown.data)


def test_the_answer_comes_from_cond_alone_and_keeps_within_the_clip():
    schedule, eps_theta = make()
    rng = np.random.default_rng(1)
    cond = rng.standard_normal((4, COND), np.float32)
    plans = [next(regression(schedule, eps_theta, rng.standard_normal((4, 8, 2), np.float32), cond, rng, clip))
             for clip in (None, None, 0.1)]
    np.testing.assert_array_equal(plans[0], plans[1])
    np.testing.assert_array_equal(plans[2], np.clip(plans[0], -0.1, 0.1))
    assert np.abs(plans[0]).max() > 0.1 and np.abs(plans[0][0] - plans[0][1]).max() > 0.01


def test_of_two_equally_frequent_answers_it_learns_the_middle():
    """The mean of a target that is 1 or -1, half and half, is 0: what diffusion is meant to avoid."""
    _, eps_theta = make()
    optimiser = AdamW(eps_theta.net.theta)
    cond = np.zeros((64, COND), np.float32)
    x0 = np.ones((64, 8, 2), np.float32)
    x0[::2] = -1
    for _ in range(150):
        with Tape() as tape:
            loss = mse_loss(eps_theta, x0, cond)
        tape.backward(loss)
        optimiser.step(flat_gradient(eps_theta.net.params), 3e-3)
    assert np.abs(regressed(eps_theta, (8, 2), cond[:1]).data).max() < 0.02
    assert abs(float(loss.data) - 1) < 0.01
