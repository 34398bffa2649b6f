"""The autograd is right: every operation has the value of its plain formula and the gradient of the complex step.

The complex step is exact to rounding: f'(x) = Im f(x + ih) / h for an analytic f, and with h = 1e-20 there is no
difference of near-equal numbers, as there is in a finite difference. Arrays are read-only while they are checked, so
an operation that changes its inputs, or a backward that changes the gradient it is given, raises.
"""
import gc
import inspect
import operator
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidiff import layers as L
from minidiff import tensor as T
from minidiff.tensor import Tape, Tensor

few = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
TOLERANCE = 1e-14  # of the largest entry; the worst seen in 400 examples of each operation is 2e-15
NORM_TOLERANCE = 1e-11  # 2e-12 seen: where all of a group is nearly equal, rounding grows by up to 1/eps = 1e5


# ---- every operation: the function, its plain formula, and shapes of its inputs -----------------------------------

def silu_by_definition(x):
    return x / (1 + np.exp(-x))


def conv1d_by_loops(x, W, b):
    (H, B, I), (K, _, O) = x.shape, W.shape
    y = np.zeros((H, B, O), x.dtype)
    for t, n, o in np.ndindex(H, B, O):
        y[t, n, o] = b[o]
        for j in range(K):
            if 0 <= t + j - K // 2 < H:
                for i in range(I):
                    y[t, n, o] += x[t + j - K // 2, n, i] * W[j, i, o]
    return y


def normalised(x, eps=1e-5):
    """(x - mean) / sqrt(var + eps) over the whole of x. (np.var is not analytic: it takes |x|^2.)"""
    return (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + eps)


def layernorm_by_definition(x, gain, bias):
    y = np.empty_like(x)
    for i in np.ndindex(x.shape[:-1]):
        y[i] = normalised(x[i]) * gain + bias
    return y


def groupnorm_by_definition(x, gain, bias, groups):
    y = np.empty_like(x)
    for sample in range(x.shape[1]):
        for channels in np.split(np.arange(x.shape[2]), groups):
            y[:, sample, channels] = normalised(x[:, sample, channels])
    return y * gain + bias


shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)
pairs = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3).map(lambda s: s.input_shapes)
sizes = st.integers(1, 3)


@st.composite
def sum_(draw):
    shape = draw(shapes)
    axes = [st.none(), hnp.valid_tuple_axes(len(shape))] + [st.integers(-len(shape), len(shape) - 1)] * (shape != ())
    axis, keepdims = draw(st.one_of(axes)), draw(st.booleans())
    return lambda x: T.sum(x, axis, keepdims), lambda x: np.sum(x, axis=axis, keepdims=keepdims), [shape]


@st.composite
def reshape(draw):
    shape = draw(shapes)
    to = draw(st.permutations(shape) | st.just((-1,)) | st.just((1, *shape, 1)))
    return lambda x: T.reshape(x, *to), lambda x: np.reshape(x, to), [shape]


@st.composite
def swapaxes(draw):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=4))
    i, j = draw(st.tuples(*[st.integers(-len(shape), len(shape) - 1)] * 2))
    return lambda x: T.swapaxes(x, i, j), lambda x: np.swapaxes(x, i, j), [shape]


@st.composite
def getitem(draw):
    shape = draw(shapes)
    index = draw(hnp.basic_indices(shape, allow_newaxis=True))
    return lambda x: T.getitem(x, index), lambda x: x[index], [shape]


@st.composite
def concat(draw):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    joined = [list(shape) for _ in range(draw(sizes))]
    for s in joined:
        s[axis] = draw(sizes)
    return lambda *xs: T.concat(xs, axis), lambda *xs: np.concatenate(xs, axis), joined


@st.composite
def linear(draw, dims):
    *before, I, O = draw(st.lists(sizes, min_size=dims + 1, max_size=dims + 1))
    return L.linear, lambda x, W, b: np.einsum("...i,io->...o", x, W) + b, [(*before, I), (I, O), (O,)]


