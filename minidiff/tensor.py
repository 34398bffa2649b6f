"""Reverse-mode automatic differentiation over NumPy arrays.

A `Tensor` is a variable: the gradient of a loss with respect to it is wanted. Arrays are constants.

Each operation below is a function of arrays. It returns its result, and one function for each
input: the chain rule for this one operation. That function turns g, the gradient of the loss with
respect to the result, into the gradient with respect to the input. While a `Tape` is open, an
operation on a Tensor gives a Tensor, and the tape keeps these functions in the order of
computation. `tape.backward(loss)` calls them from the last to the first:

    with Tape() as tape:
        loss = tn.sum((x * w - y) * (x * w - y))  # w: a Tensor; x, y: arrays; tn: this module
    tape.backward(loss)                       # now w.grad holds dloss/dw

Without an open tape an operation gives an array, so sampling pays nothing for gradients. Backward
is a loop, not a recursion, so a computation may be as deep as memory allows. The precision is that
of the inputs: float32 in training, float64 in the tests.
"""
import functools
import threading

import numpy as np

_open = threading.local()  # each thread has its own open tape


class Tensor:
    """An array, and the gradient of the loss with respect to it.

    data: ndarray of any shape, of real or complex floating-point numbers; integers and booleans
    become float64. grad: None, or an array of the shape of data. Every `Tape.backward` adds to it,
    so set it back to None after each gradient step.
    """
    __slots__ = ("data", "grad")
    __array_ufunc__ = None  # so that NumPy leaves `ndarray * Tensor` to Tensor.__rmul__

    def __init__(self, data):
        self.data = np.asarray(data)
        if self.data.dtype.kind not in "fc":
            self.data = _floats(self.data)
        self.grad = None

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    size = property(lambda self: self.data.size)
    __len__ = lambda self: len(self.data)
    __repr__ = lambda self: f"Tensor({self.data!r})"
    __add__ = __radd__ = lambda a, b: add(a, b)
    __mul__ = __rmul__ = lambda a, b: multiply(a, b)
    __sub__ = lambda a, b: subtract(a, b)
    __rsub__ = lambda a, b: subtract(b, a)
    __neg__ = lambda a: multiply(a, -1.0)
    __truediv__ = lambda a, b: divide(a, b)
    __rtruediv__ = lambda a, b: divide(b, a)
    __getitem__ = lambda a, index: getitem(a, index)


def _floats(data):
    if data.dtype.kind not in "iub":
        raise TypeError(f"a Tensor holds numbers, not {data.dtype}")
    return data.astype(np.float64)


def constant(x):
    """The array of a Tensor, so that no gradient flows. Arrays and numbers stay as they are."""
    return x.data if isinstance(x, Tensor) else x


class Tape:
    """The record of a computation, in order. Tapes nest: only the innermost open one records."""

    def __init__(self):
        self._entries = []  # (result, inputs, their backward functions)

    def __enter__(self):
        self._outer = getattr(_open, "tape", None)
        _open.tape = self
        return self

    def __exit__(self, *exception):
        _open.tape = self._outer

    def backward(self, result, grad=None):
        """Add the gradient of sum(grad * result) to x.grad, for each input Tensor x.

        Results of recorded operations keep no grad. grad: of the shape of result, 1 by default. The
        tape is emptied on the way, to free each array once it was used. So backward works once.
        ValueError for a result that this tape has not recorded.
        """
        if not any(out is result for out, _, _ in reversed(self._entries)):
            raise ValueError("backward: this tape has not recorded the result: it was computed "
                             "outside it, or depends on no Tensor, or the tape has been read "
                             "already")
        result.grad = np.ones_like(result.data) if grad is None else np.asarray(grad, result.dtype)
        while self._entries:
            out, inputs, backward = self._entries.pop()
            grad = out.grad
            out.grad = None
            if grad is None:
                continue  # this branch does not lead to the result
            for x, gradient_of in zip(inputs, backward):
                if isinstance(x, Tensor):
                    g = np.asarray(_sum_to(gradient_of(grad), x.data.shape), x.data.dtype)
                    # gradients add up over all paths; no +=, as g may also be another x's grad
                    x.grad = g if x.grad is None else x.grad + g


def operation(forward):
    """Decorator: a function of arrays becomes an operation on Tensors and arrays.

    forward(*arrays, **options) returns the result and then one function for each array, in order:
    from the gradient of the result to that of the array. Functions may be missing at the end: the
    last arrays are then constants, as the options are. Pass Tensors by position.
    """
    @functools.wraps(forward)
    def apply(*inputs, **options):
        y, *backward = forward(*[x.data if isinstance(x, Tensor) else x for x in inputs], **options)
        tape = getattr(_open, "tape", None)
        if tape is None:
            return y
        variables = [x for x in inputs if isinstance(x, Tensor)]
        if not variables:
            return y
        if y.ndim == 0:  # NumPy 1: a float32 array without dimensions times 0.5 is float64
            y = np.asarray(y, np.result_type(*[x.data.dtype for x in variables]))
        out = Tensor(y)
        tape._entries.append((out, inputs, backward))
        return out
    return apply


