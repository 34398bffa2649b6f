"""The autograd is right: values by the plain formula, gradients by the complex step.

The complex step is exact to rounding: f'(x) = Im f(x + ih) / h for an analytic f. With h = 1e-20 no
near-equal numbers are subtracted, as they are in a finite difference. Arrays are read-only while
they are checked, so an operation that changes its inputs, or a backward that changes the gradient
it is given, raises. Each fused layer is also compared with itself in elementary operations.
"""
from minidiff import layers as L
from minidiff import tensor as T
from minidiff.tensor import Tape, Tensor

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

few = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
TOLERANCE = 1e-14  # of the largest entry; the worst seen in 400 examples of each operation is 2e-15
# 2e-12 seen: where all of a group is nearly equal, rounding grows by up to 1/eps = 1e5
NORM_TOLERANCE = 1e-11


# ---- plain formulas ------------------------------------------------------------------------------

def silu_by_definition(x):
    return x / (1 + np.exp(-x))


def linear_by_einsum(x, W, b=0.0):
    return np.einsum("...i,io->...o", x, W) + b


def conv1d_by_loops(x, W, b):
    H, B, I = x.shape
    K, _, O = W.shape
    y = np.zeros((H, B, O), x.dtype)
    for t, n, o in np.ndindex(H, B, O):
        y[t, n, o] = b[o]
        for j in range(K):
            if 0 <= t + j - K // 2 < H:
                for i in range(I):
                    y[t, n, o] += x[t + j - K // 2, n, i] * W[j, i, o]
    return y


def rmsnorm_by_definition(x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def normalised(x, eps=1e-5):
    """(x - mean) / sqrt(var + eps) over all of x. (np.var is not analytic: it takes |x|^2.)"""
    return (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + eps)


def groupnorm_by_definition(x, gain, bias, groups):
    y = np.empty_like(x)
    for sample in range(x.shape[1]):
        for channels in np.split(np.arange(x.shape[2]), groups):
            y[:, sample, channels] = normalised(x[:, sample, channels])
    return y * gain + bias


# ---- each layer in the elementary operations of tensor.py ----------------------------------------

def elementary_linear(x, W, b=0.0):
    products = T.reshape(x, *x.shape, 1) * W  # (..., I, O)
    return T.sum(products, axis=-2) + b


def elementary_conv1d(x, W, b):
    H, B, I = x.shape
    nothing = np.zeros((len(W) // 2, B, I))
    padded = T.concat(nothing, x, nothing, axis=0)
    y = b
    for j in range(len(W)):
        y = y + elementary_linear(padded[j:j + H], W[j])
    return y


def elementary_rmsnorm(x):
    return x / T.sqrt(T.sum(x * x, -1, keepdims=True) * (1 / x.shape[-1]) + 1e-5)


def elementary_groupnorm(x, gain, bias, groups):
    H, B, C = x.shape
    n = H * C // groups
    x = T.reshape(x, H, B, groups, -1)
    centred = x - T.sum(x, (0, 3), keepdims=True) * (1 / n)
    variance = T.sum(centred * centred, (0, 3), keepdims=True) * (1 / n)
    return T.reshape(centred / T.sqrt(variance + 1e-5), H, B, C) * gain + bias


def elementary_mse(prediction, target, weight):
    error = prediction - target
    return T.sum(weight * error * error) * (1 / error.size)


# ---- every operation: the function, its plain formula, shapes of its inputs [, elementary] -------

shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)
sizes = st.integers(1, 3)
pairs = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)
pairs = pairs.map(lambda broadcast: broadcast.input_shapes)


@st.composite
def binary(draw, f, plain):
    return f, plain, draw(pairs)


@st.composite
def unary(draw, f, plain):
    return f, plain, [draw(shapes)]


@st.composite
def sum_(draw):
    shape = draw(shapes)
    axes = [st.none(), hnp.valid_tuple_axes(len(shape))]
    if shape:
        axes.append(st.integers(-len(shape), len(shape) - 1))
    axis = draw(st.one_of(axes))
    keepdims = draw(st.booleans())

    def plain(x):
        return np.sum(x, axis=axis, keepdims=keepdims)
    return lambda x: T.sum(x, axis, keepdims), plain, [shape]


@st.composite
def reshape(draw):
    shape = draw(shapes)
    to = draw(st.permutations(shape) | st.just((-1,)) | st.just((1, *shape, 1)))
    return lambda x: T.reshape(x, *to), lambda x: np.reshape(x, to), [shape]


@st.composite
def swapaxes(draw):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=4))
    axis = st.integers(-len(shape), len(shape) - 1)
    i, j = draw(axis), draw(axis)
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
    for one in joined:
        one[axis] = draw(sizes)
    return lambda *xs: T.concat(*xs, axis=axis), lambda *xs: np.concatenate(xs, axis), joined


