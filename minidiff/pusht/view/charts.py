"""Line charts, for loss curves: drawn like the other pictures, with the colours and brushes of draw.py."""
import textwrap

import numpy as np

from .drawing import (BLUE, GREEN, GREY, GRID, ORANGE, PAPER, VERMILLION, ZOOM, _put, _pygame, _shrunk, _stroke, _surface,
                   _text, save_png)

# Okabe & Ito, too, in an order in which the first of them differ most for colour-blind readers.
SERIES = (BLUE, VERMILLION, GREEN, (0, 0, 0), (86, 180, 233), ORANGE, (204, 121, 167))


def curves(path, series, title, xlabel, ylabel, log_y=True, note=""):
    """Write a line chart as a PNG of about 1250 x 700 px. series: list of (name, x, y), x and y (N,).

    A value that is not finite (or, with log_y, not positive) leaves a gap. Each name stands right of the
    plot, near the height where its line ends, so that it hides no data. note: grey lines under the title.
    """
    pg, data, plot_w, plot_h = _pygame(), [], 900, 500
    for _, x, y in series:
        x, y = np.array(x, float), np.array(y, float)
        y[~np.isfinite(x) | ~np.isfinite(y) | (log_y & (y <= 0))] = np.nan
        data.append(np.stack([x, np.log10(y) if log_y else y], -1))  # (N, 2)
    shown = np.concatenate([np.zeros((0, 2))] + [xy[~np.isnan(xy[:, 1])] for xy in data])
    x_low, x_high, x_ticks = _linear_axis(shown[:, 0], near=0.05)
    y_low, y_high, y_ticks = _log_axis(shown[:, 1]) if log_y else _linear_axis(shown[:, 1])

    names, y_texts = [_text(pg, name, 19) for name, _, _ in series], [_text(pg, tick, 17, GREY) for _, tick in y_ticks]
    head = [_text(pg, title, 27)] + [_text(pg, line, 18, GREY) for line in textwrap.wrap(note, 110)]
    left, top = 100 + max(text.get_width() for text in y_texts), 64 + 26 * len(head)
    right, bottom = left + plot_w, top + plot_h
    beside = max([0] + [52 + text.get_width() for text in names])
    width = max([right + beside] + [left + text.get_width() for text in head]) + 40
    big = _surface(pg, ZOOM * width, ZOOM * (bottom + 100), PAPER)

    def at(xy):  # values -> px of the picture
        return [left, bottom] + (xy - [x_low, y_low]) / [x_high - x_low, y_low - y_high] * [plot_w, plot_h]

    def line(points, color, width):
        _stroke(pg, big, ZOOM * np.asarray(points), color, ZOOM * width)

    x_at, y_at = ([at(np.array([x, y_low]))[0] for x, _ in x_ticks], [at(np.array([x_low, y]))[1] for y, _ in y_ticks])
    for x in x_at:
        line([[x, top], [x, bottom]], GRID, 1)
    for y in y_at:
        line([[left, y], [right, y]], GRID, 1)
    line([[left, top], [left, bottom], [right, bottom]], GREY, 2)
    ends = []
    for i, xy in enumerate(data):
        pieces = np.split(at(xy), np.flatnonzero(np.diff(np.isnan(xy[:, 1]))) + 1)
        pieces = [piece for piece in pieces if len(piece) and not np.isnan(piece[0, 1])]
        for piece in pieces:
            line(piece, SERIES[i % len(SERIES)], 2.5 if len(piece) > 1 else 8)
        ends.append(pieces[-1][-1, 1] if pieces else bottom)
    ends = _spread(np.array(ends), min(28, plot_h / max(1, len(ends))), bottom)
    for i, y in enumerate(ends):
        line([[right + 16, y], [right + 42, y]], SERIES[i % len(SERIES)], 4)

    canvas = pg.surfarray.make_surface(_shrunk(pg, big).swapaxes(0, 1))
    for text, y in zip(names, ends):
        _put(canvas, text, right + 52, y, down=0.5)
    for text, y in zip(y_texts, y_at):
        _put(canvas, text, left - 14, y, across=1, down=0.5)
    for x, (_, tick) in zip(x_at, x_ticks):
        _put(canvas, _text(pg, tick, 17, GREY), x, bottom + 12, across=0.5)
    for i, text in enumerate(head):
        _put(canvas, text, left, 30 if i == 0 else 44 + 26 * i)
    _put(canvas, _text(pg, xlabel, 19), left + plot_w / 2, bottom + 50, across=0.5)
    _put(canvas, pg.transform.rotate(_text(pg, ylabel, 19), 90), 28, top + plot_h / 2, down=0.5)
    save_png(path, pg.surfarray.array3d(canvas).swapaxes(0, 1))


def _linear_axis(values, near=1.0):
    """Lowest and highest value shown, and ticks (value, text) at multiples of 1, 2 or 5 times a power of ten.

    An end of the axis moves out to the next tick where that makes it at most the share `near` longer.
    """
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value only: room on both sides
        low, high = low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1)
    span = high - low
    decade = 10.0 ** np.floor(np.log10(span / 6))
    step = decade * next(m for m in (1, 2, 5, 10) if m * decade >= span / 6)
    first, last = np.floor(low / step + 1e-6), np.ceil(high / step - 1e-6)
    low, first = (first * step, first) if low - first * step <= near * span else (low, first + 1)
    high, last = (last * step, last) if last * step - high <= near * span else (high, last - 1)
    return low, high, [(tick, f"{tick:,.10g}") for tick in step * np.arange(first, last + 1) + 0.0]


def _log_axis(values):
    """As `_linear_axis`, for logarithms to base 10: ticks at 1, 2, 5 or, over many decades, at 1 only."""
    low, high = (values.min(), values.max()) if len(values) else (-1.0, 0.0)
    every = int(np.ceil((high - low) / 8)) or 1  # a tick every so many decades
    decades = range((int(low // every) - 1) * every, (int(high // every) + 3) * every, every)
    ticks = [(d + np.log10(m), f"{m * 10.0 ** d:,.10g}" if -5 < d < 6 else f"{m}e{d}")
             for d in decades for m in ((1, 2, 5) if high - low <= 3 else (1,))]
    first = max(i for i, (tick, _) in enumerate(ticks) if tick <= low + 1e-9)
    last = min(i for i, (tick, _) in enumerate(ticks) if tick >= high - 1e-9)
    if first == last:  # one value only, and a tick itself: room on both sides
        first, last = first - 1, last + 1
    return ticks[first][0], ticks[last][0], ticks[first:last + 1]


def _spread(wanted, apart, high):
    """Heights near wanted (N,), at least `apart` from each other and at most `high`, in the same order."""
    placed, order = wanted.astype(float), np.argsort(wanted, kind="stable")
    for before, i in zip(order[:-1], order[1:]):
        placed[i] = max(placed[i], placed[before] + apart)
    for i in order[::-1]:
        placed[i], high = min(placed[i], high), min(placed[i], high) - apart
    return placed
