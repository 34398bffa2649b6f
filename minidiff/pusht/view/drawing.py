"""Pictures of PushT: frames, film strips and a live window, all through pygame.

The only file that imports pygame, and only when something is drawn: training and scoring never need it. All but
`Window` is drawn on plain surfaces, so it works where there is no display. Shapes are drawn ZOOM times too large and
then averaged, which makes every edge smooth; text is added after that.
"""
import functools
import io
import os
import warnings

import numpy as np

from ...checkpoint import write_atomically
from ..geometry import AGENT_RADIUS, GOAL_POSE, WORLD_SIZE, keypoints

# Okabe & Ito's palette, distinct for colour-blind readers too (without its yellow: too pale for lines).
BLUE, VERMILLION, GREEN, ORANGE = (0, 114, 178), (213, 94, 0), (0, 158, 115), (230, 159, 0)
GOAL, BLOCK = (198, 233, 221), (126, 184, 222)  # paler GREEN and BLUE, which edge them
PAPER, FLOOR, GRID, GREY, INK = (255, 255, 255), (250, 250, 247), (226, 226, 222), (105, 105, 105), (40, 40, 40)
FONTS = "helveticaneue,segoeui,dejavusans,liberationsans,arial"  # the first one found, else pygame's own
OUTLINE = [0, 1, 2, 5, 6, 7, 4, 3, 0]  # the way around the T through its keypoints, and back to the first
ZOOM = 3