@st.composite
def linear(draw, dims, bias=True):
    *before, I, O = draw(st.lists(sizes, min_size=dims + 1, max_size=dims + 1))
    inputs = [(*before, I), (I, O), (O,)]
    return L.linear, linear_by_einsum, inputs if bias else inputs[:2], elementary_linear


@st.composite
def conv1d(draw, H, K):
    H, K, B, I, O = draw(st.tuples(H, K, sizes, sizes, sizes))
    return L.conv1d, conv1d_by_loops, [(H, B, I), (K, I, O), (O,)], elementary_conv1d


@st.composite
def rmsnorm(draw):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=5))
    return L.rmsnorm, rmsnorm_by_definition, [shape], elementary_rmsnorm


@st.composite
def groupnorm(draw, per_sample):
    H, B, groups, of = draw(st.tuples(sizes, sizes, sizes, sizes))
    C = groups * of
    gain = (B, C) if per_sample else (C,)

    def in_groups(norm):
        return lambda x, gain, bias: norm(x, gain, bias, groups)
    return (in_groups(L.groupnorm), in_groups(groupnorm_by_definition), [(H, B, C), gain, gain],
            in_groups(elementary_groupnorm))


@st.composite
def mse(draw):
    pair = draw(pairs)
    error = np.broadcast_shapes(*pair)
    weight = 0.7
    if draw(st.booleans()):
        shape = draw(st.sampled_from([error, error[:1] + (1,) * (len(error) - 1)]))
        weight = np.linspace(0.5, 2, int(np.prod(shape))).reshape(shape)

    def in_precision_of(x):
        return weight if np.isscalar(weight) else weight.astype(x.dtype)

    def fused(prediction, target):
        return L.mse(prediction, target, in_precision_of(prediction))

    def plain(prediction, target):
        return (weight * (prediction - target) ** 2).mean()

    def elementary(prediction, target):
        return elementary_mse(prediction, target, in_precision_of(prediction))
    return fused, plain, pair, elementary


CASES = {
    "add": binary(T.add, np.add),
    "subtract": binary(T.subtract, np.subtract),
    "multiply": binary(T.multiply, np.multiply),
    "divide": binary(T.divide, np.divide),
    "exp": unary(T.exp, np.exp),
    "log": unary(T.log, np.log),
    "sqrt": unary(T.sqrt, np.sqrt),
    "clip": unary(lambda x: T.clip(x, -1.2, 1.1), lambda x: np.clip(x, -1.2, 1.1)),
    "silu": unary(T.silu, silu_by_definition),
    "sum": sum_(),
    "reshape": reshape(),
    "swapaxes": swapaxes(),
    "getitem": getitem(),
    "concat": concat(),
    "linear, one x": linear(1),
    "linear, rows of x": linear(2),
    "linear, in 3-D": linear(3),
    "linear, without b": linear(2, bias=False),
    "conv1d": conv1d(st.integers(1, 6), st.sampled_from([1, 3, 5])),
    "conv1d, kernel wider than H": conv1d(st.integers(1, 3), st.sampled_from([5, 7, 9])),
    "rmsnorm": rmsnorm(),
    "groupnorm, one gain": groupnorm(per_sample=False),
    "groupnorm, gains per sample": groupnorm(per_sample=True),
    "mse": mse(),
}
LAYERS = [name for name in CASES if hasattr(L, name.split(",")[0])]
every_operation = pytest.mark.parametrize("name", CASES)
every_layer = pytest.mark.parametrize("name", LAYERS)


def some_arrays(name, shapes, seed):
    """Numbers between 0.5 and 2 in size, so that nothing is divided by almost nothing.

    Positive for log and sqrt.
    """
    rng = np.random.default_rng(seed)
    arrays = []
    for shape in shapes:
        a = rng.uniform(0.5, 2, shape)
        if name not in ("log", "sqrt"):
            a = a * rng.choice([-1, 1], shape)
        arrays.append(a)
    return read_only(arrays)


