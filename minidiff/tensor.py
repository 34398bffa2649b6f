"""Reverse-mode automatic differentiation over NumPy arrays.

Each operation below computes its result with NumPy and hands `record` a function `backward`, which
turns the gradient of the result into the gradients of the inputs: the chain rule for that one
operation. While a `Tape` is open, it keeps these functions in the order of computation;
`tape.backward(loss)` calls them from the last to the first:

    with Tape() as tape:
        loss = tn.sum((x * w - y) * (x * w - y))
    tape.backward(loss)                       # now w.grad holds dloss/dw

Outside a tape nothing is recorded: sampling costs no more than its arithmetic. There is no
recursion, so depth is limited by memory alone. The precision is that of the inputs: float32 to
train, float64 in the tests.
"""
import threading

import numpy as np

_open = threading.local()  # each thread has its own open tape


class Tensor:
    """An array, and the gradient of the loss with respect to it.

    data: ndarray of any shape, of real or complex floating-point numbers; integers and booleans
    become float64. needs_grad: gradients flow to (or through) this tensor. grad: None, or an array
    of the shape of data, to which every `Tape.backward` adds; set it back to None between steps.
    """
    __slots__ = ("data", "grad", "needs_grad")
    __array_ufunc__ = None  # so that `ndarray * Tensor` comes to Tensor.__rmul__

    def __init__(self, data, needs_grad=False):
        self.data = np.asarray(data)
        if self.data.dtype.kind not in "fc":
            self.data = _floats(self.data)
        self.grad = None
        self.needs_grad = needs_grad

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
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


class Tape:
    """The record of a computation, in order. Tapes nest: only the innermost open one records."""

    def __init__(self):
        self._entries = []  # (result, inputs, backward)

    def __enter__(self):
        self._outer = getattr(_open, "tape", None)
        _open.tape = self
        return self

    def __exit__(self, *exception):
        _open.tape = self._outer

    def backward(self, result, grad=None):
        """Add d(result . grad)/dx to x.grad for every leaf x that needs it; grad is 1 by default.

        This empties the tape, which frees each intermediate array as soon as it has served. So a
        tape is read once. ValueError for a result that this tape has not recorded.
        """
        if not any(out is result for out, _, _ in reversed(self._entries)):
            raise ValueError("backward: this tape has not recorded the result: it was computed "
                             "outside it, or depends on nothing that needs a gradient, or the "
                             "tape has been read already")
        result.grad = np.ones_like(result.data) if grad is None else np.asarray(grad, result.dtype)
        while self._entries:
            out, inputs, backward = self._entries.pop()
            grad = out.grad
            out.grad = None
            if grad is None:
                continue  # this branch does not lead to the result
            for x, g in zip(inputs, backward(grad)):
                if x.needs_grad:
                    g = np.asarray(_sum_to(g, x.data.shape), x.data.dtype)
                    # a sum over paths; never in place, since g may be shared
                    x.grad = g if x.grad is None else x.grad + g


def record(data, inputs, backward):
    """The result of an operation, and, on an open tape, the way back to its inputs."""
    if data.ndim == 0:  # NumPy 1 takes numbers without dimensions as float64
        data = np.asarray(data, np.result_type(*[x.data.dtype for x in inputs]))
    out = Tensor(data)
    tape = getattr(_open, "tape", None)
    if tape is not None and any([x.needs_grad for x in inputs]):
        out.needs_grad = True
        tape._entries.append((out, inputs, backward))
    return out


def _sum_to(g, shape):
    """The gradient of a broadcast: sum over the axes along which the input was repeated."""
    if g.shape == shape:
        return g
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=repeated, keepdims=True)


def tensor(x, like=None):
    """x as a Tensor; Python numbers take the precision of `like`, so 2 * float32 stays float32."""
    if isinstance(x, Tensor):
        return x
    if np.isscalar(x) and hasattr(like, "dtype") and like.dtype.kind in "fc":
        return Tensor(np.asarray(x, like.dtype))
    return Tensor(x)


