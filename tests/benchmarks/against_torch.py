"""The speed of a training step and of a plan, beside PyTorch eager on the same network, and beside the bare GEMMs.

    pip install -e '.[benchmarks]'
    python tests/benchmarks/against_torch.py                the default MLP and ConvNet
    python tests/benchmarks/against_torch.py --width 512 --blocks 4 --nets mlp

One thread each, CPU time of this process, the contestants in turn; the figures are medians over the rounds of the
times and of the ratios within a round. Both start from the same weights, and must agree on loss and gradient first.
"""
import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import minidiff  # noqa: E402  (first: one BLAS thread)
import numpy as np  # noqa: E402

os.environ.setdefault("OMP_NUM_THREADS", "1")
try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("this comparison needs PyTorch: pip install torch")

from minidiff.diffusion import ancestral_sampling, cosine_schedule, l_simple, loss_weight, sample_t  # noqa: E402
from minidiff.nn import NETWORKS, ConvNet, Denoiser  # noqa: E402
from minidiff.optim import AdamW, flat_gradient, keep_freed_memory  # noqa: E402
from minidiff.tensor import Tape  # noqa: E402

H, D, COND, CLIP = 16, 2, 38, 4.0
schedule = cosine_schedule(100)
weight = loss_weight(schedule, "inverse-alpha-bar")


def as_torch(name, array):
    """A parameter in PyTorch's own layout: Linear (O, I), Conv1d (O, I, K)."""
    return torch.tensor(np.ascontiguousarray(array.T) if array.ndim > 1 else array, requires_grad=True)


def torch_mlp(p, net, x, embedding, cond):
    def block(i, h):
        h = F.layer_norm(h, (h.shape[-1],), p[f"{i}.gain"], p[f"{i}.bias"])
        return F.linear(F.silu(F.linear(h, p[f"{i}.1.W"], p[f"{i}.1.b"])), p[f"{i}.2.W"], p[f"{i}.2.b"])
    h = F.linear(torch.cat([x.flatten(1), embedding, cond], 1), p["in.W"], p["in.b"])
    for i in range(net.blocks):
        h = h + block(i, h)
    return block(net.blocks, h).view(-1, H, D)


def torch_conv(p, net, x, embedding, cond):
    def norm(h, gain, bias):
        return F.silu(F.group_norm(h, net.groups) * gain[..., None] + bias[..., None])
    conv = lambda h, name: F.conv1d(h, p[f"{name}.W"], p[f"{name}.b"], padding="same")
    known = F.silu(F.linear(torch.cat([embedding, cond], 1), p["known.W"], p["known.b"]))
    h = conv(x.transpose(1, 2), "in") + F.linear(known, p["start.W"], p["start.b"]).view(len(x), H, -1).transpose(1, 2)
    for i in range(net.blocks):
        film = F.linear(known, p[f"{i}.film.W"], p[f"{i}.film.b"])
        gain_1, bias_1, gain_2, bias_2 = film.chunk(4, 1)
        r = conv(norm(h, 1 + gain_1, bias_1), f"{i}.1")
        h = h + conv(norm(r, 1 + gain_2, bias_2), f"{i}.2")
    h = F.silu(F.group_norm(h, net.groups, p["out.gain"], p["out.bias"]))
    return F.linear(h.transpose(1, 2), p["out.W"], p["out.b"])