def read_only(arrays):
    arrays = [np.asarray(a) for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    return arrays


def tensors(arrays):
    return [Tensor(a) for a in arrays]


def assert_close(got, want, tolerance=TOLERANCE):
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0) <= tolerance * np.abs(want).max(initial=1)


def gradients(f, inputs, g=None):
    """d(f . g)/dx by the tape for each Tensor x among the inputs."""
    with Tape() as tape:
        result = f(*inputs)
    tape.backward(result, g)
    return [x.grad for x in inputs if isinstance(x, Tensor)]


def complex_step(f, arrays, k, g, h=1e-20):
    """d(f . g)/dx for the k-th of the arrays, entry by entry."""
    gradient = np.empty(arrays[k].shape)
    for i in np.ndindex(gradient.shape):
        moved = [a.astype(complex) for a in arrays]
        moved[k][i] += 1j * h
        gradient[i] = (g * f(*moved).imag).sum() / h
    return gradient


def tolerance(name):
    return NORM_TOLERANCE if "groupnorm" in name else TOLERANCE


def random_gradient(f, arrays, seed):
    """A gradient of the shape of the result."""
    shape = f(*arrays).shape
    g, = read_only([np.random.default_rng(seed).standard_normal(shape)])
    return g


def check_gradients(f, arrays, seed, tolerance=TOLERANCE):
    g = random_gradient(f, arrays, seed)
    together = gradients(f, tensors(arrays), g)
    for k, got in enumerate(together):
        assert_close(got, complex_step(f, arrays, k, g), tolerance)
        alone, = gradients(f, [*arrays[:k], Tensor(arrays[k]), *arrays[k + 1:]], g)
        assert_close(alone, got)


# ---- what holds for every operation --------------------------------------------------------------

def test_the_table_of_checks_knows_every_public_operation():
    public = set()
    for module in (T, L):
        for name, f in inspect.getmembers(module, inspect.isfunction):
            if f.__module__ == module.__name__ and not name.startswith("_"):
                public.add(name)
    # what operations are made with, and what has a test of its own
    helpers = {"operation", "mismatch", "elementwise", "constant"}
    assert {name.split(",")[0] for name in CASES} == public - helpers


@every_operation
@few
@given(st.data(), seeds)
def test_every_operation_has_the_value_of_its_plain_formula(name, data, seed):
    f, plain, shapes, *_ = data.draw(CASES[name])
    real = some_arrays(name, shapes, seed)
    other = some_arrays(name, shapes, seed + 1)
    analytic = [a + 0.1j * b for a, b in zip(real, other)]
    for arrays in (real, analytic):
        assert_close(f(*arrays), np.asarray(plain(*arrays)), tolerance(name))


@every_operation
@few
@given(st.data(), seeds)
def test_an_operation_gives_a_tensor_only_from_a_tensor_on_a_tape(name, data, seed):
    f, _, shapes, *_ = data.draw(CASES[name])
    arrays = some_arrays(name, shapes, seed)
    off_tape = f(*tensors(arrays))
    with Tape():
        of_arrays = f(*arrays)
        of_tensors = f(*tensors(arrays))
    assert isinstance(of_tensors, Tensor)
    for result in off_tape, of_arrays:
        assert isinstance(result, (np.ndarray, np.floating))
        np.testing.assert_array_equal(result, of_tensors.data)


@every_operation
@few
@given(st.data(), seeds)
def test_every_operation_has_the_gradient_of_the_complex_step(name, data, seed):
    f, _, shapes, *_ = data.draw(CASES[name])
    check_gradients(f, some_arrays(name, shapes, seed), seed, tolerance(name))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_operation
@few
@given(st.data(), seeds)
def test_every_operation_keeps_the_precision_of_its_inputs(name, dtype, data, seed):
    f, _, shapes, *_ = data.draw(CASES[name])
    arrays = [a.astype(dtype) for a in some_arrays(name, shapes, seed)]
    with Tape():
        result = f(*tensors(arrays))
    assert result.dtype == dtype
    for gradient in gradients(f, tensors(arrays), np.ones(result.shape)):
        assert gradient.dtype == dtype


