"""What the windows share: the clock of the world, the loop that plays a game, and its picture.

A game is a `Watch` (watch.py) or a `Record` (record.py). `play` calls three of its methods:
`handle(event)`, for keys and mouse; `update()`, which does what is due and returns whether there is
more to do at once; and `draw(screen)`, where its `fresh` says that the last picture is out of date.

A window may have any size. What is drawn is laid out on a `Page` of WIDTH x HEIGHT, which is scaled
to fit the window: the world on its left, words on its right. `play` gives the mouse's place on that
page.
"""
import functools
import itertools
import math
import os
import time
import zlib

import numpy as np

from ... import stopping
from ..geometry import WORLD_SIZE
from . import drawing
from .drawing import FLOOR, GREY, INK, PAPER, VERMILLION, put, render_text

WIDTH, HEIGHT, VIEW = 1024, 600, 600  # of the page; the world is a square at its left
UNIT = VIEW / WORLD_SIZE  # px of the page per px of the world
LEFT, ROOM = VIEW + 16, WIDTH - VIEW - 32  # where the words begin, and how wide they may be
SMOOTH, CANVAS = 2, 1280  # the world is drawn SMOOTH times larger, up to CANVAS px, then averaged
APART = 5 * " "  # between two keys in a line of them
FRAME = 1 / 30  # s between two pictures
TRAIL = 60  # steps of the world, for which the agent's path is shown


class Clock:
    """When the next step of the world is due. now: a function that returns seconds. period: s.

    A step more than half a period late counts as `dropped`, and the next is due a whole period
    after it. A smaller delay is caught up.
    """

    def __init__(self, now=time.monotonic, period=0.1):
        self.now, self.period = now, period
        self.steps, self.dropped = 0, 0
        self.restart()

    def restart(self):
        self.ticks = []  # times of the last steps, at most 11
        self.last = self.now()
        self.due = self.last + self.period

    def hold(self):
        """Wait: the next step is not due before now."""
        self.due = max(self.due, self.now())

    def tick(self):
        """Call this when a step is done."""
        self.steps += 1
        self.last = self.now()
        self.ticks = [*self.ticks[-10:], self.last]
        if self.last > self.due + self.period / 2:
            self.dropped += 1
            self.due = self.last + self.period
        else:
            self.due += self.period

    def rate(self):
        """Steps a second, as reached and as asked for, in words."""
        span = max(self.ticks, default=0) - min(self.ticks, default=0)
        reached = f"{(len(self.ticks) - 1) / span:.2g}" if span else "–"
        return f"{reached} of {1 / self.period:.3g} Hz"

    def left(self):
        """Seconds until the next step is due; negative if it is late."""
        return self.due - self.now()


class Film:
    """The pictures that a window showed in its last LENGTH seconds, scaled to WIDTH px."""
    LENGTH, PERIOD, WIDTH = 10.0, 0.1, 768  # s; s between two pictures at least; px

    def __init__(self):
        self.shots = []  # of each picture: its time, s; (height, width, 3); compressed pixels

    def add(self, pg, screen, now):
        width, height = screen.get_size()
        shape = round(self.WIDTH * height / width), self.WIDTH, 3
        if self.shots and shape != self.shots[0][1]:
            self.shots = []  # the window has another shape now
        if not self.shots or now >= self.shots[-1][0] + self.PERIOD:
            small = pg.transform.smoothscale(screen, (self.WIDTH, shape[0]))
            self.shots.append((now, shape, zlib.compress(pg.image.tobytes(small, "RGB"), 1)))
        while len(self.shots) > 1 and self.shots[1][0] <= now - self.LENGTH:
            self.shots.pop(0)

    def save(self, path):
        """Write an animation: each picture lasts as long as it did in the window, the last 1 s."""
        seconds, frames = [], []
        for second, shape, packed in self.shots:
            seconds.append(second)
            frames.append(np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape))
        seconds.append(seconds[-1] + 1)
        drawing.save_animation(path, frames, 1 / np.diff(seconds), effort=2)  # quick: people wait


def free_name(stem, suffix):
    """The first name of stem, stem-2, stem-3 .., each with the suffix, that no file has yet."""
    stems = itertools.chain([stem], (f"{stem}-{k}" for k in itertools.count(2)))
    return next(name + suffix for name in stems if not os.path.exists(name + suffix))


def run(game):
    """Play a game in a new window, then print its summary. RuntimeError without a display."""
    window = drawing.Window("minidiff")
    game.clock.restart()
    play(game, window)
    print(game.summary())


def play(game, window):
    """Play until the window is closed, or a signal asks for it (stopping.py)."""
    pg = window.pg
    screen = window.stage(WIDTH, HEIGHT)
    shown, cost = -math.inf, 0.0  # when the last picture began, and the seconds it took
    try:
        while window.open and not stopping.asked():
            for event in window.events():
                game.handle(on_page(pg, screen, event))
                game.fresh = True  # after any event: another window may have covered this one
            busy = game.update()
            left = game.clock.left()
            rest = 3 * FRAME if busy else FRAME
            if left <= max(cost, busy * FRAME) and (busy or left > 0):
                rest = 8 * FRAME  # a step is nearly due: it has priority over pictures
            now = time.monotonic()
            if window.open and game.fresh and now > shown + rest:
                shown = now
                game.fresh = False
                screen.fill(PAPER)
                game.draw(screen)
                pg.display.flip()
                cost = time.monotonic() - now
            elif not busy:
                pg.time.wait(3)
    except KeyboardInterrupt:
        pass
    finally:
        window.close()


