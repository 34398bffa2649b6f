"""The denoisers are what their docstrings say, and treat each sample of a batch alone.

Networks are rebuilt in float64 with random weights everywhere (a fresh network has zeros that would
hide mistakes), and compared with plain formulas and with the complex step (see test_autograd.py).
"""
from minidiff import demos, nn
from minidiff.diffusion import cosine_schedule
from minidiff.layers import mse
from minidiff.nn import EMBEDDING, MLP, NETWORKS, ConvNet, Denoiser, time_embedding
from minidiff.pusht.features import PUSHT
from minidiff.tensor import Tape, Tensor, constant
from minidiff.training import GROUPS, Config, Trainer, build

import copy
import math
import pickle

import laws
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

few = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)
both_networks = pytest.mark.parametrize("name", NETWORKS)
with_and_without_preconditioning = pytest.mark.parametrize("precondition", [True, False])
SMALL = {"mlp": {"width": 6, "blocks": 2},
         "conv": {"width": 6, "blocks": 2, "kernel": 3, "groups": 3, "hidden": 5}}
ALPHA_BAR = cosine_schedule(20).alpha_bar


def set_theta(net, theta):
    """Give the network these parameters, in their precision."""
    net.theta = theta
    start = 0
    for p in net.params.values():
        end = start + p.data.size
        p.data = theta[start:end].reshape(p.shape)
        start = end
    return net


def fresh_network(name, seed=0):
    return NETWORKS[name]((4, 2), 3, np.random.default_rng(seed), **SMALL[name])


def random_network(name, x_shape=(4, 2), cond_dim=3, seed=0):
    rng = np.random.default_rng(seed)
    net = NETWORKS[name](x_shape, cond_dim, rng, **SMALL[name])
    return set_theta(net, net.theta + rng.normal(0, 0.3, net.theta.shape))


def random_batch(B=3, x_shape=(4, 2), cond_dim=3, seed=0):
    """-> x_t, t, cond."""
    rng = np.random.default_rng(seed)
    x_t = rng.standard_normal((B, *x_shape))
    t = rng.integers(1, len(ALPHA_BAR), B)
    return x_t, t, rng.standard_normal((B, cond_dim))


# ---- against plain formulas ----------------------------------------------------------------------

def silu(x):
    return x / (1 + np.exp(-x))


def plain_mlp(net, x, embedding, cond, blocks):
    p = {name: tensor.data for name, tensor in net.params.items()}
    h = np.concatenate([x.reshape(len(x), -1), embedding, cond], 1) @ p["in.W"]
    for i in range(blocks + 1):
        r = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-5)
        r = silu(r @ p[f"{i}.1.W"]) @ p[f"{i}.2.W"]
        h = h + r if i < blocks else r
    return h.reshape(x.shape)


