"""The denoisers are what their docstrings say, differentiate rightly, and treat each sample of a batch alone.

Networks are rebuilt in float64 with random weights everywhere (a fresh network has zeros that would hide mistakes),
and compared with plain formulas and with the complex step (see test_autograd.py).
"""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidiff.diffusion import cosine_schedule
from minidiff.nn import EMBEDDING, NETWORKS, ConvNet, Denoiser, MLP, time_embedding
from minidiff.layers import mse
from minidiff.tensor import Tape, Tensor

few = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)
both_networks = pytest.mark.parametrize("name", NETWORKS)
with_and_without_skip = pytest.mark.parametrize("skip", [True, False])
SMALL = {"mlp": dict(width=6, blocks=2), "conv": dict(width=6, blocks=2, kernel=3, groups=3, hidden=5)}
ALPHA_BAR = cosine_schedule(20).alpha_bar


def set_theta(net, theta):
    """Give the network these parameters, in their precision."""
    net.theta = theta
    for p, part in zip(net.params.values(), np.split(theta, np.cumsum([p.data.size for p in net.params.values()])[:-1])):
        p.data = part.reshape(p.shape)
    return net


def random_network(name, x_shape=(4, 2), cond_dim=3, seed=0):
    rng = np.random.default_rng(seed)
    net = NETWORKS[name](x_shape, cond_dim, rng, **SMALL[name])
    return set_theta(net, net.theta + rng.normal(0, 0.3, net.theta.shape))


def random_batch(B=3, x_shape=(4, 2), cond_dim=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, *x_shape)), rng.integers(1, len(ALPHA_BAR), B), rng.standard_normal((B, cond_dim))


# ---- against plain formulas ---------------------------------------------------------------------------------------

def silu(x):
    return x / (1 + np.exp(-x))


def normalised(x, axes):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def plain_mlp(net, x, embedding, cond, blocks):
    p = {name: tensor.data for name, tensor in net.params.items()}
    h = np.concatenate([x.reshape(len(x), -1), embedding, cond], 1) @ p["in.W"] + p["in.b"]
    for i in range(blocks + 1):
        r = normalised(h, -1) * p[f"{i}.gain"] + p[f"{i}.bias"]
        r = silu(r @ p[f"{i}.1.W"] + p[f"{i}.1.b"]) @ p[f"{i}.2.W"] + p[f"{i}.2.b"]
        h = h + r if i < blocks else r
    return h.reshape(x.shape)