def key_name(event):
    """A key's character in lower case, or its name where it has none: "n", "+", "space"."""
    character = event.unicode.strip()
    if character and character.isprintable():
        return character.lower()
    return drawing.load_pygame().key.name(event.key)


def on_page(pg, screen, event):
    """An event, with the place of the mouse, if it has one, in px of the page."""
    if not hasattr(event, "pos"):
        return event
    page = Page(pg, screen)
    x, y = event.pos
    pos = (x - page.left) / page.scale, (y - page.top) / page.scale
    return pg.event.Event(event.type, {**event.dict, "pos": pos})


class Page:
    """Draws on a screen of any size. Places and sizes are given in px of a page WIDTH x HEIGHT."""

    def __init__(self, pg, screen):
        self.pg, self.screen = pg, screen
        width, height = screen.get_size()
        self.scale = min(width / WIDTH, height / HEIGHT)
        self.left, self.top = (width - WIDTH * self.scale) / 2, (height - HEIGHT * self.scale) / 2

    def at(self, x, y):
        """A place of the page, in px of the screen."""
        return self.left + x * self.scale, self.top + y * self.scale

    def clear(self, y=0):
        """Clear the right part of the page, where the words are, from y down."""
        size = (WIDTH - VIEW) * self.scale, (HEIGHT - y) * self.scale
        self.screen.fill(PAPER, (*self.at(VIEW, y), *size))

    def text(self, text, x, y, size, color=INK, width=ROOM, across=0.0):
        """Draw a line of text, made smaller if it is wider than `width`."""
        line = fitting(self.pg, text, round(size * self.scale), color, width * self.scale)
        put(self.screen, line, *self.at(x, y), across)

    def paragraph(self, text, y, size, color):
        """Draw a text over as many lines as it needs. Returns the y below it."""
        for line in text.splitlines():
            for part in wrapped(self.pg, line, round(size * self.scale), ROOM * self.scale):
                self.text(part, LEFT, y, size, color)
                y += 1.4 * size
        return y

    def bar(self, color, x, y, width, height):
        """Draw a filled box with round ends."""
        box = (*self.at(x, y), width * self.scale, height * self.scale)
        self.pg.draw.rect(self.screen, color, box, border_radius=round(height * self.scale / 2))

    def dot(self, color, x, y, radius):
        self.pg.draw.circle(self.screen, color, self.at(x, y), radius * self.scale)


def picture(pg, screen, state, trail, marks, x=0, y=0, size=VIEW):
    """Draw the world, with what marks(canvas, unit) adds, onto a square of the page."""
    page = Page(pg, screen)
    shown = max(1, round(size * page.scale))
    side = min(SMOOTH * shown, max(CANVAS, shown))
    canvas = pg.Surface((side, side), 0, 32)
    canvas.fill(FLOOR)
    drawing.world(pg, canvas, side / WORLD_SIZE, state, trail[-TRAIL:])
    marks(canvas, side / WORLD_SIZE)
    if side > shown:
        canvas = pg.transform.smoothscale(canvas, (shown, shown))
    screen.blit(canvas, page.at(x, y))


def panel(pg, screen, first, word, second, keys, y=72, note=""):
    """Draw the words beside the world.

    On top: first, whose parts are 4 spaces apart, and at the right word. From y down: second and
    note. At the bottom: keys, which are 5 spaces apart (APART), in two columns.
    """
    page = Page(pg, screen)
    page.clear()
    head, _, more = first.partition("    ")
    page.text(word, WIDTH - 16, 14, 20, VERMILLION, ROOM - 160, across=1)
    page.text(head, LEFT, 12, 22, width=150)
    page.text(more, LEFT, 42, 16, GREY)
    y = page.paragraph(second, y, 16, GREY)
    page.paragraph(note, y, 16, VERMILLION)
    keys = keys.split(APART)
    rows = math.ceil(len(keys) / 2)
    for i, key in enumerate(keys):
        column, row = divmod(i, rows)
        page.text(key, LEFT + column * ROOM / 2, HEIGHT - 12 - 20 * (rows - row), 14, GREY,
                  ROOM / 2 - 8)


def fitting(pg, text, size, color, width):
    """A line of text as a surface, in a smaller font if it is wider than `width`: fonts differ
    between machines."""
    line = render_text(pg, text, size, color)
    if line.get_width() <= width or size <= 6:
        return line
    return fitting(pg, text, size - 1, color, width)


@functools.lru_cache(64)
def wrapped(pg, text, size, width):
    """A text as lines that are at most `width` px wide; a word that is wider has its own line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and drawing.font(pg, size).size(longer)[0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def overlay(pg, screen, keys, colours=(), y=72):
    """Draw a table in place of the words from y down: rows of (key, what it does), then of (colour,
    what it means). The world stays visible."""
    page = Page(pg, screen)
    page.clear(y)
    middle = LEFT + 120
    pitch = min(22, (HEIGHT - 8 - y) / len((*keys, *colours)))
    for mark, text in (*keys, *colours):
        if isinstance(mark, str):
            page.text(mark, middle, y, 14, INK, 120, across=1)
        else:
            page.dot(mark, middle - 7, y + 9, 6)
        page.text(text, middle + 14, y, 14, GREY, ROOM - 134)
        y += pitch
