"""What the windows share: the clock of the world, the loop that plays a game, and its picture.

A game is a `Watch` (watch.py) or a `Record` (record.py). `play` calls its `handle(event)`, for keys
and mouse; its `update()`, which does what is due and returns whether there is more to do at once;
and its `draw(screen)`, where `fresh` says that the last picture is out of date.

A window may have any size. What is drawn is laid out on a `Page` of WIDTH x HEIGHT, the world at
its left and words at its right, which is as large as the window allows; `play` hands on where the
mouse is on that page.
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
UNIT = VIEW / WORLD_SIZE  # of the page per px of the world
LEFT, ROOM = VIEW + 16, WIDTH - VIEW - 32  # where the words begin, and how wide they may be
SMOOTH, CANVAS = 2, 1280  # the world is drawn so much larger, up to so many px, then averaged
APART = 5 * " "  # between two keys in a line of them
FRAME = 1 / 30  # s between two pictures
TRAIL = 60  # steps for which one sees where the agent has been


class Clock:
    """When the next step of the world is due. now: a function that returns seconds.

    A step that comes more than half a period late is a dropped one, and the next is due a whole
    period after it. A smaller delay is caught up.
    """

    def __init__(self, now=time.monotonic, period=0.1):
        self.now, self.period = now, period
        self.steps, self.dropped = 0, 0
        self.restart()

    def restart(self):
        self.ticks = []  # when the last steps were done
        self.last = self.now()
        self.due = self.last + self.period

    def hold(self):
        """The next step is not late yet."""
        self.due = max(self.due, self.now())

    def tick(self):
        """The step is done now."""
        self.steps += 1
        self.last = self.now()
        self.ticks = [*self.ticks[-10:], self.last]
        if self.last > self.due + self.period / 2:
            self.dropped += 1
            self.due = self.last + self.period
        else:
            self.due += self.period

    def rate(self):
        """Steps a second that were reached and that were asked for, in words."""
        span = max(self.ticks, default=0) - min(self.ticks, default=0)
        reached = f"{(len(self.ticks) - 1) / span:.2g}" if span else "–"
        return f"{reached} of {1 / self.period:.3g} Hz"

    def left(self):
        """Seconds until the next step is due; negative if it is late."""
        return self.due - self.now()


class Film:
    """What a window showed in its last seconds, in small."""
    LENGTH, PERIOD, WIDTH = 10.0, 0.1, 768  # s, s between two pictures, px

    def __init__(self):
        self.shots = []  # seconds, (height, width, 3), compressed pixels

    def add(self, pg, screen, now):
        width, height = screen.get_size()
        shape = round(self.WIDTH * height / width), self.WIDTH, 3
        if self.shots and shape != self.shots[0][1]:
            self.shots = []  # the window was given another shape
        if not self.shots or now >= self.shots[-1][0] + self.PERIOD:
            small = pg.transform.smoothscale(screen, (self.WIDTH, shape[0]))
            self.shots.append((now, shape, zlib.compress(pg.image.tobytes(small, "RGB"), 1)))
        while len(self.shots) > 1 and self.shots[1][0] <= now - self.LENGTH:
            self.shots.pop(0)

    def save(self, path):
        """Write it as an animation: each picture is seen as long as it was, the last for 1 s."""
        seconds, frames = [], []
        for second, shape, packed in self.shots:
            seconds.append(second)
            frames.append(np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape))
        seconds.append(seconds[-1] + 1)
        drawing.save_animation(path, frames, 1 / np.diff(seconds), effort=2)  # somebody waits


def free_name(stem, suffix):
    """The first of stem, stem-2, stem-3 .. with which no file is named yet, with its suffix."""
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
                game.fresh = True  # whatever it was: another window may have covered this one
            busy = game.update()
            left = game.clock.left()
            rest = 3 * FRAME if busy else FRAME
            if left <= max(cost, busy * FRAME) and (busy or left > 0):
                rest = 8 * FRAME  # a step is due: the world's clock goes before pictures
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
    """An event, with the place of the mouse as one of the page."""
    if not hasattr(event, "pos"):
        return event
    page = Page(pg, screen)
    x, y = event.pos
    pos = (x - page.left) / page.scale, (y - page.top) / page.scale
    return pg.event.Event(event.type, {**event.dict, "pos": pos})


class Page:
    """A brush for a screen of any size: places and sizes are those of a page WIDTH x HEIGHT."""

    def __init__(self, pg, screen):
        self.pg, self.screen = pg, screen
        width, height = screen.get_size()
        self.scale = min(width / WIDTH, height / HEIGHT)
        self.left, self.top = (width - WIDTH * self.scale) / 2, (height - HEIGHT * self.scale) / 2

    def at(self, x, y):
        """A place of the page, in px of the screen."""
        return self.left + x * self.scale, self.top + y * self.scale

    def clear(self, y=0):
        """Take away the words from y on."""
        size = (WIDTH - VIEW) * self.scale, (HEIGHT - y) * self.scale
        self.screen.fill(PAPER, (*self.at(VIEW, y), *size))

    def text(self, text, x, y, size, color=INK, width=ROOM, across=0.0):
        """A line of text that is at most so wide."""
        line = fitting(self.pg, text, round(size * self.scale), color, width * self.scale)
        put(self.screen, line, *self.at(x, y), across)

    def paragraph(self, text, y, size, color):
        """Text over as many lines as it takes. Returns where it ends."""
        for line in text.splitlines():
            for part in wrapped(self.pg, line, round(size * self.scale), ROOM * self.scale):
                self.text(part, LEFT, y, size, color)
                y += 1.4 * size
        return y

    def bar(self, color, x, y, width, height):
        """A filled box with round ends."""
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
    """Draw the words beside the world: first, its parts 4 spaces apart, and, at the right, word;
    from y on second and note; at the bottom the keys, 5 spaces apart."""
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
    """A line of text, as much smaller as its width demands: fonts differ between machines."""
    line = render_text(pg, text, size, color)
    if line.get_width() <= width or size <= 6:
        return line
    return fitting(pg, text, size - 1, color, width)


@functools.lru_cache(64)
def wrapped(pg, text, size, width):
    """A text as lines that are at most so wide, where no word is wider."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and drawing.font(pg, size).size(longer)[0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def overlay(pg, screen, keys, colours=(), y=72):
    """Draw a sheet in place of the words from y on: rows of (key, what it does), and of (colour,
    what it means). It leaves the world as it is."""
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