def plain_convnet(net, x, embedding, cond, blocks):
    """Here arrays are (B, H, C), and a convolution looks at each step of a padded chunk."""
    p = {name: tensor.data for name, tensor in net.params.items()}
    B, H, _ = x.shape

    def conv(x, name):
        W = p[name + ".W"]
        K = len(W)
        padded = np.pad(x, ((0, 0), (K // 2, K // 2), (0, 0)))
        steps = [np.tensordot(padded[:, t:t + K], W, 2) for t in range(H)]
        return np.stack(steps, 1) + p[name + ".b"]

    def norm(x, gain, bias):
        x = x.reshape(B, H, net.groups, -1)
        x = (x - x.mean((1, 3), keepdims=True)) / np.sqrt(x.var((1, 3), keepdims=True) + 1e-5)
        return x.reshape(B, H, -1) * gain + bias

    context = silu(np.concatenate([embedding, cond], 1) @ p["context.W"] + p["context.b"])
    h = conv(x, "in") + (context @ p["start.W"] + p["start.b"]).reshape(B, H, -1)
    for i in range(blocks):
        film = context @ p[f"{i}.film.W"] + p[f"{i}.film.b"]
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
    y = net(x, time_embedding(t), cond)
    expected = PLAIN[name](net, x, time_embedding(t), cond, net.blocks)
    assert y.shape == (B, H, D)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-9)


@both_networks
def test_blocks_begin_as_the_identity(name):
    net = fresh_network(name)
    set_theta(net, net.theta.astype(float))
    x, t, cond = random_batch()
    y = net(x, time_embedding(t), cond)
    if name == "mlp":  # the head is its last block
        for part in "1.W", "2.W":
            net.params[f"0.{part}"] = net.params[f"{net.blocks}.{part}"]
    without = PLAIN[name](net, x, time_embedding(t), cond, blocks=0)
    np.testing.assert_allclose(y, without, rtol=1e-10)


def test_the_context_enters_the_convnet_by_the_start_and_by_film():
    net = random_network("conv")
    ways_in = ["start.W", *(f"{i}.film.W" for i in range(net.blocks))]
    weights = {way: net.params[way].data.copy() for way in ways_in}
    x, t, cond = random_batch(2)
    x[1] = x[0]  # two samples that differ by t and cond alone

    def difference(*open_ways):
        for way in ways_in:
            net.params[way].data[:] = weights[way] if way in open_ways else 0
        y = net(x, time_embedding(t), cond)
        return np.abs(y[0] - y[1]).max()

    assert difference() < 1e-12
    for way in ways_in:
        assert difference(way) > 1e-3


def test_away_from_the_ends_the_convnet_knows_no_place_but_by_its_start():
    net = random_network("conv", (60, 2))
    net.params["start.W"].data[:] = 0
    net.params["start.b"].data[:] = 0
    bump = np.random.default_rng(0).standard_normal((1, 4, 2))
    x = np.zeros((1, 60, 2))
    x[:, 24:28] = bump
    shifted = np.zeros((1, 60, 2))
    shifted[:, 33:37] = bump
    _, t, cond = random_batch(1)
    y = net(x, time_embedding(t), cond)
    y_shifted = net(shifted, time_embedding(t), cond)
    np.testing.assert_allclose(y_shifted[:, 19:50], y[:, 10:41], rtol=1e-9, atol=1e-9)
    assert np.abs(y[:, 10:41] - y[:, 10]).max() > 0.1  # and there is something to see


# ---- parameters ----------------------------------------------------------------------------------

@both_networks
def test_theta_is_one_array_and_the_parameters_are_views_into_it(name):
    net = fresh_network(name)
    assert net.theta.dtype == np.float32 and net.theta.ndim == 1
    net.theta[:] = np.arange(net.theta.size)
    joined = np.concatenate([p.data.ravel() for p in net.params.values()])
    assert joined.tolist() == net.theta.tolist()
    for p in net.params.values():
        assert isinstance(p, Tensor) and np.shares_memory(p.data, net.theta)

    net = fresh_network(name)
    x, t, cond = random_batch()
    before = net(x, time_embedding(t), cond)
    net.theta += np.random.default_rng(1).standard_normal(net.theta.size, dtype=np.float32)
    assert not np.allclose(net(x, time_embedding(t), cond), before)


@given(H=sizes, D=sizes, F=sizes, width=sizes, blocks=st.integers(0, 3), outputs=st.integers(1, 2),
       kernel=st.sampled_from([1, 3, 5]), hidden=sizes)
@few
def test_the_number_of_parameters(H, D, F, width, blocks, outputs, kernel, hidden):
    rng = np.random.default_rng(0)
    w = width
    context = EMBEDDING + F
    out = outputs * D

    first = (H * D + context) * w
    block = 2 * w * w
    head = w * w + w * H * out
    mlp = MLP((H, D), F, rng, w, blocks, outputs)
    assert mlp.theta.size == first + blocks * block + head

    way_in = (context + 1) * hidden + (hidden + 1) * H * w + kernel * D * w + w
    block = (hidden + 1) * 4 * w + 2 * (kernel * w * w + w)  # FiLM, two convolutions
    way_out = 2 * w + w * out + out
    conv = ConvNet((H, D), F, rng, w, blocks, outputs, kernel, 1, hidden)
    assert conv.theta.size == way_in + blocks * block + way_out


def test_a_convnet_sees_five_steps_and_norms_groups_that_divide_its_width():
    conv = ConvNet((4, 2), 3, np.random.default_rng(0), 16, 1)
    assert conv.params["in.W"].shape == (5, 2, 16) and conv.groups == GROUPS
    assert conv.params["context.W"].shape == (EMBEDDING + 3, 256)


def test_a_network_has_at_most_so_many_parameters(monkeypatch):
    size = MLP((4, 2), 3, np.random.default_rng(0), 6, 1).theta.size
    monkeypatch.setattr(nn, "MOST", size)
    MLP((4, 2), 3, np.random.default_rng(0), 6, 1)
    with pytest.raises(ValueError, match=f"a network of {size + 1} parameters is too large"):
        nn.parameters({"W": (size,), "b": (1,)}, np.random.default_rng(0))


@both_networks
def test_initial_weights_have_variance_1_over_fan_in_the_rest_is_1_or_0(name):
    _, eps_theta = build(Config(net=name), 2, 20, np.random.default_rng(0))
    net = eps_theta.net  # as wide as it is used
    for key, p in net.params.items():
        head = f"{net.blocks}.2.W"  # of the MLP
        starts_at_zero = key.endswith(("film.W", "2.W")) and key != head
        if key.endswith("W") and not starts_at_zero:
            z = p.data * np.sqrt(np.prod(p.shape[:-1]))
            laws.assert_close(z.mean(), 0, 1 / np.sqrt(z.size))
            laws.assert_close(z.var(), 1, np.sqrt(2 / z.size))
            assert np.abs(z).max() < 8
        elif key.endswith("gain"):
            assert (p.data == 1).all()
        else:
            assert (p.data == 0).all()


@both_networks
def test_the_same_seed_gives_the_same_weights(name):
    first, again, other = (fresh_network(name, seed).theta for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any()


# ---- the denoiser --------------------------------------------------------------------------------

def test_the_time_embedding_is_its_formula():
    t = [0, 1, 7, 100, 999]
    w = [10 ** (-4 * k / 31) for k in range(32)]  # from 1 down to 1e-4
    plain = []
    for n in t:
        sines = [math.sin(w_k * n) for w_k in w]
        cosines = [math.cos(w_k * n) for w_k in w]
        plain.append(sines + cosines)
    embedding = time_embedding(t)
    assert embedding.shape == (5, EMBEDDING) == (5, 64) and embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, plain, rtol=0, atol=1e-7)


def in_float64(denoiser):
    """The same denoiser with its coefficients in float64, from the docstring, as (T+1, 1, 1)."""
    ab = ALPHA_BAR[:, None, None]
    exact = {"signal": ab**0.5, "noise": (1 - ab) ** 0.5, "c_in": ab**0.5 / (ab + 4 * (1 - ab))}
    for name, table in exact.items():
        np.testing.assert_allclose(getattr(denoiser, name), table, rtol=1e-7)
        setattr(denoiser, name, table)
    return denoiser


def spy(F, inputs):
    """A network that notes what it is called with, and gives F."""
    def net(*arguments):
        inputs.extend(arguments)
        return F
    return net


@few
@given(seeds)
def test_the_error_of_eps_over_alpha_bar_is_the_error_of_v(seed):
    """||eps - eps_theta||^2 / alpha_bar = ||v - F||^2.

    v = sqrt(alpha_bar) eps - sqrt(1-alpha_bar) x_0 (Salimans & Ho 2022).
    """
    rng = np.random.default_rng(seed)
    x0, t, cond = random_batch(seed=seed)
    eps = rng.standard_normal(x0.shape)
    F = rng.standard_normal(x0.shape)
    ab = ALPHA_BAR[t][:, None, None]
    x_t = np.sqrt(ab) * x0 + np.sqrt(1 - ab) * eps
    eps_theta = in_float64(Denoiser(spy(F, []), ALPHA_BAR))(x_t, t, cond)
    v = np.sqrt(ab) * eps - np.sqrt(1 - ab) * x0
    np.testing.assert_allclose((eps - eps_theta) ** 2 / ab, (v - F) ** 2, rtol=1e-9, atol=1e-12)


def test_the_network_sees_the_best_linear_guess_of_x0_the_time_and_cond():
    """c_in = Cov(x_0, x_t) / Var(x_t), with a standard deviation of x_0 of 1/2."""
    x_t, t, cond = random_batch()
    inputs = []
    in_float64(Denoiser(spy(0 * x_t, inputs), ALPHA_BAR))(x_t, t, cond)
    ab = ALPHA_BAR[t][:, None, None]
    covariance = np.sqrt(ab) * 0.5**2
    variance = ab * 0.5**2 + (1 - ab)
    x, embedding, shown = inputs
    np.testing.assert_allclose(x, covariance / variance * x_t, rtol=1e-12)
    assert (embedding == time_embedding(t)).all() and shown is cond


def test_without_preconditioning_the_network_is_the_denoiser():
    x_t, t, cond = random_batch()
    inputs = []
    F = np.random.default_rng(1).standard_normal((3, 4, 2))
    eps_theta = Denoiser(spy(F, inputs), ALPHA_BAR, precondition=False)
    assert (eps_theta(x_t, t, cond) == F).all()
    x, embedding, shown = inputs
    assert (x == x_t).all()
    assert (embedding == time_embedding(t)).all() and shown is cond


@both_networks
@with_and_without_preconditioning
@settings(few, max_examples=3)
@given(seeds)
def test_the_gradient_of_the_loss_is_that_of_the_complex_step(name, precondition, seed):
    """By every parameter, by x_t and by cond, each along a random direction."""
    net = random_network(name, seed=seed)
    denoiser = Denoiser(net, ALPHA_BAR, precondition)
    x_t, t, cond = random_batch(seed=seed)
    rng = np.random.default_rng(seed)
    eps = rng.standard_normal(x_t.shape)
    weight = rng.uniform(0.5, 2, (len(t), 1, 1))

    def loss(theta, x_t, cond):
        set_theta(net, theta)
        return mse(denoiser(x_t, t, cond), eps.astype(theta.dtype), weight)

    theta = net.theta
    x_leaf = Tensor(x_t)
    cond_leaf = Tensor(cond)
    with Tape() as tape:
        value = loss(theta, x_leaf, cond_leaf)
    tape.backward(value)
    gradients = {key: p.grad for key, p in net.params.items()}
    gradients |= {"x_t": x_leaf.grad, "cond": cond_leaf.grad}

    h = 1e-20
    start = 0
    for key, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape)
        moved = {"theta": theta + 0j, "x_t": x_t + 0j, "cond": cond + 0j}
        if key in net.params:
            end = start + direction.size
            moved["theta"][start:end] += 1j * h * direction.ravel()
            start = end
        else:
            moved[key] += 1j * h * direction
        slope = loss(**moved).imag / h
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-10, atol=1e-12,
                                   err_msg=key)


