"""What the windows share: how often they draw, when they end, the names of keys, lines that fit."""
from minidiff import stopping
from minidiff.pusht.view import drawing, windows
from minidiff.pusht.view.windows import PANEL, VIEW

from types import SimpleNamespace

import numpy as np
import pytest
from screen import Time, is_blank, is_color, pygame, unseen_window


@pytest.fixture
def window(monkeypatch):
    with unseen_window(monkeypatch) as window:
        yield window


class Game:
    """Closes its window after four seconds. An update takes a millisecond."""
    fresh = True

    def __init__(self, window, now, busy=False, left=0.0):
        self.window, self.now, self.busy, self.left = window, now, busy, left
        self.clock = SimpleNamespace(left=lambda: self.left, restart=lambda: None)
        self.drawn, self.handled = 0, []

    def update(self):
        self.now.seconds += 0.001
        if self.now.seconds > 4:
            self.window.close()
        return self.busy

    def draw(self, screen):
        assert screen.get_size() == (VIEW, VIEW + PANEL)
        self.drawn += 1

    def handle(self, event):
        self.handled.append(event)
        self.fresh = False

    def summary(self):
        return f"{self.drawn} pictures"


@pytest.fixture
def now(monkeypatch):
    """The time, which passes with updates and where the loop waits."""
    now = Time()
    monkeypatch.setattr(windows, "time", SimpleNamespace(monotonic=now))
    monkeypatch.setattr(pygame.time, "wait", lambda ms: setattr(
        now, "seconds", now.seconds + ms / 1000))
    return now


@pytest.mark.parametrize("busy, left, pictures", [
    (False, 0.0, 120),  # 30 a second
    (True, 0.1, 40), (True, 0.01, 15)])
def test_pictures_give_way_to_the_clock_of_the_world(busy, left, pictures, window, now):
    class Moving(Game):
        fresh = property(lambda game: True, lambda game, value: None)

    game = Moving(window, now, busy, left)
    windows.play(game, window)
    assert game.drawn == pytest.approx(pictures, rel=0.15)


def test_what_is_drawn_once_is_drawn_again_after_an_event_alone(window, now):
    game = Game(window, now)
    times = iter(range(10**6))
    window.events = lambda: ["an event"] if next(times) == 500 else []
    windows.play(game, window)
    assert (game.drawn, game.handled) == (2, ["an event"])


def test_a_signal_ends_the_window_and_its_summary_is_printed(window, now, monkeypatch, capsys):
    monkeypatch.setattr(drawing, "Window", lambda: window)
    monkeypatch.setattr(stopping, "asked", lambda: now.seconds > 1)
    game = Game(window, now)
    restarted = []
    game.clock.restart = lambda: restarted.append(game.drawn)
    windows.run(game)
    assert now.seconds < 1.1 and not window.open and restarted == [0]
    assert capsys.readouterr().out == f"{game.drawn} pictures\n"


@pytest.mark.parametrize("code, character, name", [
    ("n", "N", "n"), ("=", "+", "+"), ("space", " ", "space"), ("right", "", "right"),
    ("return", "\r", "return"), ("backspace", "\b", "backspace"), ("escape", "\x1b", "escape")])
def test_a_key_has_its_character_or_its_name(code, character, name):
    pygame.init()
    event = SimpleNamespace(key=pygame.key.key_code(code), unicode=character)
    assert windows.key_name(event) == name


def test_a_line_that_is_too_long_gets_smaller(window):
    short = windows._fitting(pygame, "short", 20, drawing.INK, 600)
    long = windows._fitting(pygame, "long " * 20, 20, drawing.INK, 600)
    never = windows._fitting(pygame, "never " * 200, 20, drawing.INK, 600)
    full = drawing.render_text(pygame, "long " * 20, 20)
    assert short.get_height() == full.get_height() > long.get_height() > never.get_height()
    assert long.get_width() <= 600 < full.get_width() and 600 < never.get_width()


@pytest.mark.parametrize("first", ["first", "first " * 15])
def test_the_panel_has_a_word_at_the_right_and_three_lines(first, window):
    window.screen.fill(drawing.GREEN)
    windows.panel(pygame, window.screen, first, "word", "second " * 20, "keys")
    pixels = pygame.surfarray.array3d(window.screen).swapaxes(0, 1)
    assert is_color(pixels[:VIEW], drawing.GREEN).all(), "the world is left as it is"
    panel = pixels[VIEW:]
    (top, left), (bottom, right) = spans(is_color(panel, drawing.VERMILLION))
    assert 10 <= top < bottom < 40 and VIEW - 26 < right < VIEW - 14
    text = ~is_color(panel, drawing.PAPER)
    (top, start), (bottom, end) = spans(text[:40, :left - 3])
    assert 10 <= top < bottom < 40 and 14 < start < 26 and end < left - 14
    for lines in (text[40:66], text[70:]):
        (_, start), (_, end) = spans(lines)
        assert 14 < start < 26 and end < VIEW - 14
    assert is_blank(panel[66:70]) and is_blank(panel[-8:])


def spans(pixels):
    """The first row and column of what is True, and the last ones."""
    places = np.argwhere(pixels)
    return places.min(0), places.max(0)


def test_an_overlay_stands_in_the_middle_of_the_world(window):
    window.screen.fill(drawing.GREEN)
    windows.overlay(pygame, window.screen, [("a", "b")], [(drawing.BLUE, "blue")])
    pixels = pygame.surfarray.array3d(window.screen).swapaxes(0, 1)
    rows, columns = np.nonzero(~is_color(pixels, drawing.GREEN))
    middle = (rows.min() + rows.max() + 1) / 2, (columns.min() + columns.max() + 1) / 2
    assert middle == pytest.approx((VIEW / 2, VIEW / 2), abs=1)
    dot, ink = is_color(pixels, drawing.BLUE), is_color(pixels, drawing.INK)
    assert np.nonzero(dot)[0].min() > np.nonzero(ink)[0].max()