def stop_gradient(x):
    """x as a constant: the same data, through which no gradient flows."""
    return Tensor(x.data)


def elementwise(name, f, a, b):
    """Both operands as Tensors, and f of their data with NumPy's broadcasting."""
    a = tensor(a, like=b)
    b = tensor(b, like=a)
    try:
        return a, b, f(a.data, b.data)
    except ValueError:
        raise ValueError(f"{name}: shapes {a.shape} and {b.shape} do not broadcast "
                         "together") from None


def mismatch(name, **tensors):
    """The error that says which operation met which shapes."""
    shapes = ", ".join(f"{key} {x.shape}" for key, x in tensors.items())
    return ValueError(f"{name}: shapes do not fit: {shapes}")


# ---- element by element --------------------------------------------------------------------------

def add(a, b):
    a, b, y = elementwise("add", np.add, a, b)
    return record(y, (a, b), lambda g: (g, g))


def subtract(a, b):
    a, b, y = elementwise("subtract", np.subtract, a, b)
    return record(y, (a, b), lambda g: (g, -g))


def multiply(a, b):
    a, b, y = elementwise("multiply", np.multiply, a, b)
    return record(y, (a, b), lambda g: (g * b.data, g * a.data))


def divide(a, b):
    a, b, y = elementwise("divide", np.divide, a, b)
    return record(y, (a, b), lambda g: (g / b.data, -g * y / b.data))


def exp(a):
    y = np.exp(a.data)
    return record(y, (a,), lambda g: (g * y,))


def log(a):
    return record(np.log(a.data), (a,), lambda g: (g / a.data,))


def sqrt(a):
    y = np.sqrt(a.data)
    return record(y, (a,), lambda g: (g / (2 * y),))


def clip(a, low, high):
    """a within low..high; no gradient where it was cut."""
    y = np.clip(a.data, low, high)
    return record(y, (a,), lambda g: (g * (y == a.data),))


def silu(x):
    """x sigmoid(x); the sigmoid is written by tanh, which cannot overflow."""
    x = tensor(x)
    s = np.tanh(x.data * 0.5)
    s += 1
    s *= 0.5
    y = x.data * s

    def backward(g):
        d = 1 - s  # silu' = s + y (1 - s)
        d *= y
        d += s
        d *= g
        return d,
    return record(y, (x,), backward)


# ---- shape ---------------------------------------------------------------------------------------

def sum(x, axis=None, keepdims=False):
    """The sum over `axis` (an int, a tuple, or None for all)."""
    y = x.data.sum(axis=axis, keepdims=keepdims)

    def backward(g):
        if axis is not None and not keepdims:
            g = np.expand_dims(g, axis)
        return np.broadcast_to(g, x.shape),
    return record(y, (x,), backward)


def reshape(x, *shape):
    try:
        y = x.data.reshape(shape)
    except ValueError:
        raise ValueError(f"reshape: shape {x.shape} does not fit into {shape}") from None
    return record(y, (x,), lambda g: (g.reshape(x.shape),))


def swapaxes(x, i, j):
    return record(x.data.swapaxes(i, j), (x,), lambda g: (g.swapaxes(i, j),))


def getitem(x, index):
    """x[index], for any index of NumPy's. What is picked twice gets both gradients."""
    parts = index if isinstance(index, tuple) else (index,)
    once = all(isinstance(part, (int, slice, type(None), type(Ellipsis))) for part in parts)

    def backward(g):
        out = np.zeros_like(x.data)
        if once:
            out[index] = g
        else:
            np.add.at(out, index, g)
        return out,
    return record(x.data[index], (x,), backward)


def concat(xs, axis=-1):
    """Join tensors along one axis."""
    xs = [tensor(x) for x in xs]
    try:
        y = np.concatenate([x.data for x in xs], axis)
    except ValueError:
        raise ValueError(f"concat: shapes {[x.shape for x in xs]} do not join along axis "
                         f"{axis}") from None
    borders = np.cumsum([x.shape[axis] for x in xs])[:-1]
    return record(y, xs, lambda g: np.split(g, borders, axis))