def frame(state, target=None, plans=None, trail=None, size=512):
    """One picture of the world, (size, size, 3) uint8: goal, block, agent, and what the policy means to do.

    state: (5,) agent x, y, block x, y (px), block angle (rad). target: (2,) the commanded position, a cross.
    plans: (K, H, 2) candidate plans, lines that fade towards a dot at their end. trail: (N, 2) where the
    agent has been. Raises ValueError for other shapes and values that are not finite; RuntimeError without pygame.
    """
    pg, unit = _pygame(), ZOOM * size / WORLD_SIZE  # unit: drawn pixels per px of the world
    canvas = _surface(pg, ZOOM * size, ZOOM * size, FLOOR)
    world(pg, canvas, unit, state, trail)
    if plans is not None and np.size(plans):
        plans = _checked("plans", plans, (None, None, 2)) * unit
        layer = _surface(pg, ZOOM * size, ZOOM * size, (0, 0, 0, 0))
        for h in range(plans.shape[1] - 1, 0, -1):  # the far, faint pieces first, so that near ones lie on top
            for plan in plans:
                _stroke(pg, layer, plan[h - 1:h + 1], (*INK, 210 - 130 * h // plans.shape[1]), 1.6 * unit)
        for end in plans[:, -1:]:
            _stroke(pg, layer, end, (*INK, 150), 6 * unit)
        canvas.blit(layer, (0, 0))
    if target is not None:
        cross(pg, canvas, unit, target)
    return _shrunk(pg, canvas)


def world(pg, canvas, unit, state, trail=None):
    """Draw goal, block, trail and agent, as in `frame`, onto a canvas with `unit` pixels per px of the world."""
    state = _checked("state", state, (5,))
    block, goal = keypoints(np.array([state[2:], GOAL_POSE]))[:, OUTLINE] * unit  # (9, 2) each
    _stroke(pg, canvas, np.array([[5, 506], [5, 5], [506, 5], [506, 506], [5, 506]]) * unit, GRID, 4 * unit)
    pg.draw.polygon(canvas, GOAL, goal.tolist())
    pg.draw.polygon(canvas, BLOCK, block.tolist())
    _stroke(pg, canvas, block, BLUE, 2.5 * unit)
    _stroke(pg, canvas, goal, GREEN, 2 * unit)  # over the block: it shows what is left to cover
    if trail is not None and len(trail):
        _stroke(pg, canvas, _checked("trail", trail, (None, 2)) * unit, ORANGE, 2.5 * unit)
    pg.draw.circle(canvas, VERMILLION, (state[:2] * unit).tolist(), AGENT_RADIUS * unit)


def cross(pg, canvas, unit, target):
    """Draw the commanded position, (2,) px, as a cross."""
    target = _checked("target", target, (2,)) * unit
    for color, width in ((PAPER, 6), (INK, 2.5)):  # the pale edge keeps it readable on every colour
        for arm in (np.array([8, 8]) * unit, np.array([8, -8]) * unit):
            _stroke(pg, canvas, np.array([target - arm, target + arm]), color, width * unit)


def film_strip(path, rows, size=160):
    """Write a PNG with an episode per row. rows: list of (label, frames, footer); frames: list of (state, caption), or
    (state, caption, plans) with plans as in `frame`.

    Label and footer (lines) stand left of the frames, each caption under its frame, what the colours mean on top.
    size: px per frame where it is shown; the file holds twice as many, for crisp screens.
    """
    if not rows or not all(frames for _, frames, _ in rows):
        raise ValueError("film_strip: it takes at least one row, and in each row at least one frame")
    pg, size, margin, gap = _pygame(), 2 * size, 48, 28
    heads = [[_text(pg, label, 38)] + [_text(pg, line, 34, GREY) for line in footer.splitlines()]
             for label, _, footer in rows]
    strips = [[(frame(state, plans=plans[0] if plans else None, size=size), _text(pg, caption, 34, GREY))
               for state, caption, *plans in frames]
              for _, frames, _ in rows]
    left = margin + gap + max(text.get_width() for head in heads for text in head)
    cell = max([size] + [caption.get_width() for strip in strips for _, caption in strip])
    pitch_x, pitch_y = cell + gap, size + 46 + 2 * gap
    legend, top = _legend(pg, any(plans for _, frames, _ in rows for _, _, *plans in frames)), margin + 70
    canvas = _surface(pg, left + max(pitch_x * max(map(len, strips)) - gap, legend.get_width()) + margin,
                      top + pitch_y * len(rows) - 2 * gap + margin, PAPER)
    canvas.blit(legend, (left, margin - 10))
    for row, (head, strip) in enumerate(zip(heads, strips)):
        y = top + row * pitch_y
        for i, text in enumerate(head):
            _put(canvas, text, margin, y + size / 2 + 46 * (i - len(head) / 2))
        for i, (pixels, caption) in enumerate(strip):
            x = left + i * pitch_x + cell / 2
            _put(canvas, pg.surfarray.make_surface(pixels.swapaxes(0, 1)), x, y, across=0.5)
            _put(canvas, caption, x, y + size + 8, across=0.5)
    save_png(path, pg.surfarray.array3d(canvas).swapaxes(0, 1))


def save_png(path, array):
    """Write array, (height, width, 3) uint8, as a PNG: all of it or nothing, so that nobody meets half a file.

    Raises ValueError for another shape or type, OSError where it cannot be written.
    """
    pg, array = _pygame(), np.asarray(array)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"save_png: expected (height, width, 3) uint8, got {array.shape} {array.dtype}")
    encoded = io.BytesIO()
    pg.image.save(pg.surfarray.make_surface(array.swapaxes(0, 1)), encoded, "picture.png")
    write_atomically(path, lambda file: file.write(encoded.getvalue()))


def save_animation(path, frames, fps=10):
    """Write frames, arrays as for `save_png`, as an animation that browsers show: .webp, .gif or .png by its name.

    Raises RuntimeError without Pillow, which writes the format.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise RuntimeError("animations need Pillow: pip install 'minidiff[film]'") from error
    first, *rest = map(Image.fromarray, frames)
    encoded, kind = io.BytesIO(), os.path.splitext(path)[1][1:]
    first.save(encoded, kind, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, quality=60, method=6)
    write_atomically(path, lambda file: file.write(encoded.getvalue()))


class Window:
    """A live window: `show(frame)` displays a picture, at most fps of them a second, and says whether it is still open.

    Raises RuntimeError where there is no display.
    """

    def __init__(self, title="PushT", fps=10):
        self.pg, self.title, self.fps, self.screen, self.open = _pygame(), title, fps, None, True
        try:
            self.pg.display.init()
            driver = self.pg.display.get_driver()
        except self.pg.error as error:
            driver = f"none, {error}"
        # Without a display SDL falls back, silently, to a driver that draws into nowhere, unless it was asked for.
        if driver.startswith("none") or driver in {"dummy", "offscreen"} - {os.environ.get("SDL_VIDEODRIVER")}:
            self.close()
            raise RuntimeError(f"no display for a live window (video driver: {driver}): run this on a machine with a "
                               "screen, or save pictures instead: eval.py --film FILE, draw.film_strip, draw.save_png")
        self.clock = self.pg.time.Clock()

    def canvas(self, size):
        """The surface, size = (width, height) px, that is on the screen after the next `pygame.display.flip()`."""
        if self.screen is None or self.screen.get_size() != size:
            self.screen = self.pg.display.set_mode(size)
            self.pg.display.set_caption(self.title)
        return self.screen

    def events(self):
        """What happened since the last call, as pygame's events. The window obeys the wish to close it, also Esc and q.

        Call it often: a window whose events nobody takes is greyed out as "not responding".
        """
        pg, events = self.pg, self.pg.event.get() if self.open else []
        if any(e.type == pg.QUIT or e.type == pg.KEYDOWN and e.key in (pg.K_ESCAPE, pg.K_q) for e in events):
            self.close()
        return events

    def show(self, frame):
        """Display frame, (height, width, 3) uint8. Returns False once the window was closed, also by Esc or q."""
        if not self.open:
            return False
        self.pg.surfarray.blit_array(self.canvas((frame.shape[1], frame.shape[0])), frame.swapaxes(0, 1))
        self.pg.display.flip()
        self.clock.tick(self.fps)
        self.events()
        return self.open

    def close(self):
        """Close the window; harmless when it is closed already."""
        self.open, self.screen = False, None
        self.pg.display.quit()


def _pygame():
    """The pygame module, imported at the first drawing. Raises RuntimeError, with what to do, where it is missing."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pygame 2.6 uses a part of setuptools that warns
            import pygame
            import pygame.surfarray
    except ImportError as error:
        raise RuntimeError("pictures need pygame: pip install pygame; there is no wheel for Python 3.14 yet: "
                           "use Python 3.10-3.13") from error
    pygame.font.init()
    return pygame


def _checked(name, values, shape):
    """values as floats of that shape (None: any length), clipped to where pygame's integers cannot overflow."""
    values = np.asarray(values, float)
    if values.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, values.shape)):
        raise ValueError(f"frame: {name} must have shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"frame: {name} must be finite")
    return values.clip(-4 * WORLD_SIZE, 4 * WORLD_SIZE)


def _surface(pg, width, height, color):
    surface = pg.Surface((width, height), pg.SRCALPHA, 32)
    surface.fill(color)
    return surface


def _shrunk(pg, surface):
    """A surface as (height / ZOOM, width / ZOOM, 3) uint8, each pixel the mean of ZOOM x ZOOM."""
    pixels = pg.surfarray.pixels3d(surface).swapaxes(0, 1)  # pygame has x first
    rows = sum(pixels[i::ZOOM].astype(np.uint16) for i in range(ZOOM))
    total = sum(rows[:, i::ZOOM] for i in range(ZOOM))
    return np.ascontiguousarray((total // ZOOM ** 2).astype(np.uint8))


def _stroke(pg, surface, points, color, width):
    """A line through points (N, 2) with round joints, which pygame's own wide lines lack; one point gives a dot."""
    for a, b in zip(points[:-1], points[1:]):
        dx, dy = b - a
        if dx or dy:
            side = np.array([-dy, dx]) * (width / 2 / np.hypot(dx, dy))
            pg.draw.polygon(surface, color, [a + side, b + side, b - side, a - side])
    for point in points.tolist():
        pg.draw.circle(surface, color, point, max(1, width / 2))


@functools.lru_cache(32)  # most of what a window says stays as it is from picture to picture
def _text(pg, text, size, color=INK):
    return pg.font.Font(pg.font.match_font(FONTS), size).render(str(text), True, color)


def _put(canvas, text, x, y, across=0.0, down=0.0):
    """Put a text, or another surface, so that (x, y) lies that share of its width and height into it."""
    canvas.blit(text, (x - across * text.get_width(), y - down * text.get_height()))


def _legend(pg, plans=False):
    """A line that names the colours of `frame`; plans: also the lines that are plans."""
    entries = [(GOAL, GREEN, "goal", 3, 28), (BLOCK, BLUE, "block", 3, 28), (VERMILLION, VERMILLION, "agent", 14, 28)]
    entries += [(INK, INK, "plans", 0, 4)] * plans
    texts = [_text(pg, name, 38) for _, _, name, *_ in entries]
    lefts = np.cumsum([0] + [90 + text.get_width() for text in texts]).tolist()
    big = _surface(pg, ZOOM * (lefts[-1] - 40), ZOOM * 48, PAPER)
    for (fill, edge, _, corner, height), x in zip(entries, lefts):
        for color, inset in ((edge, 0), (fill, 2)):
            box = [ZOOM * v for v in (x + inset, 24 - height / 2 + inset, 28 - 2 * inset, height - 2 * inset)]
            pg.draw.rect(big, color, box, border_radius=ZOOM * (corner - inset))
    legend = pg.surfarray.make_surface(_shrunk(pg, big).swapaxes(0, 1))
    for text, x in zip(texts, lefts):
        _put(legend, text, x + 40, 24, down=0.5)
    return legend