@every_layer
@few
@given(st.data(), seeds)
def test_every_layer_is_its_elementary_operations_fused(name, data, seed):
    """The same value, and the same gradient by each input."""
    fused, _, shapes, elementary = data.draw(CASES[name])
    arrays = some_arrays(name, shapes, seed)
    g = random_gradient(fused, arrays, seed)
    assert_close(fused(*arrays), elementary(*arrays), tolerance(name))
    both = [gradients(f, tensors(arrays), g) for f in (fused, elementary)]
    for got, want in zip(*both, strict=True):
        assert_close(got, want, tolerance(name))


NUMBERS = 3, 2.5, np.float32(1.5), np.float64(0.7), np.array([[0.5], [-2.0]])


@pytest.mark.parametrize("number", NUMBERS, ids=str)
@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_operators_take_numbers_and_arrays_on_either_side(op, number):
    x, = some_arrays("", [(2, 3)], 0)
    for f in (lambda a: op(a, number)), (lambda a: op(number, a)):
        assert_close(f(Tensor(x)), f(x))
        check_gradients(f, [x], 0)
        if np.isscalar(number):
            assert f(Tensor(x)).dtype == np.float64
            assert f(Tensor(x.astype(np.float32))).dtype == np.float32


def test_operators_join_tensors():
    a, b = some_arrays("", [(2, 3), (3,)], 0)
    for f in operator.add, operator.sub, operator.mul, operator.truediv, (lambda a, b: -a * b[1:2]):
        assert_close(f(Tensor(a), Tensor(b)), f(a, b))
        check_gradients(f, [a, b], 0)


def test_silu_does_not_overflow():
    x = np.array([-1e4, -100, 0, 100, 1e4], np.float32)
    with np.errstate(all="raise"):
        y = T.silu(x)
        slope, = gradients(T.silu, [Tensor(x)], np.ones(5))
    assert_close(y, np.array([0, 0, 0, 100, 1e4], np.float32), 1e-6)
    assert_close(slope, np.array([0, 0, 0.5, 1, 1], np.float32), 1e-6)


def test_convolution_weighs_the_step_before_with_the_first_tap():
    x = np.arange(1.0, 5).reshape(4, 1, 1)
    for tap, shifted in enumerate(([0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 0])):
        W = np.eye(3)[tap].reshape(3, 1, 1)
        y = L.conv1d(x, W, np.zeros(1))
        assert y.ravel().tolist() == shifted


@pytest.mark.parametrize("name, f, shapes", [
    ("add", T.add, [(2, 3), (2,)]),
    ("subtract", T.subtract, [(2, 3), (2,)]),
    ("multiply", T.multiply, [(2, 3), (3, 2)]),
    ("divide", T.divide, [(4,), (2, 3)]),
    ("mse", L.mse, [(2, 3), (2, 2)]),
    ("reshape", lambda x, _: T.reshape(x, 4, 2), [(2, 3), (4, 2)]),
    ("concat", T.concat, [(2, 3), (3, 3)]),
    ("concat", lambda *xs: T.concat(*xs, axis=0), [(2, 3), (2,)]),
    ("linear", L.linear, [(5, 3), (2, 4), (4,)]),
    ("linear", L.linear, [(5, 3), (3, 4), (3,)]),
    ("linear", L.linear, [(5, 3), (2, 4)]),
    ("conv1d", L.conv1d, [(5, 2, 3), (3, 2, 4), (4,)]),
    ("conv1d", L.conv1d, [(5, 2, 3), (3, 3, 4), (3,)]),
    ("conv1d", L.conv1d, [(5, 2, 3), (2, 3, 4), (4,)]),  # no middle tap
    ("conv1d", L.conv1d, [(5, 3), (3, 3, 4), (4,)]),
    ("groupnorm", lambda *a: L.groupnorm(*a, 3), [(5, 2, 4), (4,), (4,)]),
    ("groupnorm", lambda *a: L.groupnorm(*a, 2), [(5, 2, 4), (5, 4), (5, 4)]),
    ("groupnorm", lambda *a: L.groupnorm(*a, 2), [(5, 2, 4), (2, 4), (4,)]),
    ("groupnorm", lambda *a: L.groupnorm(*a, 2), [(5, 4), (4,), (4,)]),
])
def test_shapes_that_do_not_fit_are_named(name, f, shapes):
    with pytest.raises(ValueError) as error:
        f(*map(np.ones, shapes))
    message = str(error.value)
    assert message.startswith(name) and all(str(shape) in message for shape in shapes)


