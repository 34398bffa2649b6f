"""The operations of a neural network, each one fused: many elementary steps, one entry on the tape.

The elementary operations of tensor.py give the same results (tests/test_autograd.py compares them).
But a fused layer, with its backward derived by hand, passes over each large array fewer times. So a
training step is about as fast as PyTorch's.
"""
import numpy as np

from .tensor import elementwise, mismatch, operation


@operation
def linear(x, W, b=None):
    """x W + b. x: (..., I), W: (I, O), b: (O,) or None -> (..., O)."""
    rows = _rows(x)
    if W.ndim != 2 or rows.shape[1] != len(W) or b is not None and W.shape[1:] != b.shape:
        raise mismatch("linear", x=x, W=W, b=b)
    y = rows @ W
    if b is not None:
        y += b
    return (y if x.ndim == 2 else y.reshape(*x.shape[:-1], W.shape[1]),
            lambda g: (_rows(g) @ W.T).reshape(x.shape),
            lambda g: rows.T @ _rows(g),
            lambda g: _rows(g).sum(0))


def _rows(a):
    """(..., C) -> (N, C), without a copy where the memory layout allows it."""
    return a if a.ndim == 2 else a.reshape(-1, a.shape[-1])


@operation
def conv1d(x, W, b):
    """Convolution along time, padded with zeros to the same length. K taps, an odd number.

        y[t] = b + sum_j x[t + j - K//2] W[j],   x[t] = 0 outside 0..H-1

    x: (H, B, I), W: (K, I, O), b: (O,) -> (H, B, O), for H steps, I input and O output channels.
    Tap j is the matrix W[j] for one shift in time. Time is the first axis: so the steps that a tap
    reads are contiguous in memory, and its matrix product needs no copy of them.
    """
    K = len(W)
    if x.ndim != 3 or W.ndim != 3 or K % 2 == 0:
        raise mismatch("conv1d", x=x, W=W, b=b)
    if x.shape[2] != W.shape[1] or W.shape[2:] != b.shape:
        raise mismatch("conv1d", x=x, W=W, b=b)
    H = len(x)
    middle = K // 2
    side_taps = [tap for tap in range(K) if tap != middle and abs(tap - middle) < H]

    y = (_rows(x) @ W[middle]).reshape(H, -1, len(b))  # the middle tap reads every step
    y += b
    for j in side_taps:
        into, out = _stretch(j - middle, H)
        y[out] += (_rows(x[into]) @ W[j]).reshape(y[out].shape)

    def gradient_of_x(g):
        gx = (_rows(g) @ W[middle].T).reshape(x.shape)
        for j in side_taps:
            into, out = _stretch(j - middle, H)
            gx[into] += (_rows(g[out]) @ W[j].T).reshape(gx[into].shape)
        return gx

    def gradient_of_W(g):
        gW = np.zeros_like(W)
        gW[middle] = _rows(x).T @ _rows(g)
        for j in side_taps:
            into, out = _stretch(j - middle, H)
            gW[j] = _rows(x[into]).T @ _rows(g[out])
        return gW
    return y, gradient_of_x, gradient_of_W, lambda g: _rows(g).sum(0)


def _stretch(shift, H):
    """The steps of x that a tap reads, and those of y that it adds to: y[t] gets x[t + shift]."""
    if shift >= 0:
        return slice(shift, H), slice(0, H - shift)
    return slice(0, H + shift), slice(-shift, H)


@operation
def rmsnorm(x, eps=1e-5):
    """x / sqrt(mean(x^2) + eps), with the mean over the last axis (Zhang & Sennrich 2019).

    x: (..., C). No factor per channel is learned: it would only scale rows of the next matrix.
    """
    n = x.shape[-1]
    rms = np.sqrt(_row_dot(x, x) / n + eps)  # (..., 1)
    y = x / rms

    def gradient(g):
        gx = g - y * (_row_dot(g, y) / n)
        gx /= rms
        return gx
    return y, gradient


def _row_dot(a, b):
    """(a * b).sum(-1, keepdims=True), two to three times faster on a batch."""
    return (a[..., None, :] @ b[..., None])[..., 0]


@operation
def groupnorm(x, gain, bias, groups, eps=1e-5):
    """gain xhat + bias, xhat = (x - mean) / sqrt(var + eps), per sample.

    Mean and variance are over time and the channels of a group. x: (H, B, C); gain, bias: (C,), or
    (B, C), as in FiLM (Perez et al. 2018), where they are computed from a condition.

    Fused, the large arrays (H, B, C) are only multiplied, added, and summed over time; all else is
    done on (B, C). The gradient, with <a> for the mean of a over time and a group, is

        gx = (gain g - <gain g> - xhat <gain g xhat>) / sqrt(var + eps)
    """
    if x.ndim != 3 or x.shape[2] % groups:
        raise mismatch(f"groupnorm with {groups} groups", x=x, gain=gain, bias=bias)
    if gain.shape != bias.shape or gain.shape not in (x.shape[1:], x.shape[2:]):
        raise mismatch(f"groupnorm with {groups} groups", x=x, gain=gain, bias=bias)
    H, B, C = x.shape
    n = H * C // groups

    def over_group(a):  # (B, C) -> the mean over each group, repeated to (B, C)
        return np.repeat(a.reshape(B, groups, -1).sum(2) / n, C // groups, axis=1)

    centred = x - over_group(np.einsum("hbc->bc", x))
    rstd = (over_group(np.einsum("hbc,hbc->bc", centred, centred)) + eps) ** -0.5
    scale = gain * rstd
    y = centred * scale
    y += bias

    last = [None, None, None]  # the latest g and its sums: computed once for all three gradients

    def sums(g):  # over time: of g xhat, and of g
        if last[0] is not g:
            ggain = np.einsum("hbc,hbc->bc", g, centred) * rstd
            last[:] = g, ggain, np.einsum("hbc->bc", g)
        return last[1:]

    def gradient_of_x(g):
        ggain, gbias = sums(g)
        gx = centred * (over_group(gain * ggain) * -rstd * rstd)
        gx -= over_group(gain * gbias) * rstd
        gx += g * scale
        return gx
    return y, gradient_of_x, lambda g: sums(g)[0], lambda g: sums(g)[1]


@operation
def mse(prediction, target, weight=1.0):
    """The mean of weight (prediction - target)^2; weight broadcasts and takes no gradient."""
    prediction, target, error = elementwise("mse", np.subtract, prediction, target)
    weighted = weight * error
    y = np.asarray(weighted.ravel() @ error.ravel() / error.size)
    return y, lambda g: weighted * (2 * g / error.size), lambda g: weighted * (-2 * g / error.size)