@st.composite
def conv1d(draw, H, K):
    H, K, B, I, O = draw(st.tuples(H, K, sizes, sizes, sizes))
    return L.conv1d, conv1d_by_loops, [(H, B, I), (K, I, O), (O,)]


@st.composite
def layernorm(draw):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=5))
    return L.layernorm, layernorm_by_definition, [shape, shape[-1:], shape[-1:]]


@st.composite
def groupnorm(draw, per_sample):
    H, B, groups, of = draw(st.tuples(sizes, sizes, sizes, sizes))
    gain = (B, groups * of) if per_sample else (groups * of,)
    return (lambda *a: L.groupnorm(*a, groups)), (lambda *a: groupnorm_by_definition(*a, groups)), \
        [(H, B, groups * of), gain, gain]


@st.composite
def mse(draw):
    pair = draw(pairs)
    error = np.broadcast_shapes(*pair)
    shape = draw(st.sampled_from([(), error, error[:1] + (1,) * (len(error) - 1)]))
    w = np.linspace(0.5, 2, int(np.prod(shape))).reshape(shape)
    return (lambda p, t: L.mse(p, t, w.astype(p.dtype) if w.ndim else 0.7),
            lambda p, t: ((w if w.ndim else 0.7) * (p - t) ** 2).mean(), pair)


CASES = {
    "add": pairs.map(lambda s: (T.add, np.add, s)),
    "subtract": pairs.map(lambda s: (T.subtract, np.subtract, s)),
    "multiply": pairs.map(lambda s: (T.multiply, np.multiply, s)),
    "divide": pairs.map(lambda s: (T.divide, np.divide, s)),
    "exp": shapes.map(lambda s: (T.exp, np.exp, [s])),
    "log": shapes.map(lambda s: (T.log, np.log, [s])),
    "sqrt": shapes.map(lambda s: (T.sqrt, np.sqrt, [s])),
    "clip": shapes.map(lambda s: (lambda x: T.clip(x, -1.2, 1.1), lambda x: np.clip(x, -1.2, 1.1), [s])),
    "silu": shapes.map(lambda s: (T.silu, silu_by_definition, [s])),
    "sum": sum_(), "reshape": reshape(), "swapaxes": swapaxes(), "getitem": getitem(), "concat": concat(),
    "linear, one x": linear(1), "linear, rows of x": linear(2), "linear, in 3-D": linear(3),
    "conv1d": conv1d(st.integers(1, 6), st.sampled_from([1, 3, 5])),
    "conv1d, kernel wider than H": conv1d(st.integers(1, 3), st.sampled_from([5, 7, 9])),
    "layernorm": layernorm(),
    "groupnorm, one gain": groupnorm(False), "groupnorm, gains per sample": groupnorm(True),
    "mse": mse(),
}
every_operation = pytest.mark.parametrize("name", CASES)


def some_arrays(name, shapes, seed):
    """Numbers between 0.5 and 2 in size, so that nothing is divided by almost nothing; positive for log and sqrt."""
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(0.5, 2, s) * (1 if name in ("log", "sqrt") else rng.choice([-1, 1], s)) for s in shapes]
    return read_only(arrays)


def read_only(arrays):
    arrays = [np.asarray(a) for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    return arrays


def assert_close(got, want, tolerance=TOLERANCE):
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0) <= tolerance * np.abs(want).max(initial=1)


def gradients(f, arrays, g, needed=None):
    """d(f . g)/dx for each x by the tape; only those numbered in `needed` say that they need it (default: all)."""
    inputs = [Tensor(a, needs_grad=needed is None or k in needed) for k, a in enumerate(arrays)]
    with Tape() as tape:
        result = f(*inputs)
    tape.backward(result, g)
    return [x.grad for x in inputs]