@both_networks
@with_and_without_preconditioning
@few
@given(H=sizes, D=sizes, B=sizes, F=sizes, seed=seeds)
def test_what_a_sample_becomes_does_not_depend_on_its_batch(name, precondition, H, D, B, F, seed):
    denoiser = Denoiser(random_network(name, (H, D), F, seed), ALPHA_BAR, precondition)
    x_t, t, cond = random_batch(B, (H, D), F, seed)
    together = denoiser(x_t, t, cond)
    assert together.shape == (B, H, D)
    for i in range(B):
        alone = denoiser(x_t[i:i + 1], int(t[i]), cond[i:i + 1])
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-9, atol=1e-12)


@both_networks
@with_and_without_preconditioning
def test_one_t_is_the_same_t_for_every_sample(name, precondition):
    denoiser = Denoiser(random_network(name), ALPHA_BAR, precondition)
    x_t, _, cond = random_batch()
    for t in 1, len(ALPHA_BAR) - 1:
        eps_hat = denoiser(x_t, t, cond)
        assert (eps_hat == denoiser(x_t, np.full(3, t), cond)).all()
        assert (eps_hat != denoiser(x_t, 5, cond)).any()


@both_networks
def test_a_fresh_denoiser_works_in_float32_and_off_the_tape(name):
    denoiser = Denoiser(fresh_network(name), ALPHA_BAR)
    x_t, t, cond = random_batch()
    y = denoiser(x_t.astype(np.float32), t, cond.astype(np.float32))
    assert y.dtype == np.float32 and not isinstance(y, Tensor)