# ---- the tape ------------------------------------------------------------------------------------

def leaf(*numbers):
    return Tensor(np.array(numbers))


def first_through_silu(a, b):
    return T.silu(a)


operations = st.sampled_from([T.add, T.multiply, T.divide, first_through_silu])
any_step = st.tuples(operations, seeds, seeds)


@settings(few, max_examples=100)
@given(st.lists(any_step, min_size=1, max_size=8), seeds)
def test_any_graph_sums_over_all_of_its_paths(steps, seed):
    """A node may be used often (even as both operands), paths part and meet, some lead nowhere."""
    def f(*inputs):
        nodes = list(inputs)
        for op, i, j in steps:
            nodes.append(op(nodes[i % len(nodes)], nodes[j % len(nodes)]))
        return nodes[-1]

    rng = np.random.default_rng(seed)
    arrays = read_only([rng.uniform(0.5, 1, 2) for _ in range(3)])
    g, = read_only([rng.standard_normal(2)])
    for k, got in enumerate(gradients(f, tensors(arrays), g)):
        assert_close(np.zeros(2) if got is None else got, complex_step(f, arrays, k, g))


def test_two_paths_that_share_one_gradient_do_not_disturb_each_other():
    x = leaf(1.0)
    y = leaf(2.0)
    g = np.array([1.0])
    with Tape() as tape:
        z = x + y + x  # g reaches x, and then x + y, as one and the same array
    tape.backward(z, g)
    assert (x.grad, y.grad, g) == (2, 1, 1)


def test_an_input_that_the_result_does_not_depend_on_gets_no_gradient():
    x = leaf(2.0)
    unused = leaf(3.0)
    aside = leaf(4.0)
    with Tape() as tape:
        y = x * x
        y * aside  # computed, but it does not lead to y  # noqa: B018
    tape.backward(y)
    assert x.grad == 4 and unused.grad is None and aside.grad is None


def test_no_gradient_flows_through_a_constant():
    """The value stays: d/dx of x constant(x) is constant(x), where d/dx of x x is 2 x."""
    x = leaf(3.0)
    with Tape() as tape:
        middle = x * 2
        stopped = T.constant(middle)
        y = x * stopped
    assert stopped is middle.data is T.constant(stopped) and T.constant(2) == 2
    tape.backward(y)
    assert y.data == 18 and x.grad == 6


def test_gradients_add_up_over_two_backward_calls():
    x = leaf(3.0)
    kept = []
    for factor in 2, 5:
        with Tape() as tape:
            y = x * factor
        tape.backward(y)
        kept.append(x.grad)
    assert x.grad == 7 and kept[0] == 2  # added to, but not in place


def test_a_clip_stops_no_gradient_on_its_bounds():
    grad, = gradients(lambda x: T.clip(x, -1.0, 1.0), [leaf(-2.0, -1.0, 0.0, 1.0, 2.0)])
    assert grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_an_index_that_picks_twice_gets_both_gradients():
    grad, = gradients(lambda x: x[[0, 0, 2]], [leaf(1.0, 2.0, 3.0)], [1.0, 10.0, 100.0])
    assert grad.tolist() == [11.0, 0.0, 100.0]


@pytest.mark.parametrize("index", [
    1, slice(0, 2), (slice(None), 1), [0, 0], (np.array([1, 1]), np.array([2, 2])),
    np.array([[0, 2], [2, 2]]), np.array([True, False, True]), (Ellipsis, None), -1], ids=str)
def test_any_index_has_the_gradient_of_the_complex_step(index):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4))
    weight = rng.standard_normal(x[index].shape)
    got, = gradients(lambda x: x[index] * x[index], [Tensor(x)], weight)
    expected = complex_step(lambda x: x[index]**2, [x], 0, weight)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_integers_become_floats_and_other_things_are_refused():
    half = Tensor([1, 2, 3]) * 0.5
    assert half.tolist() == [0.5, 1.0, 1.5] and half.dtype == np.float64
    assert (np.array([1, 2]) * Tensor(np.float32([0.5, 0.25]))).tolist() == [0.5, 0.5]
    assert T.multiply(np.array([1, 2]), 0.5).tolist() == [0.5, 1.0]
    for integers in ([1, 2], [True, False], np.uint8([3])):
        assert Tensor(integers).dtype == np.float64
    for wrong in ("text", [None], np.array(["a"]), np.array([{}])):
        with pytest.raises(TypeError, match="a Tensor holds numbers, not"):
            Tensor(wrong)