def complex_step(f, arrays, k, g, h=1e-20):
    """d(f . g)/dx for the k-th of the arrays, entry by entry."""
    gradient = np.empty(arrays[k].shape)
    for i in np.ndindex(gradient.shape):
        moved = [a.astype(complex) for a in arrays]
        moved[k][i] += 1j * h
        gradient[i] = (g * f(*map(Tensor, moved)).data.imag).sum() / h
    return gradient


def tolerance(name):
    return NORM_TOLERANCE if "norm" in name else TOLERANCE


def check_gradients(f, arrays, rng, tolerance=TOLERANCE):
    g, = read_only([rng.standard_normal(f(*map(Tensor, arrays)).shape)])
    together = gradients(f, arrays, g)
    for k, got in enumerate(together):
        assert_close(got, complex_step(f, arrays, k, g), tolerance)
        alone = gradients(f, arrays, g, needed=[k])
        assert [a is None for a in alone] == [i != k for i in range(len(arrays))]
        assert_close(alone[k], got)


def test_the_table_of_checks_knows_every_public_operation():
    public = {name for module in (T, L) for name, f in inspect.getmembers(module, inspect.isfunction)
              if f.__module__ == module.__name__ and not name.startswith("_")}
    helpers = {"tensor", "record", "mismatch", "elementwise"}  # what operations are made with
    assert {name.split(",")[0] for name in CASES} == public - helpers


@every_operation
@few
@given(st.data(), seeds)
def test_every_operation_has_the_value_of_its_plain_formula(name, data, seed):
    f, plain, shapes = data.draw(CASES[name])
    real = some_arrays(name, shapes, seed)
    for arrays in real, [a + 0.1j * b for a, b in zip(real, some_arrays(name, shapes, seed + 1))]:  # it is analytic
        assert_close(f(*map(Tensor, arrays)).data, np.asarray(plain(*arrays)), tolerance(name))


@every_operation
@few
@given(st.data(), seeds)
def test_every_operation_has_the_gradient_of_the_complex_step(name, data, seed):
    f, _, shapes = data.draw(CASES[name])
    check_gradients(f, some_arrays(name, shapes, seed), np.random.default_rng(seed), tolerance(name))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_operation
@few
@given(st.data(), seeds)
def test_every_operation_keeps_the_precision_of_its_inputs(name, dtype, data, seed):
    f, _, shapes = data.draw(CASES[name])
    arrays = [a.astype(dtype) for a in some_arrays(name, shapes, seed)]
    result = f(*map(Tensor, arrays))
    assert result.dtype == dtype
    assert {x.dtype for x in gradients(f, arrays, np.ones(result.shape))} == {np.dtype(dtype)}


NUMBERS = 3, 2.5, np.float32(1.5), np.float64(0.7), np.array([[0.5], [-2.0]])


@pytest.mark.parametrize("number", NUMBERS, ids=str)
@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_operators_take_numbers_and_arrays_on_either_side(op, number):
    x, = some_arrays("", [(2, 3)], 0)
    for f in (lambda a: op(a, number)), (lambda a: op(number, a)):
        assert_close(f(Tensor(x)).data, f(x))
        check_gradients(f, [x], np.random.default_rng(0))
        if np.isscalar(number):
            assert f(Tensor(x.astype(np.float32))).dtype == np.float32 and f(Tensor(x)).dtype == np.float64


def test_operators_join_tensors():
    a, b = some_arrays("", [(2, 3), (3,)], 0)
    for f in operator.add, operator.sub, operator.mul, operator.truediv, (lambda a, b: -a * b[1:2]):
        assert_close(f(Tensor(a), Tensor(b)).data, f(a, b))
        check_gradients(f, [a, b], np.random.default_rng(0))


