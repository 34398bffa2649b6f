"""The speed of a training step and of a plan, compared with PyTorch eager on the same network, and
with the matrix products alone.

    pip install -e '.[benchmarks]'
    python tests/benchmarks/against_torch.py      an MLP of 256 units, a ConvNet of 64; 3 blocks
    python tests/benchmarks/against_torch.py --width 512 --blocks 4 --nets mlp

One thread each, CPU time of this process, the two taking turns. The figures are medians over the
rounds of the times, and of the ratios within a round. Both start from the same weights, and must
agree on loss and gradient first.
"""
import os
import sys
import time
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])  # tests, and the repository
from minidiff import stopping  # noqa: E402
from minidiff.diffusion import (  # noqa: E402
    ancestral_sampling,
    cosine_schedule,
    l_simple,
    loss_weight,
    sample_t,
)
from minidiff.nn import NETWORKS, ConvNet, Denoiser  # noqa: E402
from minidiff.optim import AdamW, flat_gradient, keep_freed_memory  # noqa: E402
from minidiff.tensor import Tape  # noqa: E402

import numpy as np  # noqa: E402
from benchmarks.measuring import Sheet, parser  # noqa: E402

os.environ.setdefault("OMP_NUM_THREADS", "1")
try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("this comparison needs PyTorch: pip install torch")

H, D, COND = 16, 2, 38  # of a chunk of PushT, and of its features
CLIP = 4.0
ROWS = 50_000  # of a training set
WIDTHS = {"mlp": 256, "conv": 64}
schedule = cosine_schedule(100)
weight = loss_weight(schedule, "inverse-alpha-bar")


# ---- the same two networks in PyTorch ------------------------------------------------------------

def as_torch(array):
    """A parameter in PyTorch's own layout: Linear (O, I), Conv1d (O, I, K)."""
    if array.ndim > 1:
        array = np.ascontiguousarray(array.T)
    return torch.tensor(array, requires_grad=True)


def torch_mlp(p, net, x, embedding, cond):
    def block(i, h):
        h = F.rms_norm(h, h.shape[-1:], eps=1e-5)
        h = F.silu(F.linear(h, p[f"{i}.1.W"]))
        return F.linear(h, p[f"{i}.2.W"])

    h = F.linear(torch.cat([x.flatten(1), embedding, cond], 1), p["in.W"])
    for i in range(net.blocks):
        h = h + block(i, h)
    return block(net.blocks, h).view(-1, H, D)


def torch_conv(p, net, x, embedding, cond):
    def norm(h, gain, bias):
        return F.silu(F.group_norm(h, net.groups) * gain[..., None] + bias[..., None])

    def conv(h, name):
        return F.conv1d(h, p[f"{name}.W"], p[f"{name}.b"], padding="same")

    context = F.linear(torch.cat([embedding, cond], 1), p["context.W"], p["context.b"])
    context = F.silu(context)
    start = F.linear(context, p["start.W"], p["start.b"]).view(len(x), H, -1)
    h = conv(x.transpose(1, 2), "in") + start.transpose(1, 2)
    for i in range(net.blocks):
        film = F.linear(context, p[f"{i}.film.W"], p[f"{i}.film.b"])
        gain_1, bias_1, gain_2, bias_2 = film.chunk(4, 1)
        r = conv(norm(h, 1 + gain_1, bias_1), f"{i}.1")
        h = h + conv(norm(r, 1 + gain_2, bias_2), f"{i}.2")
    h = F.silu(F.group_norm(h, net.groups, p["out.gain"], p["out.bias"]))
    return F.linear(h.transpose(1, 2), p["out.W"], p["out.b"])


TORCH_NETWORKS = {"mlp": torch_mlp, "conv": torch_conv}


# ---- the contestants -----------------------------------------------------------------------------