def test_a_tape_is_read_once_and_only_for_what_it_recorded():
    x = Tensor(np.ones(3))
    with Tape() as tape:
        y = T.sum(x * x)
    with Tape() as other:
        z = T.sum(x * 2.0)
    with pytest.raises(ValueError, match="this tape has not recorded the result"):
        tape.backward(z)  # of another tape
    tape.backward(y)
    for wrong in (y, z):  # the tape has been read
        with pytest.raises(ValueError, match="this tape has not recorded the result"):
            tape.backward(wrong)
    assert x.grad.tolist() == [2.0, 2.0, 2.0]
    other.backward(z)
    assert x.grad.tolist() == [4.0, 4.0, 4.0]


@pytest.mark.parametrize("mean, spread", [(100, 0.01), (1000, 1.0), (-30, 0.1), (0, 1e-4)])
def test_groupnorm_is_right_for_large_means_in_float32(mean, spread):
    rng = np.random.default_rng(0)
    x = (mean + spread * rng.standard_normal((16, 4, 8))).astype(np.float32)
    g = rng.standard_normal(x.shape)
    results = []
    for dtype in (np.float32, np.float64):
        leaf = Tensor(x.astype(dtype))
        with Tape() as tape:
            y = L.groupnorm(leaf, np.ones(8, dtype), np.zeros(8, dtype), 2)
        tape.backward(y, g)
        results.append((y.data, leaf.grad))
    (y, grad), (exact, exact_grad) = results
    assert np.abs(y - exact).max() < 5e-3
    assert np.abs(grad - exact_grad).max() < 5e-3 * np.abs(exact_grad).max()


def test_the_gradient_of_the_result_is_one_unless_given():
    grad, = gradients(lambda x: x * x, [leaf(1.0, 2.0, 3.0)])
    assert grad.tolist() == [2, 4, 6]


def test_gradients_have_the_precision_of_what_they_are_of():
    """On the way and at its end, whatever a way back returns."""
    x = Tensor(np.ones(2, np.float32))
    met = []

    def gradient(g):
        met.append(g.dtype)
        return np.ones(2, np.float64)

    grad, = gradients(T.operation(lambda a: (a, gradient)), [x], np.ones(2, np.float64))
    assert met == [np.float32] and grad.dtype == np.float32


def test_the_gradient_of_a_constant_is_not_computed():
    def refuse(g):
        raise AssertionError

    product = T.operation(lambda a, b: (a * b, refuse, lambda g: g * a))
    assert gradients(product, [np.array([3.0]), leaf(2.0)], np.ones(1)) == [3]
    with pytest.raises(AssertionError):
        gradients(product, [leaf(3.0), leaf(2.0)], np.ones(1))


def test_the_mean_squared_error_has_weight_1_by_default():
    assert L.mse(np.array([1.0, 4.0]), np.array([0.0, 1.0])) == 5


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
        raise ZeroDivisionError
    assert not isinstance(x * x, Tensor)


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

    def recorded():
        return isinstance(x * x, Tensor)

    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as fresh, Tape():
        assert list(pool.map(derivative_of_cube, [2.0, 3.0])) == [12, 27]
        assert not pool.submit(recorded).result() and not fresh.submit(recorded).result()
        assert recorded()


def test_nothing_is_recorded_off_a_tape_or_without_a_tensor():
    x = leaf(1.0)
    with Tape() as tape:
        pending = weakref.ref(T.exp(np.ones(1)))
        assert pending() is None
        constant = T.multiply(np.ones(1), 2)
    for result in x * x, constant:
        with pytest.raises(ValueError, match="backward"):
            tape.backward(result)
    assert x.grad is None


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


def test_numbers_take_the_precision_of_complex_tensors_too():
    with Tape():
        assert (Tensor(np.ones(2, np.complex64)) * 2.0).dtype == np.complex64