def test_silu_does_not_overflow():
    x = np.array([-1e4, -100, 0, 100, 1e4], np.float32)
    with np.errstate(all="raise"):
        assert_close(T.silu(Tensor(x)).data, np.array([0, 0, 0, 100, 1e4], np.float32), 1e-6)
        assert_close(gradients(T.silu, [x], np.ones(5))[0], np.array([0, 0, 0.5, 1, 1], np.float32), 1e-6)


def test_convolution_weighs_the_step_before_with_the_first_tap():
    x = np.arange(1.0, 5).reshape(4, 1, 1)
    for tap, shifted in enumerate(([0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 0])):
        W = np.eye(3)[tap].reshape(3, 1, 1)
        assert L.conv1d(Tensor(x), Tensor(W), Tensor(np.zeros(1))).data.ravel().tolist() == shifted


@pytest.mark.parametrize("name, f, shapes", [
    ("add", T.add, [(2, 3), (2,)]),
    ("multiply", T.multiply, [(2, 3), (3, 2)]),
    ("divide", T.divide, [(4,), (2, 3)]),
    ("mse", L.mse, [(2, 3), (2, 2)]),
    ("reshape", lambda x, _: T.reshape(x, 4, 2), [(2, 3), (4, 2)]),
    ("concat", lambda *xs: T.concat(xs), [(2, 3), (3, 3)]),
    ("concat", lambda *xs: T.concat(xs, 0), [(2, 3), (2,)]),
    ("linear", L.linear, [(5, 3), (2, 4), (4,)]),
    ("linear", L.linear, [(5, 3), (3, 4), (3,)]),
    ("conv1d", L.conv1d, [(5, 2, 3), (3, 2, 4), (4,)]),
    ("conv1d", L.conv1d, [(5, 2, 3), (3, 3, 4), (3,)]),
    ("conv1d", L.conv1d, [(5, 2, 3), (2, 3, 4), (4,)]),  # no middle tap
    ("conv1d", L.conv1d, [(5, 3), (3, 3, 4), (4,)]),
    ("layernorm", L.layernorm, [(2, 3), (2,), (2,)]),
    ("layernorm", L.layernorm, [(2, 3), (3,), (1,)]),
    ("groupnorm", lambda *a: L.groupnorm(*a, 3), [(5, 2, 4), (4,), (4,)]),
    ("groupnorm", lambda *a: L.groupnorm(*a, 2), [(5, 2, 4), (5, 4), (5, 4)]),
    ("groupnorm", lambda *a: L.groupnorm(*a, 2), [(5, 2, 4), (2, 4), (4,)]),
    ("groupnorm", lambda *a: L.groupnorm(*a, 2), [(5, 4), (4,), (4,)]),
])
def test_shapes_that_do_not_fit_are_named(name, f, shapes):
    with pytest.raises(ValueError) as error:
        f(*[Tensor(np.ones(s)) for s in shapes])
    assert str(error.value).startswith(name) and all(str(s) in str(error.value) for s in shapes)


# ---- the tape -----------------------------------------------------------------------------------------------------

def leaf(*numbers):
    return Tensor(np.array(numbers), needs_grad=True)


any_step = st.tuples(st.sampled_from([T.add, T.multiply, T.divide, lambda a, b: T.silu(a)]), seeds, seeds)


@settings(few, max_examples=100)
@given(st.lists(any_step, min_size=1, max_size=8), seeds)
def test_any_graph_sums_over_all_of_its_paths(steps, seed):
    """A node may be used often (even as both operands), paths part and meet, and some lead nowhere."""
    def f(*inputs):
        nodes = list(inputs)
        for op, i, j in steps:
            nodes.append(op(nodes[i % len(nodes)], nodes[j % len(nodes)]))
        return nodes[-1]

    rng = np.random.default_rng(seed)
    arrays = read_only([rng.uniform(0.5, 1, 2) for _ in range(3)])
    g, = read_only([rng.standard_normal(2)])
    for k, got in enumerate(gradients(f, arrays, g)):
        assert_close(np.zeros(2) if got is None else got, complex_step(f, arrays, k, g))