class Ours:
    """minidiff: a training step and a plan."""

    def __init__(self, kind, options, data, rng):
        self.net = NETWORKS[kind]((H, D), COND, rng, **options)
        noise = rng.standard_normal(self.net.theta.shape, dtype=np.float32)
        self.net.theta += 0.02 * noise  # so that no layer is at zero
        self.eps_theta = Denoiser(self.net, schedule.alpha_bar)
        self.optimiser = AdamW(self.net.theta)
        self.x0, self.cond = data
        self.rng = rng

    def loss_and_gradient(self, rows, t, eps):
        x0, cond = self.x0[rows], self.cond[rows]
        with Tape() as tape:
            loss = l_simple(schedule, self.eps_theta, x0, t, eps, cond, weight)
        tape.backward(loss)
        return loss.data, flat_gradient(self.net.params)

    def step(self, batch):
        rows = self.rng.integers(0, ROWS, batch)
        t = sample_t(schedule, batch, self.rng)
        eps = self.rng.standard_normal((batch, H, D), np.float32)
        loss, grad = self.loss_and_gradient(rows, t, eps)
        self.optimiser.step(grad, 1e-3)
        return float(loss)

    def plan(self, batch):
        x_T = self.rng.standard_normal((batch, H, D), np.float32)
        cond = self.cond[:batch]
        for _ in ancestral_sampling(schedule, self.eps_theta, x_T, cond, self.rng, clip=CLIP):
            pass


class Theirs:
    """PyTorch, with the same weights on the same data."""

    def __init__(self, kind, ours, fused):
        self.forward = TORCH_NETWORKS[kind]
        self.net = ours.net
        self.params = {name: as_torch(p.data) for name, p in ours.net.params.items()}
        self.averages = [p.detach().clone() for p in self.params.values()]
        self.optimiser = torch.optim.AdamW(self.params.values(), lr=1e-3, weight_decay=1e-4,
                                           foreach=not fused, fused=fused)
        eps_theta = ours.eps_theta
        self.signal = torch.tensor(eps_theta.signal)
        self.noise = torch.tensor(eps_theta.noise)
        self.c_in = torch.tensor(eps_theta.c_in)
        self.embedding = torch.tensor(eps_theta.embedding)
        self.weight = torch.tensor(weight.astype(np.float32)[:, None, None])
        self.x0 = torch.tensor(ours.x0)
        self.cond = torch.tensor(ours.cond)

    def eps_theta(self, x, t, cond):
        v = self.forward(self.params, self.net, self.c_in[t] * x, self.embedding[t], cond)
        return self.noise[t] * x + self.signal[t] * v

    def backward(self, rows, t, eps):
        x_t = self.signal[t] * self.x0[rows] + self.noise[t] * eps
        error = self.eps_theta(x_t, t, self.cond[rows]) - eps
        loss = (self.weight[t] * error ** 2).mean()
        self.optimiser.zero_grad()
        loss.backward()
        return loss.detach()

    def gradient(self):
        """As one vector, in minidiff's layout."""
        return np.concatenate([p.grad.numpy().T.ravel() for p in self.params.values()])

    def step(self, batch):
        loss = self.backward(torch.randint(0, ROWS, (batch,)), torch.randint(1, 101, (batch,)),
                             torch.randn(batch, H, D))
        self.optimiser.step()
        weights = [p.detach() for p in self.params.values()]
        torch._foreach_lerp_(self.averages, weights, 0.001)
        return float(loss)

    @torch.no_grad()
    def plan(self, batch):
        x = torch.randn(batch, H, D)
        cond = self.cond[:batch]
        for t in range(100, 0, -1):
            eps = self.eps_theta(x, torch.full((batch,), t), cond)
            x0 = ((x - self.noise[t] * eps) / self.signal[t]).clamp(-CLIP, CLIP)
            x = float(schedule.c_x0[t]) * x0 + float(schedule.c_xt[t]) * x
            if t > 1:
                x = x + float(schedule.beta_tilde[t]) ** 0.5 * torch.randn(batch, H, D)


