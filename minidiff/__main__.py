"""The whole method in ten seconds, before any robot: python -m minidiff

The data are single numbers from a mixture of two Gaussians, the two modes. A small network learns
to predict the noise in noised data (eq. 11). Then the forward process adds noise, step by step
(eq. 2) or in one jump (eq. 5). The reverse process leads from pure noise (eq. 7) to new data
(eq. 14). The variational bound (eq. 10) is at least the mean of -log p(x_0), p being the model's
density. At the end it is compared with the entropy of the data, below which no model gets. The
README lists the equations by number.
"""
import signal

if __name__ == "__main__":  # until there is work to save, Ctrl-C ends the program at once
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys

import numpy as np

from . import stopping
from .demos import Task, check
from .diffusion import (
    ancestral_sampling,
    prior,
    q_chain,
    q_mean_variance,
    q_sample,
    variational_bound,
)
from .policy import from_trainer
from .progress import Progress
from .training import Config, Trainer

MEANS = np.array([-1.0, 0.6])
SPREAD = 0.15  # standard deviation of each mode
SHARE = 0.3  # probability of the first mode
BINS = np.linspace(-3, 3, 49)  # of the histograms
SHOWN = 0, 5, 10, 20, 35, 50, 70, 100  # timesteps of which a histogram is printed
JUMP = 50  # the timestep that is also reached in one jump
BARS = " ▁▂▃▄▅▆▇█"
PLAIN_BARS = " .:-=+*#@"  # for a terminal that cannot show the others


def no_features(obs, frame):
    """What the network sees of B observations: nothing, (B, 0)."""
    return np.zeros((len(obs), 0), np.float32)


def no_frame(obs):
    """The coordinate frame of actions, origin 0 and axis 1: they stay as they are."""
    return np.zeros((len(obs), 1), np.float32), np.ones((len(obs), 1, 1), np.float32)


TWO_MODES = Task("two modes", no_features, no_frame, np.zeros((0, 2)), np.array([[-9, 9]]))


def sample_data(n, rng):
    """n numbers of the mixture, (n, 1, 1) float32: batch, horizon and action dimension."""
    mode = (rng.uniform(size=(n, 1, 1)) > SHARE).astype(int)
    return (MEANS[mode] + SPREAD * rng.standard_normal((n, 1, 1))).astype(np.float32)


def demonstrations(x):
    """Numbers (n, 1, 1) as demonstrations: each is the only action of an episode."""
    n = len(x)
    arrays = {"state": np.zeros((n, 0)), "action": x[:, 0], "episode_ends": 1 + np.arange(n)}
    return check(arrays, TWO_MODES)


def entropy():
    """The entropy -E[log q(x_0)] of the data, in nats, by a sum over a fine grid."""
    x = np.linspace(-4, 4, 20_001)
    density = np.zeros_like(x)
    for share, mean in zip((SHARE, 1 - SHARE), MEANS):
        density += share * np.exp(-0.5 * ((x - mean) / SPREAD) ** 2) / (np.sqrt(2 * np.pi) * SPREAD)
    return -(density * np.log(np.maximum(density, 1e-300))).sum() * (x[1] - x[0])


def least_loss(schedule, scale, n, rng):
    """The least possible L_simple, that of eps_theta = E[eps | x_t], estimated from n samples.

    If the mode is known, x_t is Gaussian and E[eps | x_t] is affine in x_t. The mode is not known,
    so this is averaged over both, with their probabilities given x_t (Bayes' rule).
    scale: the data are divided by it, as for the network.
    """
    means, spread = MEANS / scale, SPREAD / scale
    t = rng.integers(1, schedule.T + 1, n)
    eps = rng.standard_normal((n, 1, 1))
    x_t = q_sample(schedule, sample_data(n, rng) / scale, t, eps)[:, 0]  # (n, 1)
    signal, noise = np.sqrt(schedule.alpha_bar[t, None]), 1 - schedule.alpha_bar[t, None]
    variance = signal**2 * spread**2 + noise  # of x_t if the mode is known
    away = x_t - signal * means  # (n, 2): from the mean of x_t in each mode
    weights = [SHARE, 1 - SHARE] * np.exp(-0.5 * away**2 / variance)
    weights /= weights.sum(1, keepdims=True)
    ideal = (weights * away).sum(1, keepdims=True) * np.sqrt(noise) / variance
    return ((eps[:, 0] - ideal) ** 2).mean()


