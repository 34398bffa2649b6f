"""What the windows share: the clock of the world, the loop that plays a game, and its picture.

A game is a `Watch` (watch.py) or a `Record` (record.py). `play` calls its `handle(event)`, for keys and mouse; its
`update()`, for what is due, which answers whether there is more of it; and its `draw(screen)`, where `fresh` says that the
last picture is out of date.
"""
import math
import time

from . import drawing as draw
from .drawing import FLOOR, GREY, INK, PAPER, VERMILLION
from ..geometry import WORLD_SIZE

VIEW, PANEL = 640, 104  # px of the window: the world's side, and the height of the lines under it
UNIT = VIEW / WORLD_SIZE  # px of the window per px of the world
SMOOTH = 2  # the world is drawn this much larger, then averaged
FRAME = 1 / 30  # s between two pictures
TRAIL = 60  # steps for which one sees where the agent has been


class Clock:
    """When the next step of the world is due. now: a function that returns seconds.

    A step that comes more than half a period late is a dropped one, and the next is due a whole period after it. A
    smaller delay is caught up.
    """

    def __init__(self, now=time.monotonic, period=0.1):
        self.now, self.period, self.steps, self.dropped = now, period, 0, 0
        self.restart()

    def restart(self):
        self.last = self.now()
        self.due = self.last + self.period

    def tick(self):
        """The step is done now."""
        now, self.steps = self.now(), self.steps + 1
        if now > self.due + self.period / 2:
            self.dropped += 1
            self.restart()
        else:
            self.last, self.due = now, self.due + self.period

    def left(self):
        """Seconds until the next step is due; negative if it is late."""
        return self.due - self.now()


def play(game, window):
    """Play until the window is closed, or Ctrl-C."""
    pg, screen, shown = window.pg, window.canvas((VIEW, VIEW + PANEL)), -math.inf
    try:
        while window.open:
            for event in window.events():
                game.handle(event)
                game.fresh = True  # whatever it was: perhaps the window came back from under another
            busy, now = game.update(), time.monotonic()
            rest = FRAME if not busy else 3 * FRAME if game.clock.left() > FRAME else 8 * FRAME  # time goes before pictures
            if window.open and game.fresh and now > shown + rest:
                game.fresh, shown = False, now
                game.draw(screen)
                pg.display.flip()
            elif not busy:
                pg.time.wait(3)
    except KeyboardInterrupt:
        pass
    finally:
        window.close()


def key_name(event):
    """A key's character, in lower case, or its name where it has none: "n", "+", "space", "right"."""
    character = event.unicode.strip()
    return character.lower() if character.isprintable() and character else draw._pygame().key.name(event.key)


def picture(pg, screen, state, trail, marks):
    """The world, with what marks(canvas, pixels per px of the world) adds to it, onto the upper part of the screen."""
    canvas, unit = pg.Surface((SMOOTH * VIEW, SMOOTH * VIEW), 0, 32), SMOOTH * UNIT
    canvas.fill(FLOOR)
    draw.world(pg, canvas, unit, state, trail[-TRAIL:])
    marks(canvas, unit)
    screen.blit(pg.transform.smoothscale(canvas, (VIEW, VIEW)), (0, 0))


def panel(pg, screen, first, word, second, keys):
    """The lines under the world: first and, at the right, word; then second; then the keys."""
    screen.fill(PAPER, (0, VIEW, VIEW, PANEL))
    shown = draw._text(pg, word, 20, VERMILLION)
    draw._put(screen, shown, VIEW - 16, VIEW + 10, across=1)
    draw._put(screen, _fitting(pg, first, 20, INK, VIEW - 48 - shown.get_width()), 16, VIEW + 10)
    draw._put(screen, _fitting(pg, second, 15, GREY, VIEW - 32), 16, VIEW + 42)
    draw._put(screen, _fitting(pg, keys, 15, GREY, VIEW - 32), 16, VIEW + 72)


def _fitting(pg, text, size, color, width):
    """A line of text, as much smaller as its width demands: fonts differ from machine to machine."""
    while (line := draw._text(pg, text, size, color)).get_width() > width and size > 6:
        size -= 1
    return line


def overlay(pg, screen, keys, colours=()):
    """A sheet over the world: rows of (key, what it does), and of (colour, what it stands for)."""
    marks = [draw._text(pg, key, 16) for key, _ in keys]
    texts = [draw._text(pg, text, 16, GREY) for _, text in (*keys, *colours)]
    middle = 24 + max(mark.get_width() for mark in marks)
    sheet = draw._surface(pg, middle + 44 + max(text.get_width() for text in texts), 26 * len(texts) + 42, (*PAPER, 246))
    for i, text in enumerate(texts):
        y = 16 + 26 * i + (10 if i >= len(keys) else 0)
        draw._put(sheet, text, middle + 20, y)
        if i < len(keys):
            draw._put(sheet, marks[i], middle, y, across=1)
        else:
            pg.draw.circle(sheet, colours[i - len(keys)][0], (middle - 7, y + 10), 7)
    draw._put(screen, sheet, VIEW / 2, VIEW / 2, across=0.5, down=0.5)