def matrix_products(net, batch):
    """Those of a training step: forward, gradient of the weights, gradient of the input."""
    pairs = []
    for name, p in net.params.items():
        if not name.endswith("W"):
            continue
        taps = p.data if p.data.ndim == 3 else p.data[None]
        for j, W in enumerate(taps):
            steps = 1
            if len(taps) > 1:
                steps = H - abs(j - len(taps) // 2)
            elif isinstance(net, ConvNet) and name == "out.W":
                steps = H
            x, g = (np.ones((steps * batch, n), np.float32) for n in W.shape)
            pairs += [(x, W), (x.T, g)]
            if name not in ("in.W", "context.W"):  # nothing needs the gradient of the data
                pairs.append((g, W.T))
    return pairs


def multiply(pairs):
    for a, b in pairs:
        a @ b


# ---- the contest ---------------------------------------------------------------------------------

def agreement(ours, theirs, rng, batch=64):
    """The largest difference of the two gradients, relative to the largest entry."""
    rows = rng.integers(0, ROWS, batch)
    t = sample_t(schedule, batch, rng)
    eps = rng.standard_normal((batch, H, D), np.float32)
    loss, grad = ours.loss_and_gradient(rows, t, eps)
    reference = theirs.backward(*map(torch.tensor, (rows, t, eps)))
    torch_grad = theirs.gradient()
    error = np.abs(grad - torch_grad).max() / np.abs(torch_grad).max()
    assert np.isclose(loss, reference, rtol=1e-4) and error < 1e-3, (loss, reference, error)
    return error


def contest(kind, args, sheet):
    rng = np.random.default_rng(0)
    options = {"width": args.width or WIDTHS[kind], "blocks": args.blocks}
    data = (rng.standard_normal((ROWS, H, D), dtype=np.float32),
            rng.standard_normal((ROWS, COND), dtype=np.float32))
    ours = Ours(kind, options, data, rng)
    theirs = Theirs(kind, ours, args.fused)
    error = agreement(ours, theirs, rng)
    print(f"\n{kind}: {ours.net.theta.size:,} parameters, width {options['width']}, "
          f"{args.blocks} blocks; loss and gradient agree with PyTorch's "
          f"({error:.0e} of the largest entry)")
    pairs = matrix_products(ours.net, args.batch)
    sheet.add(f"{kind}: training step", race(ours.step, theirs.step, args.batch, args))
    sheet.add(f"{kind}: training step, its matrix products",
              race(ours.step, lambda batch: multiply(pairs), args.batch, args))
    for batch in (1, 50):
        sheet.add(f"{kind}: plan by 100 steps, batch {batch}",
                  race(ours.plan, theirs.plan, batch, args, repeat=1))


def race(ours, theirs, batch, args, repeat=None):
    """The times of ours(batch) and theirs(batch) in ms and their ratio, over args.rounds rounds."""
    repeat = repeat or args.repeat

    def clock(f):
        start = time.process_time()
        for _ in range(repeat):
            stopping.safe_point()
            f(batch)
        return 1000 * (time.process_time() - start) / repeat

    for f in (ours, theirs):
        clock(f)
    times = np.array([(clock(ours), clock(theirs)) for _ in range(args.rounds)])
    ratio = times[:, 0] / times[:, 1]
    a, b = np.median(times, axis=0)
    return {"minidiff": a, "PyTorch": b, "ratio": np.median(ratio), "least ratio": ratio.min(),
            "largest ratio": ratio.max()}


def main(arguments):
    options = parser("against_torch", __doc__)
    options.add_argument("--nets", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    options.add_argument("--width", type=int, default=0, help="0: the default of each network")
    options.add_argument("--blocks", type=int, default=3)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--rounds", type=int, default=21, help="rounds of taking turns")
    options.add_argument("--repeat", type=int, default=10, help="training steps in a turn")
    options.add_argument("--fused", action="store_true",
                         help="PyTorch's fused AdamW in place of foreach")
    args = options.parse_args(arguments)
    sheet = Sheet(args.json)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"NumPy {np.__version__}, PyTorch {torch.__version__}, one thread, {args.rounds} rounds")
    for kind in args.nets:
        contest(kind, args, sheet)


if __name__ == "__main__":
    stopping.listen()
    sys.exit(stopping.run("against_torch", main, sys.argv[1:]))
