"""What the windows share: the clock of the world, the loop that plays a game, and its picture.

A game is a `Watch` (watch.py) or a `Record` (record.py). `play` calls its `handle(event)`, for keys
and mouse; its `update()`, which does what is due and returns whether there is more to do at once;
and its `draw(screen)`, where `fresh` says that the last picture is out of date.
"""
import math
import time

from ... import stopping
from ..geometry import WORLD_SIZE
from . import drawing
from .drawing import FLOOR, GREY, INK, PAPER, VERMILLION, put, render_text

VIEW, PANEL = 640, 104  # px of the window: the world's side, and the height of the lines under it
UNIT = VIEW / WORLD_SIZE  # px of the window per px of the world
SMOOTH = 2  # the world is drawn this much larger, then averaged
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
        self.last = self.now()
        self.due = self.last + self.period

    def tick(self):
        """The step is done now."""
        self.steps += 1
        now = self.now()
        if now > self.due + self.period / 2:
            self.dropped += 1
            self.restart()
        else:
            self.last = now
            self.due += self.period

    def left(self):
        """Seconds until the next step is due; negative if it is late."""
        return self.due - self.now()


def run(game):
    """Play a game in a new window, then print its summary. RuntimeError without a display."""
    window = drawing.Window()
    game.clock.restart()
    play(game, window)
    print(game.summary())


def play(game, window):
    """Play until the window is closed, or a signal asks for it (stopping.py)."""
    pg = window.pg
    screen = window.canvas((VIEW, VIEW + PANEL))
    shown = -math.inf
    try:
        while window.open and not stopping.asked():
            for event in window.events():
                game.handle(event)
                game.fresh = True  # whatever it was: another window may have covered this one
            busy = game.update()
            rest = FRAME
            if busy:  # the world's clock goes before pictures
                rest = 3 * FRAME if game.clock.left() > FRAME else 8 * FRAME
            now = time.monotonic()
            if window.open and game.fresh and now > shown + rest:
                shown = now
                game.fresh = False
                game.draw(screen)
                pg.display.flip()
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


def picture(pg, screen, state, trail, marks):
    """Draw the world, with what marks(canvas, unit) adds, onto the upper part of the screen."""
    canvas = pg.Surface((SMOOTH * VIEW, SMOOTH * VIEW), 0, 32)
    canvas.fill(FLOOR)
    drawing.world(pg, canvas, SMOOTH * UNIT, state, trail[-TRAIL:])
    marks(canvas, SMOOTH * UNIT)
    screen.blit(pg.transform.smoothscale(canvas, (VIEW, VIEW)), (0, 0))


def panel(pg, screen, first, word, second, keys):
    """Draw the lines under the world: first and, at the right, word; then second; then the keys."""
    screen.fill(PAPER, (0, VIEW, VIEW, PANEL))
    shown = render_text(pg, word, 20, VERMILLION)
    put(screen, shown, VIEW - 16, VIEW + 10, across=1)
    put(screen, _fitting(pg, first, 20, INK, VIEW - 48 - shown.get_width()), 16, VIEW + 10)
    put(screen, _fitting(pg, second, 15, GREY, VIEW - 32), 16, VIEW + 42)
    put(screen, _fitting(pg, keys, 15, GREY, VIEW - 32), 16, VIEW + 72)


def _fitting(pg, text, size, color, width):
    """A line of text, as much smaller as its width demands: fonts differ between machines."""
    line = render_text(pg, text, size, color)
    if line.get_width() <= width or size <= 6:
        return line
    return _fitting(pg, text, size - 1, color, width)


def overlay(pg, screen, keys, colours=()):
    """Draw a sheet over the world: rows of (key, what it does), and of (colour, what it means)."""
    marks = [render_text(pg, key, 16) for key, _ in keys]
    texts = [render_text(pg, text, 16, GREY) for _, text in (*keys, *colours)]
    middle = 24 + max(mark.get_width() for mark in marks)
    width = middle + 44 + max(text.get_width() for text in texts)
    sheet = drawing.blank(pg, width, 26 * len(texts) + 42, (*PAPER, 246))
    for i, text in enumerate(texts):
        if i < len(keys):
            y = 16 + 26 * i
            put(sheet, marks[i], middle, y, across=1)
        else:
            y = 26 + 26 * i
            pg.draw.circle(sheet, colours[i - len(keys)][0], (middle - 7, y + 10), 7)
        put(sheet, text, middle + 20, y)
    put(screen, sheet, VIEW / 2, VIEW / 2, across=0.5, down=0.5)
