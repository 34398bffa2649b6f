"""The two denoisers: a residual multilayer perceptron (MLP), and a 1-D convolutional network.

Both are called as eps_theta(x_t, t, cond): they predict the noise, given a noised chunk of actions,
the timestep and the features of the observation. `Denoiser` holds what they share, the time
embedding and the preconditioning (scales of input and output); `MLP` and `ConvNet` are inside it.
"""
import numpy as np

from .layers import conv1d, groupnorm, linear, rmsnorm
from .tensor import Tensor, concat, constant, reshape, silu, swapaxes

EMBEDDING = 64  # dimensions of the time embedding
MOST = 2**26  # the largest number of parameters of a network: 256 MiB


def parameters(shapes, rng, zero=()):
    """A network's parameters: one flat float32 array theta, and Tensors by name, views into it.

    The optimiser, the moving average and the file see one vector.
    Weights (names that end in W) start as N(0, 1/n), n being the inputs of a unit, or at 0 if named
    in `zero`; gains start at 1, biases at 0.
    """
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    if sum(sizes) > MOST:
        raise ValueError(f"a network of {sum(sizes):,} parameters is too large: at most {MOST:,}")
    theta = np.zeros(sum(sizes), np.float32)
    params = {}
    for (name, shape), part in zip(shapes.items(), np.split(theta, np.cumsum(sizes)[:-1])):
        if name.endswith("gain"):
            part[:] = 1
        elif name.endswith("W") and name not in zero:
            part[:] = rng.standard_normal(part.size) / np.sqrt(np.prod(shape[:-1]))
        params[name] = Tensor(part.reshape(shape))
    return theta, params


