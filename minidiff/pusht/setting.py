"""What train.py asks of its task: demonstrations, scores, pictures."""
import math
import os

import numpy as np

from ..progress import Progress
from . import EXPERT_DEMOS, rollout, scores
from .features import PUSHT
from .view import charts, films
from .workers import Workers

TASK = PUSHT
DEMOS = EXPERT_DEMOS
SCORE_SEED = 5000  # a seed for tuning, and no start of the demonstrations (those lie below 3000)
LOSS_TITLES = {"simple": "L_simple, lambda = {weight}", "hybrid": "L_hybrid, lambda = {weight}",
               "bound": "L_vlb", "mse": "mean squared error", "mip": "both mean squared errors",
               "mixture": "-log p"}


def score(policy, name, episodes):
    """The summary of so many episodes (scores.summary), on all cores.

    If it had to end early, `incomplete` says why, and the summary is that of the episodes that are
    over, if there are any.
    """
    seeds = range(SCORE_SEED, SCORE_SEED + episodes)
    chunks = math.ceil(episodes / rollout.CHUNK)
    progress = Progress(f"scoring ({name})", episodes)
    try:
        with Workers(min(os.cpu_count(), chunks)) as executor:
            return scores.summary(rollout.evaluate(policy, seeds, executor, progress=progress.show))
    except rollout.Unfinished as error:
        summary = scores.summary(error.episodes) if error.episodes else {"n": 0}
        return summary | {"incomplete": str(error)}


def sentence(summary):
    """A summary in one line."""
    return scores.sentence(summary) if summary["n"] else "no episode is over"


def draw_loss(path, trainer):
    """The loss, as means over hundredths of the run, and the loss by quarters of the chain."""
    config = trainer.config
    width = max(1, trainer.n // 100)
    means = trainer.losses[:trainer.n // width * width].reshape(-1, width).mean(1)
    lines = [("training loss", (np.arange(len(means)) + 0.5) * width, means)]
    note = f"training loss: means over {width} steps"
    points, quarters = trainer.loss_by_t.shape
    step = np.arange(points) * config.steps / points
    ends = [1 + q * config.T // quarters for q in range(quarters + 1)]
    for q, (low, high) in enumerate(zip(ends, ends[1:])):
        by_t = trainer.loss_by_t[:, q]
        if high > low and np.isfinite(by_t).any():
            lines.append((f"t = {low}..{high - 1}", step, by_t))
    if len(lines) > 1:
        note += "; the others: quarters of the chain"
    title = LOSS_TITLES[config.objective].format(weight=config.weight)
    positive = not any((y <= 0).any() for _, _, y in lines)  # -log p may well be below 0
    charts.curves(path, lines, f"{title}, {config.net}", "gradient step", "loss", positive, note)


def draw_episodes(path, before, after, episodes):
    """The first episodes as film strips, by the policy before and after its training."""
    films.film(path, after, range(SCORE_SEED, SCORE_SEED + episodes), before=before)
