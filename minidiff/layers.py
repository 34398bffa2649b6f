"""The operations of a neural network, each one fused: many elementary steps, one entry on the tape.

The elementary operations of tensor.py give the same results (tests/test_autograd.py writes each
layer so). Fused, with the backward worked out by hand, a layer passes over each big array as few
times as it can, and a training step is about as fast as PyTorch's.
"""
import functools

import numpy as np

from .tensor import elementwise, mismatch, record, tensor


def linear(x, W, b):
    """x W + b. x: (..., I), W: (I, O), b: (O,) -> (..., O)."""
    x = tensor(x)
    rows = _rows(x.data)
    if rows.shape[1:] != W.data.shape[:1] or W.data.shape[1:] != b.data.shape:
        raise mismatch("linear", x=x, W=W, b=b)
    y = rows @ W.data
    y += b.data

    def backward(g):
        g = _rows(g)
        gx = (g @ W.data.T).reshape(x.shape) if x.needs_grad else None
        return gx, rows.T @ g, g.sum(0)
    return record(y if x.data.ndim == 2 else y.reshape(x.shape[:-1] + b.shape), (x, W, b), backward)


def _rows(a):
    """(..., C) -> (N, C), a view where memory allows it."""
    return a if a.ndim == 2 else a.reshape(-1, a.shape[-1])


def conv1d(x, W, b):
    """Convolution along time, padded with zeros to the same length, for an odd kernel of K taps.

        y[t] = b + sum_j x[t + j - K//2] W[j],   x[t] = 0 outside 0..H-1

    x: (H, B, I), W: (K, I, O), b: (O,) -> (H, B, O). Time comes first, so that each tap is one
    matrix product over a contiguous stretch of the input: no patches are copied, which saves K
    copies of x.
    """
    x = tensor(x)
    K = len(W.data)
    if x.data.ndim != 3 or W.data.ndim != 3 or K % 2 == 0:
        raise mismatch("conv1d", x=x, W=W, b=b)
    if x.shape[2] != W.shape[1] or W.shape[2:] != b.shape:
        raise mismatch("conv1d", x=x, W=W, b=b)
    H = len(x.data)
    middle = K // 2
    side_taps = [tap for tap in range(K) if tap != middle and abs(tap - middle) < H]

    y = _rows(x.data) @ W.data[middle]  # the middle tap reads every step
    y += b.data
    y = y.reshape(H, -1, len(b.data))
    for j in side_taps:
        into, out = _stretch(j - middle, H)
        y[out] += (_rows(x.data[into]) @ W.data[j]).reshape(y[out].shape)

    def backward(g):
        gW = np.zeros_like(W.data)
        gW[middle] = _rows(x.data).T @ _rows(g)
        gx = (_rows(g) @ W.data[middle].T).reshape(x.shape) if x.needs_grad else None
        for j in side_taps:
            into, out = _stretch(j - middle, H)
            gW[j] = _rows(x.data[into]).T @ _rows(g[out])
            if x.needs_grad:
                gx[into] += (_rows(g[out]) @ W.data[j].T).reshape(gx[into].shape)
        return gx, gW, _rows(g).sum(0)
    return record(y, (x, W, b), backward)


def _stretch(shift, H):
    """The steps of x that a tap reads, and those of y that it adds to: y[t] gets x[t + shift]."""
    if shift >= 0:
        return slice(shift, H), slice(0, H - shift)
    return slice(0, H + shift), slice(-shift, H)


def layernorm(x, gain, bias, eps=1e-5):
    """gain (x - mean) / sqrt(var + eps) + bias, with mean and variance over the last axis.

    x: (..., C); gain, bias: (C,). Means are taken as matrix products, which are faster than x.mean.
    """
    n = x.data.shape[-1]
    if (n,) != gain.data.shape or (n,) != bias.data.shape:
        raise mismatch("layernorm", x=x, gain=gain, bias=bias)
    average = _average(n, x.data.dtype)
    xhat = x.data - x.data @ average
    rstd = 1 / np.sqrt(_row_dot(xhat, xhat) / n + eps)
    xhat *= rstd
    y = xhat * gain.data
    y += bias.data

    def backward(g):
        gxhat = g * gain.data
        gx = gxhat - gxhat @ average
        gx -= xhat * (_row_dot(gxhat, xhat) / n)
        gx *= rstd
        return gx, np.einsum("nc,nc->c", _rows(g), _rows(xhat)), _rows(g).sum(0)
    return record(y, (x, gain, bias), backward)


@functools.cache
def _average(n, dtype):
    """The column that a matrix is multiplied by to give the mean of each of its rows."""
    return np.full((n, 1), 1 / n, dtype)


def _row_dot(a, b):
    """(a * b).sum(-1, keepdims=True), two to three times faster on a batch."""
    return (a[..., None, :] @ b[..., None])[..., 0]


def groupnorm(x, gain, bias, groups, eps=1e-5):
    """gain xhat + bias, xhat = (x - mean) / sqrt(var + eps), per sample.

    Mean and variance are over time and the channels of a group. x: (H, B, C); gain, bias: (C,), or
    (B, C), one for each sample: then this is FiLM (Perez et al. 2018) at no cost.

    Fused, all that is done to the big arrays is array * (B, C) + (B, C). With <> for the group
    mean, the gradient is gx = (gain g - <gain g> - xhat <gain g xhat>) / sqrt(var + eps).
    """
    if x.data.ndim != 3 or x.shape[2] % groups:
        raise mismatch(f"groupnorm with {groups} groups", x=x, gain=gain, bias=bias)
    if gain.shape != bias.shape or gain.shape not in (x.shape[1:], x.shape[2:]):
        raise mismatch(f"groupnorm with {groups} groups", x=x, gain=gain, bias=bias)
    H, B, C = x.shape
    n = H * C // groups

    def over_group(a):  # (B, C) -> the mean over each group, repeated to (B, C)
        return np.repeat(a.reshape(B, groups, -1).sum(2) / n, C // groups, axis=1)

    centred = x.data - over_group(np.einsum("hbc->bc", x.data))
    rstd = (over_group(np.einsum("hbc,hbc->bc", centred, centred)) + eps) ** -0.5
    scale = gain.data * rstd
    y = centred * scale
    y += bias.data

    def backward(g):
        gbias = np.einsum("hbc->bc", g)
        ggain = np.einsum("hbc,hbc->bc", g, centred) * rstd  # the sum over time of g xhat
        gx = centred * (over_group(gain.data * ggain) * -rstd * rstd)
        gx -= over_group(gain.data * gbias) * rstd
        gx += g * scale
        return gx, ggain, gbias
    return record(y, (x, gain, bias), backward)


def mse(prediction, target, weight=1.0):
    """The mean of weight (prediction - target)^2; weight broadcasts and takes no gradient."""
    prediction, target, error = elementwise("mse", np.subtract, prediction, target)
    weighted = weight * error
    y = np.asarray(weighted.ravel() @ error.ravel() / error.size)

    def backward(g):
        weighted_g = weighted * (2 * g / error.size)
        return weighted_g, -weighted_g
    return record(y, (prediction, target), backward)