def _sum_to(g, shape):
    """The gradient of broadcasting: g summed over the axes along which the input was repeated."""
    if g.shape == shape:
        return g
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=repeated, keepdims=True)


def mismatch(name, **arrays):
    """The error that says which operation met which shapes."""
    shapes = ", ".join(f"{key} {np.shape(x)}" for key, x in arrays.items())
    return ValueError(f"{name}: shapes do not fit: {shapes}")


# ---- element by element --------------------------------------------------------------------------

def elementwise(name, f, a, b):
    """Both operands as arrays, and f of them with NumPy's broadcasting.

    A plain number takes the precision of the other operand, so 2 * float32 stays float32.
    """
    a, b = _matched(a, b), _matched(b, a)
    try:
        return a, b, f(a, b)
    except ValueError:
        raise ValueError(f"{name}: shapes {np.shape(a)} and {np.shape(b)} do not broadcast "
                         "together") from None


def _matched(x, other):
    if np.isscalar(x) and hasattr(other, "dtype") and other.dtype.kind in "fc":
        return np.asarray(x, other.dtype)
    return np.asarray(x)


@operation
def add(a, b):
    a, b, y = elementwise("add", np.add, a, b)
    return y, lambda g: g, lambda g: g


@operation
def subtract(a, b):
    a, b, y = elementwise("subtract", np.subtract, a, b)
    return y, lambda g: g, lambda g: -g


@operation
def multiply(a, b):
    a, b, y = elementwise("multiply", np.multiply, a, b)
    return y, lambda g: g * b, lambda g: g * a


@operation
def divide(a, b):
    a, b, y = elementwise("divide", np.divide, a, b)
    return y, lambda g: g / b, lambda g: -g * y / b


@operation
def exp(a):
    y = np.exp(a)
    return y, lambda g: g * y


@operation
def log(a):
    return np.log(a), lambda g: g / a


@operation
def sqrt(a):
    y = np.sqrt(a)
    return y, lambda g: g / (2 * y)


@operation
def clip(a, low, high):
    """a limited to low..high, two numbers. The gradient is 0 where a was cut."""
    y = np.minimum(np.maximum(a, low), high)  # faster than np.clip on small arrays
    return y, lambda g: g * (y == a)


@operation
def silu(x):
    """x sigmoid(x), with sigmoid(x) = (1 + tanh(x/2))/2: unlike exp, tanh cannot overflow."""
    s = np.tanh(x * 0.5)
    s += 1
    s *= 0.5
    y = x * s

    def gradient(g):
        d = 1 - s  # silu' = s + y (1 - s)
        d *= y
        d += s
        d *= g
        return d
    return y, gradient


# ---- shape ---------------------------------------------------------------------------------------

@operation
def sum(x, axis=None, keepdims=False):
    """The sum over `axis` (an int, a tuple, or None for all)."""
    y = x.sum(axis=axis, keepdims=keepdims)

    def gradient(g):
        if axis is not None and not keepdims:
            g = np.expand_dims(g, axis)
        return np.broadcast_to(g, x.shape)
    return y, gradient


@operation
def reshape(x, *shape):
    try:
        y = x.reshape(shape)
    except ValueError:
        raise ValueError(f"reshape: shape {x.shape} does not fit into {shape}") from None
    return y, lambda g: g.reshape(x.shape)


@operation
def swapaxes(x, i, j):
    return x.swapaxes(i, j), lambda g: g.swapaxes(i, j)


@operation
def getitem(x, index):
    """x[index], for any NumPy index. An element picked twice gets the sum of both gradients.

    Integers and slices pick none twice: then an assignment is enough, and faster.
    """
    parts = index if isinstance(index, tuple) else (index,)
    once = all(isinstance(part, (int, slice, type(None), type(Ellipsis))) for part in parts)

    def gradient(g):
        out = np.zeros_like(x)
        if once:
            out[index] = g
        else:
            np.add.at(out, index, g)
        return out
    return x[index], gradient


@operation
def concat(*xs, axis=-1):
    """Join arrays along one axis."""
    try:
        y = np.concatenate(xs, axis)
    except ValueError:
        raise ValueError(f"concat: shapes {[x.shape for x in xs]} do not join along axis "
                         f"{axis}") from None

    def gradient_of(k, g):
        borders = np.cumsum([x.shape[axis] for x in xs])[:-1]
        return np.split(g, borders, axis)[k]
    return y, *[functools.partial(gradient_of, k) for k in range(len(xs))]