def bars(x):
    """A histogram of x as one line of text."""
    counts = np.histogram(x, BINS)[0]
    shapes = BARS if can_be_shown(BARS) else PLAIN_BARS
    return "".join(shapes[round(8 * count / counts.max())] for count in counts)


def show(name, x):
    print(f"{name:14}{bars(x)}".rstrip())


def can_be_shown(text):
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def two_modes(x):
    """Where the two modes of a sample lie, in words."""
    low, high = x[x < -0.2], x[x >= -0.2]
    share = len(low) / x.size
    return f"{share:.0%} of all at {low.mean():+.2f}, the rest at {high.mean():+.2f}"


def main(steps=3000, samples=5000):
    config = Config(width=64, blocks=2, pred_horizon=1, weight="uniform", steps=steps, ema=0.995)
    rng = np.random.default_rng(0)
    trainer = Trainer(config, TWO_MODES, demonstrations(sample_data(100_000, rng)))
    progress = Progress("training", steps)
    for _ in trainer:
        stopping.safe_point()
        progress.show(trainer.n)

    policy = from_trainer(trainer)
    schedule, eps_theta, scale = policy.schedule, policy.eps_theta, policy.normaliser.scale
    x0 = sample_data(samples, rng) / scale[0, 0].astype(np.float32)  # in the network's units
    nothing = no_features(x0, None)
    print("\nForward: each step adds a little noise (eq. 2), until nothing but noise is left.")
    forward = [x0, *q_chain(schedule, x0, rng)]
    for step in SHOWN:
        show(f"x_{step}", forward[step])
    eps = rng.standard_normal(x0.shape, dtype=np.float32)
    show(f"x_{JUMP} at once", q_sample(schedule, x0, JUMP, eps))
    _, variance = q_mean_variance(schedule, x0, JUMP)
    print(f"The last line is one jump (eq. 5). It has the distribution of x_{JUMP}: "
          f"{variance:.0%} of\nthe mean square is noise, by single steps as by one jump.")

    print("\nReverse: the network's steps lead from noise (eq. 7) back to data (eq. 14).")
    chain = ancestral_sampling(schedule, eps_theta, prior(x0.shape, rng), nothing, rng)
    reverse = list(chain)[::-1]  # reverse[t] is x_t
    for step in SHOWN[::-1]:
        show(f"x_{step}", reverse[step])
    print(f"data:    {two_modes(scale * x0)}\nsamples: {two_modes(scale * reverse[0])}")
    print("Both modes are there, in their proportions; a regression would give their mean.")

    losses = trainer.losses
    least = least_loss(schedule, scale[0, 0], 100_000, rng)
    print(f"\nL_simple (eq. 11) fell from {losses[:20].mean():.3f} to {losses[-500:].mean():.3f}. "
          f"It cannot fall below {least:.3f}:\nx_t alone does not determine the noise in it.")
    bound = variational_bound(schedule, eps_theta, x0, nothing, rng).sum() + np.log(scale[0, 0])
    print(f"The variational bound (eq. 10) is {bound:.3f} nats, the entropy of the data "
          f"{entropy():.3f}.\nNo model gets below the entropy. The gap has two causes: errors "
          "of the\nnetwork, and Gaussian steps of fixed variance where the true ones are mixtures.")


if __name__ == "__main__":
    stopping.Parser(prog="python -m minidiff", description=__doc__).parse_args()
    stopping.listen()
    sys.exit(stopping.run("minidiff", main))
