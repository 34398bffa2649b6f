"""Line charts, as of the loss, with the colours and drawing functions of drawing.py."""
import itertools
import textwrap

import numpy as np

from . import drawing
from .drawing import BLUE, GREEN, GREY, GRID, ORANGE, PAPER, VERMILLION, ZOOM, put, render_text

BLACK = (0, 0, 0)
# Okabe & Ito's palette again; the first colours differ most for colour-blind readers.
SERIES = (BLUE, VERMILLION, GREEN, BLACK, (86, 180, 233), ORANGE, (204, 121, 167))
WHOLE = tuple((color, False) for color in SERIES)  # lines in these colours, not dashed
BY_T = ((230, 145, 30), (205, 80, 75), (150, 45, 130), (70, 20, 140))  # quarters of t, ever darker
WIDTH, HEIGHT = 900, 500  # px of the plot, between its axes
NAMES, SMALL = 22, 20  # px of the letters
LOSS_TITLES = {"simple": "L_simple, lambda = {weight}", "hybrid": "L_hybrid, lambda = {weight}",
               "bound": "L_vlb", "mse": "mean squared error", "mip": "both mean squared errors",
               "mixture": "-log p"}


def loss(path, trainer):
    """Draw a Trainer's loss: means over hundredths of the run, and L_simple by quarters of t."""
    config = trainer.config
    width = max(1, trainer.n // 100)
    means = trainer.losses[:trainer.n // width * width].reshape(-1, width).mean(1)
    lines = [("training loss", (np.arange(len(means)) + 0.5) * width, means)]
    styles = [(BLACK, False)]
    note = f"training loss: means over {width} steps"
    points, quarters = trainer.loss_by_t.shape
    step = np.arange(points) * config.steps / points
    ends = [1 + q * config.T // quarters for q in range(quarters + 1)]
    for q, (low, high) in enumerate(zip(ends, ends[1:])):
        by_t = trainer.loss_by_t[:, q]
        if high > low and np.isfinite(by_t).any():
            words = {0: ": least noise", quarters - 1: ": most noise"}.get(q, "")
            lines.append((f"t = {low}..{high - 1}{words}", step, by_t))
            styles.append((BY_T[q], False))
    if len(lines) > 1:
        note += "; the others: quarters of the chain"
    title = LOSS_TITLES[config.objective].format(weight=config.weight)
    positive = not any((y <= 0).any() for _, _, y in lines)  # -log p may well be below 0
    curves(path, lines, f"{title}, {config.net}", "gradient step", "loss", positive, note, styles)


def curves(path, series, title, xlabel, ylabel, log_y=True, note="", styles=WHOLE, words=()):
    """Write a line chart as a PNG of about 1300 x 700 px. series: list of (name, x (N,), y (N,)).

    A value that is not finite (or, with log_y, not positive) leaves a gap. Each name stands to the
    right of the plot, near the height where its line ends. note: grey lines under the title.
    styles: for each series (colour, whether its line is dashed); they repeat if there are more
    series. words: list of (text, x, y), each written above and to the right of its point.
    """
    pg = drawing.load_pygame()
    data = [_points(x, y, log_y) for _, x, y in series]
    shown = np.concatenate([np.zeros((0, 2))] + [xy[~np.isnan(xy[:, 1])] for xy in data])
    x_low, x_high, x_ticks = linear_axis(shown[:, 0], near=0.05)
    y_low, y_high, y_ticks = log_axis(shown[:, 1]) if log_y else linear_axis(shown[:, 1])

    names = [render_text(pg, name, NAMES) for name, _, _ in series]
    y_texts = [render_text(pg, text, SMALL, GREY) for _, text in y_ticks]
    head = [render_text(pg, title, 29)]
    head += [render_text(pg, line, SMALL, GREY) for line in textwrap.wrap(note, 110)]
    left = 100 + max(text.get_width() for text in y_texts)
    right = left + WIDTH
    top = 64 + 26 * len(head)
    bottom = top + HEIGHT
    ends_at = [right] + [right + 52 + text.get_width() for text in names]
    ends_at += [left + text.get_width() for text in head]
    big = drawing.blank(pg, ZOOM * (max(ends_at) + 40), ZOOM * (bottom + 100), PAPER)

    def to_px(xy):
        share = (xy - [x_low, y_low]) / [x_high - x_low, y_low - y_high]
        return [left, bottom] + share * [WIDTH, HEIGHT]

    def line(points, color, width, dashed=False):
        points = np.array(points, float)
        for piece in _dashes(points) if dashed else [points]:
            drawing.stroke(pg, big, ZOOM * piece, color, ZOOM * width)

    ticks_x = [to_px(np.array([tick, y_low]))[0] for tick, _ in x_ticks]
    ticks_y = [to_px(np.array([x_low, tick]))[1] for tick, _ in y_ticks]
    for x in ticks_x:
        line([[x, top], [x, bottom]], GRID, 1)
    for y in ticks_y:
        line([[left, y], [right, y]], GRID, 1)
    line([[left, top], [left, bottom], [right, bottom]], GREY, 2)
    ends = []  # the height of each line's end
    for xy, (color, dashed) in zip(data, itertools.cycle(styles)):
        pieces = _pieces(to_px(xy))
        for piece in pieces:
            line(piece, color, 2.5 if len(piece) > 1 else 8, dashed)
        ends.append(pieces[-1][-1, 1] if pieces else bottom)
    ends = spread_out(np.array(ends), min(28, HEIGHT / max(1, len(ends))), bottom)
    for y, (color, dashed) in zip(ends, itertools.cycle(styles)):
        line([[right + 16, y], [right + 42, y]], color, 4, dashed)

    canvas = drawing.to_surface(pg, drawing.shrink(pg, big))
    for text, y in zip(names, ends):
        put(canvas, text, right + 52, y, down=0.5)
    for text, x, y in words:
        at_x, at_y = to_px(_points([x], [y], log_y))[0]
        put(canvas, render_text(pg, text, NAMES), at_x + 6, at_y - 6, down=1)
    for text, y in zip(y_texts, ticks_y):
        put(canvas, text, left - 14, y, across=1, down=0.5)
    for x, (_, text) in zip(ticks_x, x_ticks):
        put(canvas, render_text(pg, text, SMALL, GREY), x, bottom + 12, across=0.5)
    for i, text in enumerate(head):
        put(canvas, text, left, 30 if i == 0 else 44 + 26 * i)
    put(canvas, render_text(pg, xlabel, NAMES), left + WIDTH / 2, bottom + 50, across=0.5)
    upright = pg.transform.rotate(render_text(pg, ylabel, NAMES), 90)
    put(canvas, upright, 28, top + HEIGHT / 2, down=0.5)
    drawing.save_png(path, pg.surfarray.array3d(canvas).swapaxes(0, 1))


def _points(x, y, log_y):
    """x and y (N,) as points (N, 2), y as its logarithm with log_y; NaN where there is a gap."""
    x = np.array(x, float)
    y = np.array(y, float)
    y[~np.isfinite(x) | ~np.isfinite(y)] = np.nan
    if log_y:
        y[y <= 0] = np.nan
        y = np.log10(y)
    return np.stack([x, y], -1)


def _pieces(points):
    """Points (N, 2), cut at the gaps: a list of arrays (n, 2), none of them empty."""
    gap = np.isnan(points[:, 1])
    pieces = np.split(points, np.flatnonzero(np.diff(gap)) + 1)
    return [piece for piece in pieces if len(piece) and not np.isnan(piece[0, 1])]


def _dashes(points, length=9):
    """A line (N, 2) cut into dashes, arrays (n, 2) with a point for each px of their length."""
    along = np.cumsum([0, *np.hypot(*np.diff(points, axis=0).T)])  # (N,) px from its start
    at = np.arange(along[-1] + 1)
    fine = np.stack([np.interp(at, along, values) for values in points.T], -1)
    return [fine[start:start + length] for start in range(0, len(fine), 2 * length)]


def linear_axis(values, near=1.0):
    """Lowest and highest value shown, and ticks (value, text) at 1, 2 or 5 times a power of ten.

    Each end is moved out to the next tick, if that lengthens the axis by at most the share `near`.
    """
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value only: room on both sides
        low -= abs(low) / 2 or 1
        high += abs(high) / 2 or 1
    span = high - low
    decade = 10.0 ** np.floor(np.log10(span / 6))
    step = decade * next(m for m in (1, 2, 5, 10) if m * decade >= span / 6)
    first = np.floor(low / step + 1e-6)
    if low - first * step <= near * span:
        low = first * step
    else:
        first += 1
    last = np.ceil(high / step - 1e-6)
    if last * step - high <= near * span:
        high = last * step
    else:
        last -= 1
    ticks = step * np.arange(first, last + 1) + 0.0  # 0.0: no tick is -0
    return low, high, [(tick, f"{tick:,.10g}") for tick in ticks]


def log_axis(values):
    """As `linear_axis`, for logarithms to base 10: ticks at 1, 2, 5 or, over many decades, at 1."""
    low, high = (values.min(), values.max()) if len(values) else (-1.0, 0.0)
    every = int(np.ceil((high - low) / 8)) or 1  # a tick every so many decades
    within = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = []
    for d in range((int(low // every) - 1) * every, (int(high // every) + 3) * every, every):
        for m in within:
            text = f"{m * 10.0 ** d:,.10g}" if -5 < d < 6 else f"{m}e{d}"
            ticks.append((d + np.log10(m), text))
    first = max(i for i, (tick, _) in enumerate(ticks) if tick <= low + 1e-9)
    last = min(i for i, (tick, _) in enumerate(ticks) if tick >= high - 1e-9)
    if first == last:  # one value only, and a tick itself: room on both sides
        first -= 1
        last += 1
    return ticks[first][0], ticks[last][0], ticks[first:last + 1]


def spread_out(wanted, apart, high):
    """Heights near `wanted` (N,), in the same order: at least `apart` from one another, and at most
    `high`."""
    placed = wanted.astype(float)
    order = np.argsort(wanted, kind="stable")
    for before, i in zip(order[:-1], order[1:]):
        placed[i] = max(placed[i], placed[before] + apart)
    for i in order[::-1]:
        placed[i] = min(placed[i], high)
        high = placed[i] - apart
    return placed
