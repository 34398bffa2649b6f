"""Pictures of PushT: frames, film strips and a live window, all drawn by pygame.

pygame is imported only when something is drawn, so training and scoring never need it. All but
`Window` works where there is no display. Shapes are drawn ZOOM times too large and then averaged,
which makes their edges smooth. Text is added after that.

Most functions here take pg, the pygame module (`load_pygame`), and a surface to draw on.
"""
import functools
import io
import os
import warnings

import numpy as np

from ... import stopping
from ...checkpoint import write_atomically
from ..geometry import AGENT_RADIUS, GOAL_POSE, WORLD_SIZE, keypoints

# Okabe & Ito's palette, distinct for colour-blind readers too (its yellow is too pale for lines).
BLUE, GREEN = (0, 114, 178), (0, 158, 115)
VERMILLION, ORANGE = (213, 94, 0), (230, 159, 0)
BLOCK, GOAL = (126, 184, 222), (198, 233, 221)  # paler BLUE and GREEN, which edge them
PAPER, FLOOR = (255, 255, 255), (250, 250, 247)
INK, GREY, GRID = (40, 40, 40), (105, 105, 105), (226, 226, 222)
FONTS = "helveticaneue,segoeui,dejavusans,liberationsans,arial"  # first found, else pygame's own
CONTOUR = [0, 1, 2, 5, 6, 7, 4, 3, 0]  # around the T through its keypoints, and back to the first
WALLS = np.array([[5, 506], [5, 5], [506, 5], [506, 506], [5, 506]])
ZOOM = 3