def plain_convnet(net, x, embedding, cond, blocks):
    """Here arrays are (B, H, C) throughout, and a convolution looks at each step's stretch of a padded chunk."""
    p = {name: tensor.data for name, tensor in net.params.items()}
    B, H, _ = x.shape

    def conv(x, name):
        W, K = p[name + ".W"], len(p[name + ".W"])
        padded = np.pad(x, ((0, 0), (K // 2, K // 2), (0, 0)))
        return np.stack([np.tensordot(padded[:, t:t + K], W, 2) for t in range(H)], 1) + p[name + ".b"]

    def norm(x, gain, bias):
        return normalised(x.reshape(B, H, net.groups, -1), (1, 3)).reshape(B, H, -1) * gain + bias

    known = silu(np.concatenate([embedding, cond], 1) @ p["known.W"] + p["known.b"])
    h = conv(x, "in") + (known @ p["start.W"] + p["start.b"]).reshape(B, H, -1)
    for i in range(blocks):
        film = known @ p[f"{i}.film.W"] + p[f"{i}.film.b"]
        gain_1, bias_1, gain_2, bias_2 = np.split(film[:, None], 4, axis=2)
        r = conv(silu(norm(h, 1 + gain_1, bias_1)), f"{i}.1")
        h = h + conv(silu(norm(r, 1 + gain_2, bias_2)), f"{i}.2")
    return silu(norm(h, p["out.gain"], p["out.bias"])) @ p["out.W"] + p["out.b"]


PLAIN = {"mlp": plain_mlp, "conv": plain_convnet}


@both_networks
@few
@given(H=sizes, D=sizes, B=sizes, F=sizes, seed=seeds)
def test_a_network_is_its_formula(name, H, D, B, F, seed):
    net = random_network(name, (H, D), F, seed)
    x, t, cond = random_batch(B, (H, D), F, seed)
    y = net(Tensor(x), time_embedding(t), cond).data
    assert y.shape == (B, H, D)
    np.testing.assert_allclose(y, PLAIN[name](net, x, time_embedding(t), cond, net.blocks), rtol=1e-9, atol=1e-9)


@both_networks
def test_blocks_begin_as_the_identity(name):
    net = NETWORKS[name]((4, 2), 3, np.random.default_rng(0), **SMALL[name])
    set_theta(net, net.theta.astype(float))
    x, t, cond = random_batch()
    y = net(Tensor(x), time_embedding(t), cond).data
    if name == "mlp":  # the head is its last block
        for part in "gain", "bias", "1.W", "1.b", "2.W", "2.b":
            net.params[f"0.{part}"] = net.params[f"{net.blocks}.{part}"]
    np.testing.assert_allclose(y, PLAIN[name](net, x, time_embedding(t), cond, blocks=0), rtol=1e-10)


def test_what_is_known_enters_the_convnet_by_the_start_and_by_film():
    net = random_network("conv")
    ways_in = ["start.W", *(f"{i}.film.W" for i in range(net.blocks))]
    weights = {way: net.params[way].data.copy() for way in ways_in}
    x, t, cond = random_batch(2)
    x[1] = x[0]  # two samples that differ by t and cond alone

    def difference(*open_ways):
        for way in ways_in:
            net.params[way].data[:] = weights[way] * (way in open_ways)
        y = net(Tensor(x), time_embedding(t), cond).data
        return np.abs(y[0] - y[1]).max()

    assert difference() < 1e-12
    for way in ways_in:
        assert difference(way) > 1e-3


def test_away_from_the_ends_the_convnet_knows_no_place_but_by_its_start():
    net = random_network("conv", (60, 2))
    net.params["start.W"].data[:] = net.params["start.b"].data[:] = 0
    x, shifted, (_, t, cond) = np.zeros((1, 60, 2)), np.zeros((1, 60, 2)), random_batch(1)
    x[:, 24:28] = shifted[:, 33:37] = np.random.default_rng(0).standard_normal((1, 4, 2))
    y, y_shifted = (net(Tensor(a), time_embedding(t), cond).data for a in (x, shifted))
    np.testing.assert_allclose(y_shifted[:, 19:50], y[:, 10:41], rtol=1e-9, atol=1e-9)
    assert np.abs(y[:, 10:41] - y[:, 10]).max() > 0.1  # and there is something to see


# ---- parameters ---------------------------------------------------------------------------------------------------

@both_networks
def test_theta_is_one_array_and_the_parameters_are_views_into_it(name):
    net = NETWORKS[name]((4, 2), 3, np.random.default_rng(0), **SMALL[name])
    assert net.theta.dtype == np.float32 and net.theta.ndim == 1
    net.theta[:] = np.arange(net.theta.size)
    assert np.concatenate([p.data.ravel() for p in net.params.values()]).tolist() == net.theta.tolist()
    assert all(p.needs_grad and np.shares_memory(p.data, net.theta) for p in net.params.values())

    rng = np.random.default_rng(0)
    net = NETWORKS[name]((4, 2), 3, rng, **SMALL[name])
    x, t, cond = random_batch()
    before = net(Tensor(x), time_embedding(t), cond).data
    net.theta += rng.standard_normal(net.theta.size, dtype=np.float32)
    assert not np.allclose(net(Tensor(x), time_embedding(t), cond).data, before)


@given(H=sizes, D=sizes, F=sizes, width=sizes, blocks=st.integers(0, 3), answers=st.integers(1, 2),
       kernel=st.sampled_from([1, 3, 5]), hidden=sizes)
@few
def test_the_number_of_parameters(H, D, F, width, blocks, answers, kernel, hidden):
    rng, w, known, A = np.random.default_rng(0), width, EMBEDDING + F, answers * D
    block = 2 * w + 2 * (w * w + w)  # norm, two Linears
    head = 2 * w + (w * w + w) + (w * H * A + H * A)
    assert MLP((H, D), F, rng, w, blocks, answers).theta.size == (H * D + known) * w + w + blocks * block + head
    block = (hidden + 1) * 4 * w + 2 * (kernel * w * w + w)  # FiLM, two convolutions
    around = (known + 1) * hidden + (hidden + 1) * H * w + kernel * D * w + w + 2 * w + w * A + A
    assert ConvNet((H, D), F, rng, w, blocks, answers, kernel, 1, hidden).theta.size == around + blocks * block


@both_networks
def test_initial_weights_are_normal_over_the_root_of_fan_in_and_the_rest_is_one_or_zero(name):
    net = NETWORKS[name]((16, 2), 20, np.random.default_rng(0))  # as wide as it is used
    for key, p in net.params.items():
        starts_at_zero = key.endswith(("film.W", "2.W")) and key != f"{net.blocks}.2.W"  # the last is the MLP's head
        if key.endswith("W") and not starts_at_zero:
            z = p.data * np.sqrt(np.prod(p.shape[:-1]))
            n = z.size
            assert abs(z.mean()) < 5 / np.sqrt(n) and abs(z.var() - 1) < 5 * np.sqrt(2 / n) and np.abs(z).max() < 6
        else:
            assert (p.data == key.endswith("gain")).all()


@both_networks
def test_the_same_seed_gives_the_same_weights(name):
    a, b, other = (NETWORKS[name]((4, 2), 3, np.random.default_rng(seed), **SMALL[name]).theta for seed in (5, 5, 6))
    assert (a == b).all() and (a != other).any()


# ---- the denoiser -------------------------------------------------------------------------------------------------

def test_the_time_embedding_is_its_formula():
    t = [0, 1, 7, 100, 999]
    w = [10 ** (-4 * k / 31) for k in range(32)]  # from 1 down to 1e-4
    plain = [[math.sin(w_k * n) for w_k in w] + [math.cos(w_k * n) for w_k in w] for n in t]
    assert time_embedding(t).shape == (5, EMBEDDING) == (5, 64) and time_embedding(t).dtype == np.float32
    np.testing.assert_allclose(time_embedding(t), plain, rtol=0, atol=1e-7)


def skip_in_float64(denoiser):
    """The same denoiser with the coefficients of its skip in float64, from the docstring, as (T+1, 1, 1)."""
    ab = ALPHA_BAR[:, None, None]
    exact = {"signal": ab ** 0.5, "noise": (1 - ab) ** 0.5, "gain": ab ** 0.5 / (ab + 4 * (1 - ab))}
    for name, table in exact.items():
        np.testing.assert_allclose(getattr(denoiser, name), table, rtol=1e-7)
        setattr(denoiser, name, table)
    return denoiser


def spy(F, seen):
    """A network that notes what it is called with, and answers F."""
    def net(*args):
        seen.extend(args)
        return Tensor(F)
    return net


@few
@given(seeds)
def test_the_error_of_eps_over_alpha_bar_is_the_error_of_v(seed):
    """||eps - eps_theta||^2 / alpha_bar = ||v - F||^2, v = sqrt(alpha_bar) eps - sqrt(1-alpha_bar) x_0 (Salimans & Ho)."""
    rng, (x0, t, cond) = np.random.default_rng(seed), random_batch(seed=seed)
    eps, F, ab = rng.standard_normal(x0.shape), rng.standard_normal(x0.shape), ALPHA_BAR[t][:, None, None]
    x_t = np.sqrt(ab) * x0 + np.sqrt(1 - ab) * eps
    eps_theta = skip_in_float64(Denoiser(spy(F, []), ALPHA_BAR))(x_t, t, cond).data
    v = np.sqrt(ab) * eps - np.sqrt(1 - ab) * x0
    np.testing.assert_allclose((eps - eps_theta) ** 2 / ab, (v - F) ** 2, rtol=1e-9, atol=1e-12)


def test_the_network_sees_the_best_linear_guess_of_x0_the_time_and_cond():
    """g = Cov(x_0, x_t) / Var(x_t), with a standard deviation of x_0 of 1/2."""
    (x_t, t, cond), seen = random_batch(), []
    skip_in_float64(Denoiser(spy(0 * x_t, seen), ALPHA_BAR))(x_t, t, cond)
    ab = ALPHA_BAR[t][:, None, None]
    covariance, variance = np.sqrt(ab) * 0.5**2, ab * 0.5**2 + (1 - ab)
    np.testing.assert_allclose(seen[0].data, covariance / variance * x_t, rtol=1e-12)
    assert (seen[1] == time_embedding(t)).all() and seen[2] is cond


def test_without_the_skip_the_network_is_the_denoiser():
    (x_t, t, cond), seen, F = random_batch(), [], np.random.default_rng(1).standard_normal((3, 4, 2))
    assert (Denoiser(spy(F, seen), ALPHA_BAR, skip=False)(x_t, t, cond).data == F).all()
    assert (seen[0].data == x_t).all() and (seen[1] == time_embedding(t)).all() and seen[2] is cond


@both_networks
@with_and_without_skip
@settings(few, max_examples=3)
@given(seeds)
def test_the_gradient_of_the_loss_by_everything_is_that_of_the_complex_step(name, skip, seed):
    net = random_network(name, seed=seed)
    denoiser, (x_t, t, cond) = Denoiser(net, ALPHA_BAR, skip), random_batch(seed=seed)
    rng = np.random.default_rng(seed)
    eps, weight = rng.standard_normal(x_t.shape), rng.uniform(0.5, 2, (len(t), 1, 1))

    def loss(theta, x_t, cond):
        set_theta(net, theta)
        return mse(denoiser(x_t, t, cond), eps.astype(theta.dtype), weight)

    theta, inputs = net.theta, [Tensor(x_t, needs_grad=True), Tensor(cond, needs_grad=True)]
    with Tape() as tape:
        value = loss(theta, *inputs)
    tape.backward(value)
    gradients = {key: p.grad for key, p in net.params.items()} | {"x_t": inputs[0].grad, "cond": inputs[1].grad}

    start, h = 0, 1e-20
    for key, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape)
        step, moved = np.zeros(theta.size), [x_t + 0j, cond + 0j]
        if key in net.params:
            step[start:start + direction.size] = direction.ravel()
            start += direction.size
        else:
            moved[key == "cond"] += 1j * h * direction
        slope = loss(theta + 1j * h * step, *moved).data.imag / h
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-10, atol=1e-12, err_msg=key)


@both_networks
@with_and_without_skip
@few
@given(H=sizes, D=sizes, B=sizes, F=sizes, seed=seeds)
def test_what_a_sample_becomes_does_not_depend_on_its_batch(name, skip, H, D, B, F, seed):
    denoiser = Denoiser(random_network(name, (H, D), F, seed), ALPHA_BAR, skip)
    x_t, t, cond = random_batch(B, (H, D), F, seed)
    together = denoiser(x_t, t, cond).data
    assert together.shape == (B, H, D)
    for i in range(B):
        alone = denoiser(x_t[i:i + 1], int(t[i]), cond[i:i + 1]).data
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-9, atol=1e-12)


