"""The whole method in a few seconds, before any robot: python -m minidiff

Data of one number each, from a law of two modes. Noise it step by step (equations 1-5), train a small network to see
the noise (11, 12), walk back (6, 7, 14), and compare the variational bound (8-10) with the least that is possible.
"""
import numpy as np

from .diffusion import ancestral_sampling, cosine_schedule, l_simple, loss_weight, q_chain, sample_t, variational_bound
from .nn import MLP, Denoiser
from .optim import AdamW, flat_gradient, keep_freed_memory, learning_rate
from .progress import Progress
from .tensor import Tape

MEANS, SPREAD, SHARE = np.array([-1.0, 0.6]), 0.15, 0.3  # 30 % at -1, the rest at 0.6
BINS = np.linspace(-3, 3, 49)


def draw_data(n, rng):
    """(n, 1, 1) float32: batch, horizon and action dimension, as everywhere."""
    mode = (rng.uniform(size=(n, 1, 1)) > SHARE).astype(int)
    return (MEANS[mode] + SPREAD * rng.standard_normal((n, 1, 1))).astype(np.float32)


def nothing(n):
    """The features of an observation that there is not."""
    return np.zeros((n, 0), np.float32)


def entropy():
    """-E log q(x_0) of the two modes, in nats, by a sum over a fine grid."""
    x = np.linspace(-4, 4, 20_001)
    density = sum(w * np.exp(-0.5 * ((x - m) / SPREAD) ** 2) for w, m in zip((SHARE, 1 - SHARE), MEANS))
    density /= np.sqrt(2 * np.pi) * SPREAD
    return -(density * np.log(np.maximum(density, 1e-300))).sum() * (x[1] - x[0])


def train(schedule, steps, rng):
    """-> eps_theta with the averaged weights, and the losses (steps,)."""
    net = MLP((1, 1), 0, rng, width=64, blocks=2)
    eps_theta, optimiser = Denoiser(net, schedule.alpha_bar), AdamW(net.theta, ema_decay=0.995)
    weight, losses, progress = loss_weight(schedule, "uniform"), np.zeros(steps), Progress("training", steps)
    for n in range(steps):
        x0 = draw_data(256, rng)
        with Tape() as tape:
            loss = l_simple(schedule, eps_theta, x0, sample_t(schedule, 256, rng),
                            rng.standard_normal(x0.shape, dtype=np.float32), nothing(256), weight)
        tape.backward(loss)
        optimiser.step(flat_gradient(net.params), learning_rate(n, steps, 3e-3))
        losses[n] = loss.data
        progress.show(n + 1)
    net.theta[:] = optimiser.ema
    return eps_theta, losses


def bars(x):
    """A histogram of x in one line."""
    counts = np.histogram(x, BINS)[0]
    return "".join(" ▁▂▃▄▅▆▇█"[round(8 * count / counts.max())] for count in counts)


def main(steps=3000, samples=5000):
    keep_freed_memory()
    rng = np.random.default_rng(0)
    schedule = cosine_schedule(100)
    x0 = draw_data(samples, rng)
    forward = [x0, *q_chain(schedule, x0, rng)]

    eps_theta, losses = train(schedule, steps, rng)
    chain = ancestral_sampling(schedule, eps_theta, rng.standard_normal(x0.shape, dtype=np.float32), nothing(samples), rng)
    reverse = list(chain)[::-1]  # reverse[t] is x_t

    print(f"{'':7}{'forward: q(x_t), read downwards':^48}   {'reverse: p_theta(x_t), read upwards':^48}")
    for t in (0, 5, 10, 20, 35, 50, 70, 100):
        print(f"t = {t:3}{bars(forward[t])}   {bars(reverse[t])}")
    low = lambda x: f"{(x < -0.2).mean():.0%} of all at {x[x < -0.2].mean():+.2f}, the rest at {x[x >= -0.2].mean():+.2f}"
    print(f"\ndata:    {low(x0)}\nsamples: {low(reverse[0])}")
    print(f"\nL_simple fell from {losses[:20].mean():.3f} to {losses[-500:].mean():.3f}")
    bound = variational_bound(schedule, eps_theta, x0, nothing(samples), rng).sum()
    print(f"variational bound: {bound:.3f} nats; no model can do better than the entropy of the data, {entropy():.3f}")


if __name__ == "__main__":
    main()