def time_embedding(t):
    """[sin(w_k t), cos(w_k t)], w_k = 1 .. 1e-4 in equal ratios (Vaswani et al. 2017).

    t: (N,) -> (N, EMBEDDING) float32. Fast waves tell near timesteps apart, slow ones far ones.
    """
    phase = np.asarray(t)[:, None] * 1e4 ** -np.linspace(0, 1, EMBEDDING // 2)
    return np.concatenate([np.sin(phase), np.cos(phase)], 1).astype(np.float32)


class Denoiser:
    """eps_theta(x_t, t, cond): a network F, preconditioned (Karras et al. 2022).

        eps_theta = sqrt(1-alpha_bar) x_t + sqrt(alpha_bar) F(c_in x_t, t, cond)

    Output: set eps_theta to the true noise eps, solve for F, and insert x_t from eq. 5:

        F = (eps - sqrt(1-alpha_bar) x_t) / sqrt(alpha_bar)
          = sqrt(alpha_bar) eps - sqrt(1-alpha_bar) x_0 = v  (v-prediction, Salimans & Ho 2022)

    For x_0 with E[x_0^2] = 1 this target has the same size at every t: E[v^2] = alpha_bar + 1 -
    alpha_bar = 1. (The error of F varies: it is largest near t = 1, where v is nearly eps, and x_t
    tells little of eps.) The predicted x_0 is then sqrt(alpha_bar) x_t - sqrt(1-alpha_bar) F: its
    error is at most that of F. And ||eps - eps_theta||^2 = alpha_bar ||v - F||^2.

    Without preconditioning F would have to predict eps itself. Near t = T eps is nearly x_t, and
    only the small difference between them, about sqrt(alpha_bar) x_0, tells of x_0.

    Input: c_in x_t, the best linear estimate of x_0 from x_t, for x_0 of mean 0 and standard
    deviation s = 1/2. For any s it is Cov(x_0, x_t) / Var(x_t) times x_t, and eq. 5 gives
    Cov(x_0, x_t) = sqrt(alpha_bar) s^2, Var(x_t) = alpha_bar s^2 + 1 - alpha_bar.
    So F sees x_t where x_t tells something about x_0, and 0 where it is pure noise. (Karras et al.
    scale the input to variance 1.) s stands for the standard deviation of x_0 given the
    observation. A good regression to x_0 has it as its RMS error: on held-out
    demonstrations of PushT 0.46 for the scripted and 0.65 for the human ones.

    precondition=False: eps_theta = F(x_t, t, cond). learned=True: F has two outputs for each
    number, the second one for the variance (see diffusion.learned_variance).
    """

    def __init__(self, net, alpha_bar, precondition=True, learned=False):
        self.net = net
        self.precondition = precondition
        self.learned = learned
        self.embedding = time_embedding(np.arange(len(alpha_bar)))  # (T+1, EMBEDDING)
        self.signal = _column(np.sqrt(alpha_bar))
        self.noise = _column(np.sqrt(1 - alpha_bar))
        self.c_in = _column(np.sqrt(alpha_bar) / (alpha_bar + 4 * (1 - alpha_bar)))

    def __call__(self, x_t, t, cond):
        """x_t: (B, H, D), t: (B,) or one int, cond: (B, cond_dim) -> (B, H, D)."""
        return self.with_variance(x_t, t, cond)[0]

    def with_variance(self, x_t, t, cond):
        """eps_theta, and v of learned_variance (None unless `learned`), both (B, H, D)."""
        D = x_t.shape[2]
        embedding = self.embedding[np.full(len(x_t), t)]  # (B, EMBEDDING)
        scaled = x_t * self.c_in[t] if self.precondition else x_t
        F = self.net(scaled, embedding, cond)
        v = None
        if self.learned:
            v = F[..., D:] * 0.5 + 0.5  # outputs -1 and 1 stand for beta_tilde and beta
            F = F[..., :D]
        if self.precondition:
            return x_t * self.noise[t] + F * self.signal[t], v
        return F, v


def _column(table):
    """(T+1,) -> (T+1, 1, 1) float32, so that table[t] multiplies (B, H, D)."""
    return table.astype(np.float32)[:, None, None]


class Network:
    """The weights: one array theta, and params, views into it by name.

    params are Tensors in training, and arrays after `freeze`. In a copy or a pickle, too, they are
    views into theta.
    """

    def freeze(self):
        """From here on the weights are constants: no gradient with respect to them is computed."""
        self.params = {name: constant(p) for name, p in self.params.items()}

    def __getstate__(self):
        layout = {name: (p.shape, type(p)) for name, p in self.params.items()}
        return self.__dict__ | {"params": layout}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.params, start = {}, 0
        for name, (shape, kind) in state["params"].items():
            size = int(np.prod(shape))
            part = self.theta[start:start + size].reshape(shape)
            self.params[name] = Tensor(part) if kind is Tensor else part
            start += size


class MLP(Network):
    """A residual MLP on the flattened chunk.

    h = W x; then `blocks` times h <- h + W SiLU(W RMSNorm(h)); then W SiLU(W RMSNorm(h)), the head.
    Each W is a matrix of its own. x_shape: (H, D); the output is (B, H, outputs D).
    The last matrix of a block starts at zero, so that every block begins as the identity. No layer
    needs a bias: the time embedding ends in cos(1e-4 t), which is nearly constant, as a bias is.
    """

    def __init__(self, x_shape, cond_dim, rng, width, blocks, outputs=1):
        H, D = x_shape
        self.blocks = blocks
        self.y_shape = H, outputs * D
        shapes = {"in.W": (H * D + EMBEDDING + cond_dim, width)}
        for i in range(blocks + 1):
            out = width if i < blocks else H * outputs * D  # the last is the head
            shapes |= {f"{i}.1.W": (width, width), f"{i}.2.W": (width, out)}
        self.theta, self.params = parameters(shapes, rng, [f"{i}.2.W" for i in range(blocks)])

    def __call__(self, x, embedding, cond):
        x = concat(reshape(x, len(x), -1), embedding, cond)  # (B, H D + EMBEDDING + cond_dim)
        h = linear(x, self.params["in.W"])  # (B, width)
        for i in range(self.blocks):
            h = h + self.block(i, h)
        return reshape(self.block(self.blocks, h), -1, *self.y_shape)  # (B, H, outputs D)

    def block(self, i, h):
        h = silu(linear(rmsnorm(h), self.params[f"{i}.1.W"]))
        return linear(h, self.params[f"{i}.2.W"])


class ConvNet(Network):
    """Residual 1-D convolutions along the chunk's time, conditioned by FiLM (Perez et al. 2018).

    The context is one layer on the time embedding and cond. Linear layers make two things of it: an
    array (H, C), added to the output of the first convolution, and the gain and bias of each norm
    inside a block (FiLM). Arrays are (H, B, C), time first (see layers.conv1d). Blocks begin as the
    identity.
    """

    def __init__(self, x_shape, cond_dim, rng, width, blocks, outputs=1,
                 kernel=5, groups=8, hidden=256):
        H, D = x_shape
        C = width
        self.H = H
        self.width = width
        self.blocks = blocks
        self.groups = groups
        shapes = {"context.W": (EMBEDDING + cond_dim, hidden), "context.b": (hidden,),
                  "start.W": (hidden, H * C), "start.b": (H * C,),
                  "in.W": (kernel, D, C), "in.b": (C,)}
        zero = []
        for i in range(blocks):
            shapes |= {f"{i}.film.W": (hidden, 4 * C), f"{i}.film.b": (4 * C,),
                       f"{i}.1.W": (kernel, C, C), f"{i}.1.b": (C,),
                       f"{i}.2.W": (kernel, C, C), f"{i}.2.b": (C,)}
            zero += [f"{i}.film.W", f"{i}.2.W"]
        shapes |= {"out.gain": (C,), "out.bias": (C,),
                   "out.W": (C, outputs * D), "out.b": (outputs * D,)}
        self.theta, self.params = parameters(shapes, rng, zero)

    def __call__(self, x, embedding, cond):
        p = self.params
        C = self.width
        context = linear(concat(embedding, cond), p["context.W"], p["context.b"])
        context = silu(context)  # (B, hidden)
        start = reshape(linear(context, p["start.W"], p["start.b"]), -1, self.H, C)  # (B, H, C)
        h = conv1d(swapaxes(x, 0, 1), p["in.W"], p["in.b"]) + swapaxes(start, 0, 1)  # (H, B, C)
        for i in range(self.blocks):
            film = linear(context, p[f"{i}.film.W"], p[f"{i}.film.b"])  # (B, 4 C)
            gain_1, bias_1, gain_2, bias_2 = (film[:, k * C:(k + 1) * C] for k in range(4))
            r = silu(groupnorm(h, 1 + gain_1, bias_1, self.groups))
            r = conv1d(r, p[f"{i}.1.W"], p[f"{i}.1.b"])
            r = silu(groupnorm(r, 1 + gain_2, bias_2, self.groups))
            h = h + conv1d(r, p[f"{i}.2.W"], p[f"{i}.2.b"])
        h = silu(groupnorm(h, p["out.gain"], p["out.bias"], self.groups))
        return swapaxes(linear(h, p["out.W"], p["out.b"]), 0, 1)  # (B, H, outputs D)


NETWORKS = {"mlp": MLP, "conv": ConvNet}
