"""AdamW, its moving average and the learning rate follow their formulas, whatever the block size.

AdamW is Loshchilov & Hutter 2019, algorithm 2, with the decay multiplied by lr (as every library
has it).
"""
from minidiff import optim
from minidiff.layers import linear, mse
from minidiff.optim import AdamW, flat_gradient, keep_freed_memory, learning_rate
from minidiff.tensor import Tape, Tensor
from minidiff.training import Config

import ctypes
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

few = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def read_only(a):
    a.flags.writeable = False
    return a


def textbook(theta, grads, lrs, weight_decay, betas, eps, ema_decay):
    """theta and its EMA after all the steps: the formulas as printed, one number at a time."""
    b1, b2 = betas
    thetas = []
    emas = []
    for i, x in enumerate(theta):
        m = 0.0
        v = 0.0
        ema = x
        for n, (grad, lr) in enumerate(zip(grads, lrs), start=1):
            m = b1 * m + (1 - b1) * grad[i]
            v = b2 * v + (1 - b2) * grad[i] ** 2
            m_hat = m / (1 - b1**n)
            v_hat = v / (1 - b2**n)
            x = x - lr * (m_hat / (math.sqrt(v_hat) + eps) + weight_decay * x)
            d = min(ema_decay, (1 + n) / (10 + n))
            ema = d * ema + (1 - d) * x
        thetas.append(x)
        emas.append(ema)
    return thetas, emas