@both_networks
@with_and_without_skip
def test_one_t_is_the_same_t_for_every_sample(name, skip):
    denoiser, (x_t, _, cond) = Denoiser(random_network(name), ALPHA_BAR, skip), random_batch()
    for t in 1, len(ALPHA_BAR) - 1:
        assert (denoiser(x_t, t, cond).data == denoiser(x_t, np.full(3, t), cond).data).all()
        assert (denoiser(x_t, t, cond).data != denoiser(x_t, 5, cond).data).any()


@both_networks
def test_a_fresh_denoiser_works_in_float32_and_off_the_tape(name):
    denoiser = Denoiser(NETWORKS[name]((4, 2), 3, np.random.default_rng(0), **SMALL[name]), ALPHA_BAR)
    x_t, t, cond = random_batch()
    y = denoiser(x_t.astype(np.float32), t, cond.astype(np.float32))
    assert y.dtype == np.float32 and not y.needs_grad


@pytest.mark.parametrize("skip", [True, False])
def test_of_two_answers_the_first_is_the_noise_and_the_second_the_variance(skip):
    """eps from F as with one answer; v = (1 + second)/2, which is 1/2, between the two fixed variances, at 0."""
    x, t, cond = random_batch()
    alpha_bar = np.linspace(1, 0.1, 101)
    F, second = np.random.default_rng(0).standard_normal((2, *x.shape), np.float32)
    two = Denoiser(lambda *_: Tensor(np.concatenate([F, second], 2)), alpha_bar, skip, learned=True)
    one = Denoiser(lambda *_: Tensor(F), alpha_bar, skip)
    eps, v = two.with_variance(x, t, cond)
    np.testing.assert_array_equal(eps.data, one(x, t, cond).data)
    np.testing.assert_allclose(v.data, (1 + second) / 2, rtol=1e-6)
    assert one.with_variance(x, t, cond)[1] is None