@with_and_without_preconditioning
def test_of_two_outputs_the_first_is_the_noise_the_second_the_variance(precondition):
    """eps from F as with one output; v = (1 + second)/2.

    So v is 1/2, between the two fixed variances, where the second output is 0.
    """
    x, t, cond = random_batch()
    alpha_bar = np.linspace(1, 0.1, 101)
    first, second = np.random.default_rng(0).standard_normal((2, *x.shape), np.float32)
    both = np.concatenate([first, second], 2)
    two = Denoiser(spy(both, []), alpha_bar, precondition, learned=True)
    one = Denoiser(spy(first, []), alpha_bar, precondition)
    eps_hat, v = two.with_variance(x, t, cond)
    np.testing.assert_array_equal(eps_hat, one(x, t, cond))
    np.testing.assert_allclose(v, (1 + second) / 2, rtol=1e-6)
    assert one.with_variance(x, t, cond)[1] is None


@both_networks
def test_a_network_with_two_outputs_gives_two_numbers_for_each(name):
    net = NETWORKS[name]((4, 2), 3, np.random.default_rng(0), outputs=2, **SMALL[name])
    x_t, t, cond = random_batch()
    eps_hat, v = Denoiser(net, ALPHA_BAR, learned=True).with_variance(x_t, t, cond)
    assert eps_hat.shape == v.shape == x_t.shape