@few
@given(size=st.integers(1, 40), block=st.integers(1, 40), steps=st.integers(1, 30), seed=seeds)
def test_adamw_is_the_textbook_one_across_every_block_boundary(size, block, steps, seed):
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal(size)
    grads = read_only(rng.standard_normal((steps, size)))
    lrs = rng.uniform(0, 0.1, steps)
    options = {"weight_decay": rng.uniform(0, 1),
               "betas": (rng.uniform(0.5, 0.99), rng.uniform(0.5, 0.999)),
               "eps": 10 ** rng.uniform(-8, -1), "ema_decay": rng.uniform(0.2, 0.9)}
    optimiser = AdamW(theta.copy(), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optim, "BLOCK", block)
        for grad, lr in zip(grads, lrs):
            optimiser.step(grad, lr)
    want_theta, want_ema = textbook(theta, grads, lrs, **options)
    np.testing.assert_allclose(optimiser.theta, want_theta, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(optimiser.ema, want_ema, rtol=1e-12, atol=1e-13)


def test_adamw_reaches_every_number_of_an_array_of_several_blocks():
    """With the defaults."""
    size = 2 * optim.BLOCK + 1000
    optimiser = AdamW(np.ones(size, np.float32))
    for g in 1, -2, 3:
        optimiser.step(np.full(size, g, np.float32), 0.1)
    (theta,), (ema,) = textbook([1.0], [[1], [-2], [3]], [0.1] * 3, weight_decay=1e-4,
                                betas=(0.9, 0.999), eps=1e-8, ema_decay=0.999)
    np.testing.assert_allclose(optimiser.theta, theta, rtol=1e-6)
    np.testing.assert_allclose(optimiser.ema, ema, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_theta_changes_in_place_and_everything_keeps_its_precision(dtype):
    theta = np.ones(5, dtype)
    optimiser = AdamW(theta)
    optimiser.step(read_only(np.ones(5, dtype)), 0.1)
    assert optimiser.theta is theta and (theta < 0.95).all()
    for array in (optimiser.theta, optimiser.m, optimiser.v, optimiser.ema):
        assert array.dtype == dtype


def test_decay_is_decoupled_from_the_gradient():
    """Without a gradient theta shrinks by exactly 1 - lr weight_decay.

    Were the decay a part of the gradient, Adam would divide it by its own size.
    """
    start = np.random.default_rng(0).standard_normal(100)
    optimiser = AdamW(start.copy(), weight_decay=0.3)
    optimiser.step(np.zeros(100), 0.01)
    assert (optimiser.theta == start * (1 - 0.01 * 0.3)).all()


@few
@given(seeds)
def test_the_first_step_is_the_learning_rate_whatever_the_gradient(seed):
    """Both means start at zero; corrected for that, m_hat = grad, v_hat = grad^2 after one step."""
    rng = np.random.default_rng(seed)
    grad = rng.choice([-1, 1], 20) * 10 ** rng.uniform(-6, 6, 20)
    optimiser = AdamW(np.zeros(20), weight_decay=0, eps=0)
    optimiser.step(grad, 0.01)
    np.testing.assert_allclose(optimiser.theta, -0.01 * np.sign(grad), rtol=1e-12)


def test_a_constant_gradient_moves_by_the_learning_rate_at_every_step():
    optimiser = AdamW(np.zeros(1), weight_decay=0, eps=0)
    for n in range(1, 2001):
        optimiser.step(np.array([-3.0]), 0.01)
        assert abs(optimiser.theta[0] / (0.01 * n) - 1) < 1e-10


# ---- the moving average --------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_average_of_constant_weights_is_the_constant(dtype):
    start = np.random.default_rng(0).standard_normal(100).astype(dtype)
    optimiser = AdamW(start.copy(), weight_decay=0)
    assert (optimiser.ema == start).all()
    assert not np.shares_memory(optimiser.ema, optimiser.theta)
    for _ in range(1000):
        optimiser.step(np.zeros(100, dtype), 0.1)
    np.testing.assert_allclose(optimiser.ema, start, rtol=1000 * np.finfo(dtype).eps)


def test_the_average_soon_forgets_the_start_and_then_has_its_decay():
    """After n updates the start weighs prod_k (1+k)/(10+k) = (n+1)! 10!/(n+10)!.

    That is until d reaches ema_decay.
    """
    optimiser = AdamW(np.ones(1), weight_decay=0, ema_decay=0.99)
    optimiser.theta[:] = 0  # so that the average is what is left of the start
    for n in range(1, 1001):
        before = optimiser.ema[0]
        optimiser.step(np.zeros(1), 0)
        if n <= 100:
            left = math.factorial(n + 1) * math.factorial(10) / math.factorial(n + 10)
            assert abs(optimiser.ema[0] / left - 1) < 1e-12
    assert left < 1e-11 and abs(optimiser.ema[0] / before - 0.99) < 1e-12


# ---- the learning rate ---------------------------------------------------------------------------

@few
@given(warmup=st.integers(0, 50), more=st.integers(2, 500), peak=st.floats(1e-5, 1))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(warmup, more, peak):
    """Without a jump."""
    steps = warmup + more
    lr = np.array([learning_rate(n, steps, peak, warmup) for n in range(steps + 1)])
    rise = peak * np.arange(1, warmup + 1) / max(1, warmup)  # the first is not zero
    np.testing.assert_allclose(lr[:warmup], rise)
    assert lr[warmup] == peak and lr.max() < peak * (1 + 1e-12) and abs(lr[-1]) < 1e-15 * peak
    halfway = warmup + more // 2
    opposite = steps - more // 2
    assert abs(lr[halfway] + lr[opposite] - peak) < 1e-12 * peak  # a cosine is odd about its middle
    fall = -np.diff(lr[warmup:])
    assert (fall > 0).all() and fall.max() <= peak * math.pi / 2 / more
    quarter = learning_rate(warmup + more, warmup + 4 * more, peak, warmup)
    assert abs(quarter / peak - (2 + math.sqrt(2)) / 4) < 1e-12


def test_a_run_shorter_than_its_warm_up_only_rises():
    assert [learning_rate(n, 3, 1.0, warmup=4) for n in range(3)] == [0.25, 0.5, 0.75]
    assert [learning_rate(n, 4, 1.0, warmup=4) for n in range(4)] == [0.25, 0.5, 0.75, 1]


# ---- gradients as one array ----------------------------------------------------------------------

def test_the_flat_gradient_has_the_order_of_theta_and_is_then_forgotten():
    """With zeros for what was not used."""
    theta = np.arange(9, dtype=np.float32)
    params = {"a": Tensor(theta[:4].reshape(2, 2)), "unused": Tensor(theta[4:6]),
              "b": Tensor(theta[6:])}

    def gradient():
        with Tape() as tape:
            y = params["b"] * theta[6:] + params["a"][0, 1] * 5
        tape.backward(y)
        return flat_gradient(params)

    for _ in range(2):  # had it not forgotten, the second would be double
        grad = gradient()
        assert grad.tolist() == [0, 15, 0, 0, 0, 0, 6, 7, 8] and grad.dtype == np.float32
    assert all(p.grad is None for p in params.values())


# ---- together ------------------------------------------------------------------------------------

def test_a_quadratic_converges():
    """(x - x*)' A (x - x*) with curvatures from 0.1 to 10, in 500 steps; its least value is 0."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    root = np.sqrt(np.geomspace(0.1, 10, 5))[:, None] * basis
    theta = np.zeros(5)
    goal = rng.standard_normal((1, 5))
    params = {"x": Tensor(theta)}
    optimiser = AdamW(theta, weight_decay=0)
    for n in range(500):
        with Tape() as tape:
            difference = linear(params["x"][None] - goal, root)
            loss = mse(difference, np.zeros((1, 5)))
        tape.backward(loss)
        optimiser.step(flat_gradient(params), learning_rate(n, 500, 0.05, warmup=100))
    np.testing.assert_allclose(theta, goal[0], atol=1e-4)
    np.testing.assert_allclose(optimiser.ema, goal[0], atol=0.05)  # a little behind


def test_the_defaults_are_those_of_a_run():
    optimiser = AdamW(np.zeros(1))
    config = Config()
    assert (optimiser.weight_decay, optimiser.ema_decay) == (config.weight_decay, config.ema)


def test_glibc_is_told_in_its_own_numbers_to_keep_freed_memory(monkeypatch):
    told = []

    class Glibc:
        def mallopt(self, name, value):
            told.append((name, value))

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Glibc())
    keep_freed_memory()
    assert told == [(-1, 2**30), (-3, 2**25)]  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD


def test_without_glibc_nothing_is_told(monkeypatch):
    def no_library(name):
        raise OSError

    def no_mallopt(name):
        return object()

    for library in no_library, no_mallopt:
        monkeypatch.setattr(ctypes, "CDLL", library)
        assert keep_freed_memory() is None