def test_two_paths_that_share_one_gradient_do_not_disturb_each_other():
    x, y, g = leaf(1.0), leaf(2.0), np.array([1.0])
    with Tape() as tape:
        z = x + y + x  # g reaches x, and then x + y, as one and the same array
    tape.backward(z, g)
    assert (x.grad, y.grad, g) == (2, 1, 1)


def test_an_input_that_the_result_does_not_depend_on_gets_no_gradient():
    x, unused, aside = leaf(2.0), leaf(3.0), leaf(4.0)
    with Tape() as tape:
        y = x * x
        y * aside  # computed, but it does not lead to y
    tape.backward(y)
    assert x.grad == 4 and unused.grad is None and aside.grad is None


def test_gradients_add_up_over_two_backward_calls():
    x, kept = leaf(3.0), []
    for factor in 2, 5:
        with Tape() as tape:
            y = x * factor
        tape.backward(y)
        kept.append(x.grad)
    assert x.grad == 7 and kept[0] == 2  # added to, but not in place


def test_the_gradient_of_the_result_is_one_unless_given():
    x = leaf(1.0, 2.0, 3.0)
    with Tape() as tape:
        y = x * x
    tape.backward(y)
    assert x.grad.tolist() == [2, 4, 6]


def test_only_leaves_keep_a_gradient():
    x = leaf(1.0)
    with Tape() as tape:
        middle = T.exp(x)
        y = middle * 2
    tape.backward(y)
    assert x.grad is not None and middle.grad is None and y.grad is None


def test_a_chain_of_5000_operations_needs_no_recursion():
    x = leaf(1.0)
    with Tape() as tape:
        y = x
        for _ in range(5_000):
            y = y * 1.0001
    tape.backward(y)
    assert abs(x.grad[0] / 1.0001**5_000 - 1) < 1e-11


def test_the_innermost_open_tape_records():
    x = leaf(3.0)
    with Tape() as outer:
        y = x * 2
        with Tape() as inner:
            z = x * 5
        y = y * x
    inner.backward(z)
    assert x.grad == 5
    outer.backward(y)
    assert x.grad == 5 + 4 * 3


def test_a_tape_is_closed_by_an_error_too():
    x = leaf(1.0)
    with pytest.raises(ZeroDivisionError), Tape():
        1 / 0
    assert not (x * x).needs_grad


def test_each_thread_has_its_own_tape():
    turn = threading.Barrier(2)

    def derivative_of_cube(number):
        x = leaf(number)
        with Tape() as tape:
            y = x
            for _ in range(2):
                turn.wait(10)  # both tapes are open
                y = y * x
            turn.wait(10)
        tape.backward(y)
        return x.grad[0]

    x = leaf(1.0)
    with ThreadPoolExecutor(2) as pool, Tape():
        assert list(pool.map(derivative_of_cube, [2.0, 3.0])) == [12, 27]
        assert not pool.submit(lambda: (x * x).needs_grad).result() and (x * x).needs_grad


def test_nothing_is_recorded_outside_a_tape_or_for_inputs_that_need_no_gradient():
    x, constant = leaf(1.0), Tensor(np.ones(1))
    assert not (x * x).needs_grad
    with Tape() as tape:
        pending = weakref.ref(T.exp(constant).data)
        assert pending() is None and not (constant * 2).needs_grad
    for result in x * x, constant * 2:
        with pytest.raises(ValueError, match="backward"):
            tape.backward(result)
    assert x.grad is None and constant.grad is None


def test_backward_frees_what_has_served():
    x = leaf(1.0, 2.0)
    with Tape() as tape:
        middle = T.exp(x)
        y = T.sum(middle)
    served = weakref.ref(middle.data)
    del middle
    assert served() is not None
    tape.backward(y)
    gc.collect()
    assert served() is None and tape is not None
