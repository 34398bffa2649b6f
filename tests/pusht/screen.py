"""What the tests of pictures and windows share: pixels, a window, a still clock, keys, a mouse."""
from minidiff.pusht.view import drawing
from minidiff.pusht.view.windows import HEIGHT, UNIT, WIDTH

import contextlib

import numpy as np
import pytest

pygame = pytest.importorskip("pygame")


def is_color(pixels, color):
    return (pixels == color).all(-1)


def load(path):
    return pygame.surfarray.array3d(pygame.image.load(str(path))).swapaxes(0, 1)


def laid_out(monkeypatch, module):
    """Where a module will put its texts: text -> its boxes (left, top, right, bottom) in px.

    The boxes of surfaces that are no texts are under None.
    """
    boxes, texts = {}, []
    render, put = module.render_text, module.put

    def renders(pg, text, *style):
        texts.append((text, render(pg, text, *style)))
        return texts[-1][1]

    def puts(canvas, surface, x, y, across=0.0, down=0.0):
        text = next((text for text, known in texts if known is surface), None)
        width, height = surface.get_size()
        corner = np.array([x - across * width, y - down * height])
        boxes.setdefault(text, []).append((*corner, *corner + [width, height]))
        put(canvas, surface, x, y, across, down)

    monkeypatch.setattr(module, "render_text", renders)
    monkeypatch.setattr(module, "put", puts)
    return boxes


def assert_apart_and_within(boxes, area):
    """No two boxes (left, top, right, bottom) overlap, and all lie in an area (ditto)."""
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert area[0] <= left and area[1] <= top and right <= area[2] and bottom <= area[3]
        for other in boxes[:i]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def is_blank(pixels):
    return is_color(pixels, drawing.PAPER).all()


def assert_margins_are_blank(picture, margin):
    assert is_blank(picture[:margin]) and is_blank(picture[-margin:])
    assert is_blank(picture[:, :margin]) and is_blank(picture[:, -margin:])


@contextlib.contextmanager
def unseen_window(monkeypatch):
    """A window of SDL's driver that draws into nowhere."""
    pygame.display.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = drawing.Window()
    window.canvas((WIDTH, HEIGHT))
    yield window
    window.close()


class Time:
    """A clock that stands still until it is told otherwise."""
    seconds = 0.0

    def __call__(self):
        return self.seconds


def wait(game, seconds):
    """Let time pass, in steps of 5 ms, and let the game do what is due."""
    for _ in range(round(200 * seconds)):
        game.clock.now.seconds += 0.005
        while game.update():
            pass


def key(name):
    """A key pressed."""
    characters = {"space": " ", "return": "\r", "backspace": "\b"}
    character = characters.get(name, name if len(name) == 1 else "")
    code = pygame.key.key_code("=" if name == "+" else name)
    return pygame.event.Event(pygame.KEYDOWN, key=code, unicode=character)


def at(kind, point, **more):
    """A mouse event at a point of the world."""
    return pygame.event.Event(kind, pos=(point[0] * UNIT, point[1] * UNIT), **more)


def color_at(window, point):
    """The colour on the screen at a point of the world."""
    return tuple(window.screen.get_at((int(point[0] * UNIT), int(point[1] * UNIT))))[:3]


SIZES = ((1024, 600), (1280, 800), (1920, 1080), (2560, 1440))  # of windows


def assert_texts_are_whole(game, boxes, size):
    """What a game writes onto a screen of that size overlaps nowhere, lies on it, and is not tiny.

    boxes: those of `laid_out`.
    """
    boxes.clear()
    game.draw(pygame.Surface(size, 0, 32))
    texts = [box for text, places in boxes.items() if str(text).strip() for box in places]
    assert len(texts) > 5
    assert_apart_and_within(texts, (8, 4, size[0] - 8, size[1] - 4))
    scale = min(size[0] / WIDTH, size[1] / HEIGHT)
    assert min(bottom - top for _, top, _, bottom in texts) >= 14 * scale


def lists_for_windows(monkeypatch):
    """From now on a window of drawing.py is a list of what it showed, and in the list returned."""
    windows = []

    class Window(list):
        show = list.append

        def __init__(self):
            windows.append(self)

        def close(self):
            self.append("closed")

    monkeypatch.setattr(drawing, "Window", Window)
    return windows