def gemms(net, batch):
    """The matrix products of a training step alone: forward, gradient of the weights, gradient of the input."""
    pairs = []
    for name, p in net.params.items():
        if not name.endswith("W"):
            continue
        taps = p.data if p.data.ndim == 3 else p.data[None]
        for j, W in enumerate(taps):
            steps = H - abs(j - len(taps) // 2) if len(taps) > 1 or isinstance(net, ConvNet) and name == "out.W" else 1
            x, g = (np.ones((steps * batch, n), np.float32) for n in W.shape)
            first = name in ("in.W", "known.W")  # nothing needs the gradient of the data
            pairs += [(x, W), (x.T, g)] + ([] if first else [(g, W.T)])
    return lambda: [a @ b for a, b in pairs]


def contest(kind, args):
    rng = np.random.default_rng(0)
    options = {"width": args.width or {"mlp": 256, "conv": 64}[kind], "blocks": args.blocks}
    net = NETWORKS[kind]((H, D), COND, rng, **options)
    net.theta += 0.02 * rng.standard_normal(net.theta.shape, dtype=np.float32)  # so that no layer is at zero
    eps_theta, optimiser = Denoiser(net, schedule.alpha_bar), AdamW(net.theta)
    params = {name: as_torch(name, p.data) for name, p in net.params.items()}
    torch_net = {"mlp": torch_mlp, "conv": torch_conv}[kind]
    averages = [p.detach().clone() for p in params.values()]
    torch_optimiser = torch.optim.AdamW(params.values(), lr=1e-3, weight_decay=1e-4, foreach=not args.fused,
                                        fused=args.fused)
    signal, noise, gain, embedding, lam = (torch.tensor(a) for a in (
        eps_theta.signal, eps_theta.noise, eps_theta.gain, eps_theta.embedding, weight.astype(np.float32)[:, None, None]))
    x0 = rng.standard_normal((50_000, H, D), dtype=np.float32)
    cond = rng.standard_normal((50_000, COND), dtype=np.float32)
    torch_x0, torch_cond = torch.tensor(x0), torch.tensor(cond)

    def torch_eps_theta(x, t, c):
        return noise[t] * x + signal[t] * torch_net(params, net, gain[t] * x, embedding[t], c)

    def numpy_loss(i, t, eps):
        with Tape() as tape:
            loss = l_simple(schedule, eps_theta, x0[i], t, eps, cond[i], weight)
        tape.backward(loss)
        return loss.data, flat_gradient(net.params)

    def torch_loss(i, t, eps):
        x_t = signal[t] * torch_x0[i] + noise[t] * eps
        loss = (lam[t] * (torch_eps_theta(x_t, t, torch_cond[i]) - eps) ** 2).mean()
        torch_optimiser.zero_grad()
        loss.backward()
        return loss.detach()

    i, t, eps = rng.integers(0, 50_000, 64), sample_t(schedule, 64, rng), rng.standard_normal((64, H, D), np.float32)
    loss, grad = numpy_loss(i, t, eps)
    reference = torch_loss(*map(torch.tensor, (i, t, eps)))
    torch_grad = np.concatenate([p.grad.numpy().T.ravel() for p in params.values()])
    error = np.abs(grad - torch_grad).max() / np.abs(torch_grad).max()
    assert np.isclose(loss, reference, rtol=1e-4) and error < 1e-3, (loss, reference, error)

    def numpy_step():
        loss, grad = numpy_loss(rng.integers(0, 50_000, args.batch), sample_t(schedule, args.batch, rng),
                                rng.standard_normal((args.batch, H, D), np.float32))
        optimiser.step(grad, 1e-3)
        return float(loss)

    def torch_step():
        loss = torch_loss(torch.randint(0, 50_000, (args.batch,)), torch.randint(1, 101, (args.batch,)),
                          torch.randn(args.batch, H, D))
        torch_optimiser.step()
        torch._foreach_lerp_(averages, [p.detach() for p in params.values()], 0.001)
        return float(loss)

    def numpy_plan(batch):
        x_T = rng.standard_normal((batch, H, D), np.float32)
        for x in ancestral_sampling(schedule, eps_theta, x_T, cond[:batch], rng, clip=CLIP):
            pass

    @torch.no_grad()
    def torch_plan(batch):
        x, c = torch.randn(batch, H, D), torch_cond[:batch]
        for t in range(100, 0, -1):
            eps = torch_eps_theta(x, torch.full((batch,), t), c)
            x_0 = ((x - noise[t] * eps) / signal[t]).clamp(-CLIP, CLIP)
            x = float(schedule.c_x0[t]) * x_0 + float(schedule.c_xt[t]) * x
            if t > 1:
                x = x + float(schedule.beta_tilde[t]) ** 0.5 * torch.randn(batch, H, D)

    print(f"\n{kind}: {net.theta.size:,} parameters, width {options['width']}, {args.blocks} blocks; loss and gradient "
          f"agree with PyTorch's ({error:.0e} of the largest entry)")
    print(f"{'':28}{'minidiff':>10}{'PyTorch':>10}{'ratio':>8}{'min':>8}{'max':>8}")
    race(f"training step, batch {args.batch}", numpy_step, torch_step, args.rounds, args.repeat)
    race("  against bare GEMMs", numpy_step, gemms(net, args.batch), args.rounds, args.repeat)
    for batch in (1, 50):
        race(f"100-step plan, batch {batch}", lambda: numpy_plan(batch), lambda: torch_plan(batch), args.rounds, 1)


def race(name, ours, theirs, rounds, repeat):
    def clock(f):
        start = time.process_time()
        for _ in range(repeat):
            f()
        return 1000 * (time.process_time() - start) / repeat
    for f in (ours, theirs):
        clock(f)
    times = np.array([(clock(ours), clock(theirs)) for _ in range(rounds)])
    ratio = times[:, 0] / times[:, 1]
    a, b = np.median(times, axis=0)
    print(f"{name:28}{a:7.2f} ms{b:7.2f} ms{np.median(ratio):8.2f}{ratio.min():8.2f}{ratio.max():8.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--width", type=int, default=0, help="0: the default of each network")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=21, help="rounds of taking turns")
    parser.add_argument("--repeat", type=int, default=10, help="training steps in a turn")
    parser.add_argument("--fused", action="store_true", help="PyTorch's fused AdamW in place of foreach")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"NumPy {np.__version__}, PyTorch {torch.__version__}, one thread, {args.rounds} rounds")
    for kind in args.nets:
        contest(kind, args)


if __name__ == "__main__":
    main()