def frame(state, target=None, plans=None, trail=None, size=512):
    """One picture of the world, (size, size, 3) uint8: goal, block, agent and the policy's plans.

    state: (5,) agent x, y, block x, y (px), block angle (rad). target: (2,) the commanded position,
    a cross. plans: (K, H, 2) candidate plans, lines that fade towards a dot at their end.
    trail: (N, 2) where the agent has been. Raises ValueError for other shapes and values that are
    not finite; RuntimeError without pygame.
    """
    pg = load_pygame()
    unit = ZOOM * size / WORLD_SIZE  # drawn pixels per px of the world
    canvas = blank(pg, ZOOM * size, ZOOM * size, FLOOR)
    world(pg, canvas, unit, state, trail)
    if plans is not None and np.size(plans):
        plans = _checked("plans", plans, (None, None, 2)) * unit
        layer = blank(pg, ZOOM * size, ZOOM * size, (0, 0, 0, 0))
        H = plans.shape[1]
        for h in range(H - 1, 0, -1):  # the far, faint pieces first, so that near ones lie on top
            color = (*INK, 210 - 130 * h // H)
            for plan in plans:
                stroke(pg, layer, plan[h - 1:h + 1], color, 1.6 * unit)
        for end in plans[:, -1:]:
            stroke(pg, layer, end, (*INK, 150), 6 * unit)
        canvas.blit(layer, (0, 0))
    if target is not None:
        cross(pg, canvas, unit, target)
    return shrink(pg, canvas)


def world(pg, canvas, unit, state, trail=None):
    """Draw goal, block, trail and agent, as in `frame`, with `unit` pixels per px of the world."""
    state = _checked("state", state, (5,))
    corners = keypoints(np.array([state[2:], GOAL_POSE]))  # (2, 8, 2)
    block, goal = corners[:, CONTOUR] * unit  # (9, 2) each
    stroke(pg, canvas, WALLS * unit, GRID, 4 * unit)
    pg.draw.polygon(canvas, GOAL, goal.tolist())
    pg.draw.polygon(canvas, BLOCK, block.tolist())
    stroke(pg, canvas, block, BLUE, 2.5 * unit)
    stroke(pg, canvas, goal, GREEN, 2 * unit)  # over the block: it shows what is left to cover
    if trail is not None and len(trail):
        stroke(pg, canvas, _checked("trail", trail, (None, 2)) * unit, ORANGE, 2.5 * unit)
    pg.draw.circle(canvas, VERMILLION, (state[:2] * unit).tolist(), AGENT_RADIUS * unit)


def cross(pg, canvas, unit, target):
    """Draw the commanded position, (2,) px, as a cross."""
    target = _checked("target", target, (2,)) * unit
    arms = [np.array([8, 8]) * unit, np.array([8, -8]) * unit]
    for color, width in ((PAPER, 6), (INK, 2.5)):  # the pale edge: readable on every colour
        for arm in arms:
            stroke(pg, canvas, np.array([target - arm, target + arm]), color, width * unit)


def close_up(state, plans=None, target=None, size=512, view=(0, 0, WORLD_SIZE)):
    """A part of a `frame`, (size, size, 3) uint8. view: the left, top and side of this square, px
    of the world. Here the line of each plan starts at the agent."""
    unit = size / view[2]
    if plans is not None:
        plans = np.insert(plans, 0, state[:2], axis=1)
    whole = frame(state, target, plans, size=round(WORLD_SIZE * unit))
    left, top = [min(round(edge * unit), len(whole) - size) for edge in view[:2]]
    return whole[top:top + size, left:left + size]


def view_of(frames):
    """The smallest square (left, top, side), px of the world, that holds all that is drawn in
    frames of states (see `film_strip`), with 10 px around it as far as the world reaches."""
    points = []
    for state, _, *given in frames:
        points += [state[:2] - AGENT_RADIUS, state[:2] + AGENT_RADIUS]
        points += [*keypoints(np.array([state[2:], GOAL_POSE])).reshape(-1, 2)]
        points += [point for array in given for point in np.reshape(array, (-1, 2))]
    low, high = np.min(points, 0) - 10, np.max(points, 0) + 10
    side = min((high - low).max(), WORLD_SIZE)
    left, top = ((low + high - side) / 2).clip(0, WORLD_SIZE - side)
    return left, top, side


def film_strip(path, rows, size=160, near=False):
    """Write a PNG with an episode per row.

    rows: list of (label, frames, footer). frames: list of (state, caption), or (state, caption,
    plans), or (state, caption, plans, target) with plans and target as in `frame`, or (picture,
    caption) with a picture (height, width, 3) uint8. Label and footer stand to the left of the
    frames, each caption under its frame; footer and caption may have several lines. A legend of the
    colours stands on top, unless the frames are pictures.

    size: px of a frame as it is to be shown; the file has twice as many, for screens of high
    resolution. near: the frames of a row show only their `view_of`. Raises ValueError for no rows,
    or a row without frames.
    """
    if not rows or not all(frames for _, frames, _ in rows):
        raise ValueError("film_strip: it takes at least one row, and at least one frame in each")
    pg = load_pygame()
    size = 2 * size
    heads, strips = [], []
    for label, frames, footer in rows:
        stopping.safe_point()
        head = [render_text(pg, label, 38)]
        head += [render_text(pg, line, 34, GREY) for line in footer.splitlines()]
        heads.append(head)
        view = view_of(frames) if near else (0, 0, WORLD_SIZE)
        strip = []
        for shown, caption, *given in frames:
            if np.ndim(shown) == 3:
                picture = scaled(pg, shown, size)
            else:
                picture = to_surface(pg, close_up(shown, *given, size=size, view=view))
            lines = [render_text(pg, line, 34, GREY) for line in caption.splitlines()]
            strip.append((picture, lines))
        strips.append(strip)
    known = max(len(shown) for _, frames, _ in rows for shown in frames)
    names = blank(pg, 1, 1, PAPER) if np.ndim(shown) == 3 else legend(pg, known > 2, known > 3)

    margin, gap = 48, 28
    top = margin + 70
    left = margin + gap + max(text.get_width() for head in heads for text in head)
    captions = [lines for strip in strips for _, lines in strip]
    cell = max([size] + [text.get_width() for lines in captions for text in lines])
    below = 46 * max(map(len, captions))
    pitch_x, pitch_y = cell + gap, size + below + 2 * gap
    frames_width = pitch_x * max(map(len, strips)) - gap
    width = left + max(frames_width, names.get_width()) + margin
    canvas = blank(pg, width, top + pitch_y * len(rows) - 2 * gap + margin, PAPER)
    canvas.blit(names, (left, margin - 10))
    for row, (head, strip) in enumerate(zip(heads, strips)):
        y = top + row * pitch_y
        for i, text in enumerate(head):
            put(canvas, text, margin, y + size / 2 + 46 * (i - len(head) / 2))
        for i, (picture, lines) in enumerate(strip):
            x = left + i * pitch_x + cell / 2
            put(canvas, picture, x, y, across=0.5)
            for k, text in enumerate(lines):
                put(canvas, text, x, y + size + 8 + 46 * k, across=0.5)
    save_png(path, to_pixels(canvas))


def save_png(path, array):
    """Write array, (height, width, 3) uint8, as a PNG: never half a file.

    Raises ValueError for another shape or type, OSError where it cannot be written.
    """
    pg = load_pygame()
    array = np.asarray(array)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError("save_png: expected (height, width, 3) uint8, got "
                         f"{array.shape} {array.dtype}")
    encoded = io.BytesIO()
    pg.image.save(to_surface(pg, array), encoded, "picture.png")
    write_atomically(path, lambda file: file.write(encoded.getvalue()))


def save_screen(path):
    """Write what the window shows, as a PNG."""
    save_png(path, to_pixels(load_pygame().display.get_surface()))


def save_animation(path, frames, fps=10, effort=6):
    """Write frames, arrays as for `save_png`, as an animation: .webp, .gif or .png by its name.

    fps: frames a second, one number, or one for each frame. effort: 0 to 6; more makes a smaller
    .webp, more slowly.

    Raises RuntimeError without Pillow, which writes the format.
    """
    Image = load_pillow()
    first, *rest = map(Image.fromarray, frames)
    durations = np.rint(1000 / np.asarray(fps)).astype(int).tolist()  # ms
    encoded = io.BytesIO()
    first.save(encoded, os.path.splitext(path)[1][1:], save_all=True, append_images=rest,
               duration=durations, loop=0, quality=60, method=effort)
    write_atomically(path, lambda file: file.write(encoded.getvalue()))


class Window:
    """A live window: `show(frame)` displays a picture, at most fps pictures a second.

    Raises RuntimeError where there is no display.
    """

    def __init__(self, title="PushT", fps=10):
        self.pg = load_pygame()
        self.title, self.fps = title, fps
        self.open, self.screen = True, None
        try:
            self.pg.display.init()
            driver = self.pg.display.get_driver()
        except self.pg.error as error:
            driver = f"none, {error}"
        # Without a display SDL silently takes a driver that shows nothing. Tests ask for that one.
        asked_for = driver == os.environ.get("SDL_VIDEODRIVER")
        if driver.startswith("none") or driver in ("dummy", "offscreen") and not asked_for:
            self.close()
            raise RuntimeError(
                f"no display for a live window (video driver: {driver}): run this on a machine "
                "with a screen, or save pictures instead: python -m minidiff.pusht film RUN FILE, "
                "drawing.film_strip, drawing.save_png")
        self.clock = self.pg.time.Clock()

    def canvas(self, size):
        """The surface, size = (width, height) px, that `pygame.display.flip()` makes visible."""
        if self.screen is None or self.screen.get_size() != size:
            self.screen = self.pg.display.set_mode(size)
            self.pg.display.set_caption(self.title)
        return self.screen

    def stage(self, width, height):
        """The surface of a window that may be resized; at first as large as the desktop allows.

        width, height: at first it has their ratio.
        """
        pg = self.pg
        if self.screen is None:
            desktop_width, desktop_height = pg.display.get_desktop_sizes()[0]
            scale = min((desktop_width - 16) / width, (desktop_height - 80) / height)  # frame
            size = int(width * scale), int(height * scale)
            self.screen = pg.display.set_mode(size, pg.RESIZABLE)
            pg.display.set_caption(self.title)
        return self.screen

    def events(self):
        """pygame's events since the last call. The close button, Esc and q close the window.

        Call it often: else the desktop takes the window for one that does not respond.
        """
        if not self.open:
            return []
        pg = self.pg
        events = pg.event.get()
        for event in events:
            leaves = event.type == pg.KEYDOWN and event.key in (pg.K_ESCAPE, pg.K_q)
            if leaves or event.type == pg.QUIT:
                self.close()
        return events

    def show(self, frame):
        """Display frame, (height, width, 3) uint8. Returns False once the window was closed."""
        if not self.open:
            return False
        canvas = self.canvas((frame.shape[1], frame.shape[0]))
        self.pg.surfarray.blit_array(canvas, frame.swapaxes(0, 1))
        self.pg.display.flip()
        self.clock.tick(self.fps)
        self.events()
        return self.open

    def close(self):
        """Close the window, unless it is closed already."""
        self.open, self.screen = False, None
        self.pg.display.quit()


def load_pygame():
    """The pygame module, imported at the first drawing. RuntimeError where it is missing."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pygame 2.6 uses a part of setuptools that warns
            import pygame
            import pygame.surfarray
    except ImportError as error:
        raise RuntimeError("pictures need pygame: pip install 'minidiff[pusht]'; there is no wheel "
                           "for Python 3.14 yet: use Python 3.10-3.13") from error
    pygame.font.init()
    return pygame


def load_pillow():
    """Pillow's module Image. RuntimeError where it is missing."""
    try:
        from PIL import Image
    except ImportError as error:
        raise RuntimeError("animations need Pillow: pip install 'minidiff[film]'") from error
    return Image


def _checked(name, values, shape):
    """values as floats, clipped to a range that pygame can draw. ValueError unless they are finite
    and have this shape (None: any length)."""
    values = np.asarray(values, float)
    fits = values.ndim == len(shape)
    if not fits or any(want not in (None, got) for want, got in zip(shape, values.shape)):
        raise ValueError(f"frame: {name} must have shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"frame: {name} must be finite")
    return values.clip(-4 * WORLD_SIZE, 4 * WORLD_SIZE)


def blank(pg, width, height, color):
    """A new surface, all of one colour."""
    surface = pg.Surface((width, height), pg.SRCALPHA, 32)
    surface.fill(color)
    return surface


def to_surface(pg, pixels):
    """Pixels (height, width, 3) uint8 as a surface. pygame has x first, arrays have y first."""
    return pg.surfarray.make_surface(pixels.swapaxes(0, 1))


def to_pixels(surface):
    """A surface as pixels (height, width, 3) uint8."""
    return load_pygame().surfarray.array3d(surface).swapaxes(0, 1)


def scaled(pg, picture, size):
    """A picture as a surface of size x size px; one that is not square is centred."""
    height, width = picture.shape[:2]
    box = round(size * width / max(height, width)), round(size * height / max(height, width))
    surface = blank(pg, size, size, PAPER)
    put(surface, pg.transform.smoothscale(to_surface(pg, picture), box), size / 2, size / 2, 0.5,
        0.5)
    return surface


def shrink(pg, surface):
    """A surface as (height / ZOOM, width / ZOOM, 3) uint8, each pixel the mean of ZOOM x ZOOM."""
    pixels = pg.surfarray.pixels3d(surface).swapaxes(0, 1)
    rows = sum(pixels[i::ZOOM].astype(np.uint16) for i in range(ZOOM))
    total = sum(rows[:, i::ZOOM] for i in range(ZOOM))
    return np.ascontiguousarray((total // ZOOM ** 2).astype(np.uint8))


def stroke(pg, surface, points, color, width):
    """Draw a line through points (N, 2), with round joints, which pygame lacks; one point is a
    dot."""
    for a, b in zip(points[:-1], points[1:]):
        dx, dy = b - a
        if dx or dy:
            side = np.array([-dy, dx]) * (width / 2 / np.hypot(dx, dy))
            pg.draw.polygon(surface, color, [a + side, b + side, b - side, a - side])
    for point in points.tolist():
        pg.draw.circle(surface, color, point, max(1, width / 2))


@functools.lru_cache(32)
def font(pg, size):
    """The font of all texts. size: its height, px."""
    return pg.font.Font(pg.font.match_font(FONTS), size)


@functools.lru_cache(128)  # most texts of a window are the same in its next picture
def render_text(pg, text, size, color=INK):
    """A line of text as a surface of its own, for `put`. size: of the font, px."""
    return font(pg, size).render(str(text), True, color)


def put(canvas, surface, x, y, across=0.0, down=0.0):
    """Draw a surface onto the canvas. (x, y) is the place of its left upper corner; across and down
    are shares of its width and height by which it is moved to the left and up."""
    corner = (x - across * surface.get_width(), y - down * surface.get_height())
    canvas.blit(surface, corner)


def legend(pg, plans=False, target=False):
    """A row of names for what a `frame` shows, as a surface. plans, target: name these, too."""
    entries = [(GOAL, GREEN, "goal", 3, 28),  # fill, edge, name, radius of the corners, height
               (BLOCK, BLUE, "block", 3, 28), (VERMILLION, VERMILLION, "agent", 14, 28)]
    if plans:
        entries.append((INK, INK, "plans", 0, 4))
    if target:
        entries.append((PAPER, PAPER, "target", 0, 4))
    texts = [render_text(pg, name, 38) for _, _, name, *_ in entries]
    lefts = np.cumsum([0] + [90 + text.get_width() for text in texts]).tolist()
    big = blank(pg, ZOOM * (lefts[-1] - 40), ZOOM * 48, PAPER)
    for (fill, edge, _, corner, height), x in zip(entries, lefts):
        for color, inset in ((edge, 0), (fill, 2)):
            y = 24 - height / 2
            box = np.array([x + inset, y + inset, 28 - 2 * inset, height - 2 * inset])
            pg.draw.rect(big, color, (ZOOM * box).tolist(), border_radius=ZOOM * (corner - inset))
    if target:
        cross(pg, big, 1.5 * ZOOM, np.array([lefts[-2] + 14, 24]) / 1.5)
    surface = to_surface(pg, shrink(pg, big))
    for text, x in zip(texts, lefts):
        put(surface, text, x + 40, 24, down=0.5)
    return surface
