"""The two denoisers: a residual MLP, and a 1-D convolutional network with FiLM.

Both are called as eps_theta(x_t, t, cond): given a noised chunk of actions, the timestep and the features of the
observation, predict the noise. `Denoiser` holds what they share, the time embedding and the skip; `MLP` and `ConvNet`
are the networks inside it.
"""
import numpy as np

from .layers import conv1d, groupnorm, layernorm, linear
from .tensor import Tensor, concat, reshape, silu, swapaxes, tensor

EMBEDDING = 64  # dimensions of the time embedding


def parameters(shapes, rng, zero=()):
    """All parameters of a network: one flat float32 array theta, and a dictionary of Tensors that are views into it.

    Being one array, a network is one vector to the optimiser, the moving average and the checkpoint. Weights (names
    that end in W) start as N(0, 1/fan_in), or at 0 if named in `zero`; gains start at 1, biases at 0.
    """
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    theta = np.zeros(sum(sizes), np.float32)
    params = {}
    for (name, shape), part in zip(shapes.items(), np.split(theta, np.cumsum(sizes)[:-1])):
        if name.endswith("gain"):
            part[:] = 1
        elif name.endswith("W") and name not in zero:
            part[:] = rng.standard_normal(part.size) / np.sqrt(np.prod(shape[:-1]))
        params[name] = Tensor(part.reshape(shape), needs_grad=True)
    return theta, params


def time_embedding(t):
    """[sin(w_k t), cos(w_k t)] with w_k from 1 down to 1e-4 (Vaswani et al. 2017). t: (N,) -> (N, EMBEDDING)."""
    phase = np.asarray(t)[:, None] * 1e4 ** -np.linspace(0, 1, EMBEDDING // 2)
    return np.concatenate([np.sin(phase), np.cos(phase)], 1).astype(np.float32)


class Denoiser:
    """eps_theta(x_t, t, cond): a network F, seen as a predictor of the noise.

        eps_theta = sqrt(1-alpha_bar) x_t + sqrt(alpha_bar) F(g x_t, t, cond)

    At large t, x_t is almost the noise itself: the skip hands it on, and F supplies the correction. Solved for F,
    its target is v = sqrt(alpha_bar) eps - sqrt(1-alpha_bar) x_0 (Salimans & Ho 2022), which has variance about one
    at every t; ||eps - eps_theta||^2 / alpha_bar is exactly ||v - F||^2. The input is scaled by
    g = sqrt(alpha_bar) / (alpha_bar + 4 (1-alpha_bar)): g x_t is the best linear guess of x_0 if, given the
    observation, actions have a standard deviation of 1/2. Without the skip, eps_theta = F(x_t, t, cond).
    """

    def __init__(self, net, alpha_bar, skip=True, learned=False):
        self.net, self.skip, self.learned = net, skip, learned
        self.embedding = time_embedding(np.arange(len(alpha_bar)))  # (T+1, EMBEDDING)
        tables = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar), np.sqrt(alpha_bar) / (alpha_bar + 4 * (1 - alpha_bar))
        self.signal, self.noise, self.gain = (table.astype(np.float32)[:, None, None] for table in tables)

    def __call__(self, x_t, t, cond):
        """x_t: (B, H, D), t: (B,) or one int, cond: (B, F) -> (B, H, D)."""
        return self.with_variance(x_t, t, cond)[0]

    def with_variance(self, x_t, t, cond):
        """eps_theta, and the v of its variance (see diffusion.p_mean_variance), both (B, H, D). `learned`: the network has
        two answers, F and 2v - 1; otherwise v is None."""
        x_t, D = tensor(x_t), x_t.shape[2]
        embedding = np.broadcast_to(self.embedding[t], (len(x_t.data), EMBEDDING))
        F, v = self.net(x_t * self.gain[t] if self.skip else x_t, embedding, cond), None
        if self.learned:
            F, v = F[..., :D], F[..., D:] * 0.5 + 0.5
        return x_t * self.noise[t] + F * self.signal[t] if self.skip else F, v