@pytest.mark.parametrize("net", sorted(NETWORKS))
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy,
                                    lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copied_network_keeps_its_weights_and_its_parameters_together(net, copied):
    rng = np.random.default_rng(0)
    original = NETWORKS[net]((4, 2), 3, rng, 16, 1)
    for kind in Tensor, np.ndarray:  # the weights of a frozen network are arrays
        twin = copied(original)
        assert twin.theta.tobytes() == original.theta.tobytes()
        for name, param in twin.params.items():
            assert type(param) is kind and param.shape == original.params[name].shape
            for each in original, twin:
                assert np.shares_memory(constant(each.params[name]), each.theta), name
        before = constant(twin.params["in.W"]).copy()
        twin.theta += 1
        np.testing.assert_array_equal(constant(twin.params["in.W"]), before + 1)
        original.freeze()


def test_a_copied_trainer_goes_on_to_the_same_weights(arrays):
    data = demos.check(arrays, PUSHT)
    trainer = Trainer(Config(width=16, blocks=1, T=6, steps=12, batch=8), PUSHT, data)
    for _ in range(4):
        trainer.step()
    twins = [copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))]
    for run in (trainer, *twins):
        for _ in run:
            pass
    for twin in twins:
        assert twin.optimiser.theta is twin.net.theta
        assert twin.net.theta.tobytes() == trainer.net.theta.tobytes()
        assert twin.optimiser.ema.tobytes() == trainer.optimiser.ema.tobytes()