class MLP:
    """A residual MLP on the flattened chunk: Linear, then blocks h + Linear SiLU Linear LN h, then LN, SiLU, Linear.

    x_shape: (H, D); the answer has shape (H, answers D). The last Linear of a block starts at zero, so that every block
    begins as the identity.
    """

    def __init__(self, x_shape, cond_dim, rng, width=256, blocks=3, answers=1):
        (H, D), self.blocks = x_shape, blocks
        self.y_shape = H, answers * D
        shapes = {"in.W": (H * D + EMBEDDING + cond_dim, width), "in.b": (width,)}
        for i in range(blocks + 1):  # the last is the head: not a residual, and it narrows to the answer
            out = width if i < blocks else H * answers * D
            shapes |= {f"{i}.gain": (width,), f"{i}.bias": (width,), f"{i}.1.W": (width, width), f"{i}.1.b": (width,),
                       f"{i}.2.W": (width, out), f"{i}.2.b": (out,)}
        self.theta, self.params = parameters(shapes, rng, zero=[f"{i}.2.W" for i in range(blocks)])

    def __call__(self, x, embedding, cond):
        p = self.params

        def block(i, h):
            r = layernorm(h, p[f"{i}.gain"], p[f"{i}.bias"])
            r = silu(linear(r, p[f"{i}.1.W"], p[f"{i}.1.b"]))
            return linear(r, p[f"{i}.2.W"], p[f"{i}.2.b"])

        h = linear(concat([reshape(x, len(x.data), -1), embedding, cond]), p["in.W"], p["in.b"])  # (B, width)
        for i in range(self.blocks):
            h = h + block(i, h)
        return reshape(block(self.blocks, h), -1, *self.y_shape)  # (B, H, answers D)


class ConvNet:
    """Residual 1-D convolutions along the chunk's time. What is known (time embedding and cond) enters twice: it gives
    every step of the chunk a start (B, H, C), and FiLM (Perez et al. 2018): gain and bias of each norm.

    Inside, arrays are (H, B, C), time first (see layers.conv1d). Blocks begin as the identity, FiLM as gain 1, bias 0.
    """

    def __init__(self, x_shape, cond_dim, rng, width=64, blocks=3, answers=1, kernel=5, groups=8, hidden=256):
        (H, D), C = x_shape, width
        self.width, self.blocks, self.groups, self.H = width, blocks, groups, H
        shapes = {"known.W": (EMBEDDING + cond_dim, hidden), "known.b": (hidden,),
                  "start.W": (hidden, H * C), "start.b": (H * C,), "in.W": (kernel, D, C), "in.b": (C,)}
        for i in range(blocks):
            shapes |= {f"{i}.film.W": (hidden, 4 * C), f"{i}.film.b": (4 * C,), f"{i}.1.W": (kernel, C, C),
                       f"{i}.1.b": (C,), f"{i}.2.W": (kernel, C, C), f"{i}.2.b": (C,)}
        shapes |= {"out.gain": (C,), "out.bias": (C,), "out.W": (C, answers * D), "out.b": (answers * D,)}
        self.theta, self.params = parameters(shapes, rng, zero=[f"{i}.{name}.W" for i in range(blocks)
                                                                for name in ("film", "2")])

    def __call__(self, x, embedding, cond):
        p, C = self.params, self.width
        known = silu(linear(concat([embedding, cond]), p["known.W"], p["known.b"]))  # (B, hidden)
        start = reshape(linear(known, p["start.W"], p["start.b"]), -1, self.H, C)  # (B, H, C)
        h = conv1d(swapaxes(x, 0, 1), p["in.W"], p["in.b"]) + swapaxes(start, 0, 1)  # (H, B, C)
        for i in range(self.blocks):
            film = linear(known, p[f"{i}.film.W"], p[f"{i}.film.b"])  # (B, 4 C)
            gain_1, bias_1, gain_2, bias_2 = (film[:, k * C:(k + 1) * C] for k in range(4))
            r = silu(groupnorm(h, 1 + gain_1, bias_1, self.groups))
            r = conv1d(r, p[f"{i}.1.W"], p[f"{i}.1.b"])
            r = silu(groupnorm(r, 1 + gain_2, bias_2, self.groups))
            h = h + conv1d(r, p[f"{i}.2.W"], p[f"{i}.2.b"])
        h = silu(groupnorm(h, p["out.gain"], p["out.bias"], self.groups))
        return swapaxes(linear(h, p["out.W"], p["out.b"]), 0, 1)  # (B, H, answers D)


NETWORKS = {"mlp": MLP, "conv": ConvNet}
