"""What the windows share: how often they draw, when they end, the names of keys, lines that fit."""
from minidiff import stopping
from minidiff.pusht.view import drawing, windows
from minidiff.pusht.view.windows import PANEL, VIEW

from types import SimpleNamespace

import numpy as np
import pytest
from screen import (
    Time,
    assert_apart_and_within,
    color_at,
    is_blank,
    is_color,
    laid_out,
    pygame,
    unseen_window,
)


@pytest.fixture
def window(monkeypatch):
    with unseen_window(monkeypatch) as window:
        yield window


@pytest.fixture
def boxes(monkeypatch):
    return laid_out(monkeypatch, windows)


def test_the_clock_catches_up_small_delays_and_counts_large_ones():
    now = Time()
    clock = windows.Clock(now)
    for seconds, left, dropped in (
            (0.1, 0.1, 0), (0.24, 0.06, 0), (0.3, 0.1, 0), (0.46, 0.1, 1), (0.56, 0.1, 1),
            (0.8, 0.1, 2)):
        now.seconds = seconds
        clock.tick()
        assert clock.left() == pytest.approx(left) and clock.dropped == dropped
        assert clock.last == seconds
    assert clock.steps == 6


class Game:
    """Closes its window after four seconds. An update takes a millisecond."""
    fresh = True

    def __init__(self, window, now, busy=False, left=0.0):
        self.window, self.now, self.busy, self.left = window, now, busy, left
        self.clock = SimpleNamespace(left=lambda: self.left, restart=lambda: None)
        self.drawn, self.handled, self.updates = 0, [], 0

    def update(self):
        self.updates += 1
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
    assert game.drawn == pytest.approx(pictures, rel=0.1)
    assert (game.updates > 3000) == busy, "it waits where there is nothing to do"


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
    def same(line, text, size):
        expected = drawing.render_text(pygame, text, size, drawing.GREEN)
        return pygame.image.tobytes(line, "RGBA") == pygame.image.tobytes(expected, "RGBA")

    def width(size):
        return drawing.render_text(pygame, "long " * 20, size).get_width()

    for size in (19, 20):
        for room, fits in ((width(size), size), (width(size) - 1, size - 1)):
            line = windows._fitting(pygame, "long " * 20, 20, drawing.GREEN, room)
            assert same(line, "long " * 20, fits)
    never = windows._fitting(pygame, "never " * 200, 20, drawing.GREEN, 600)
    assert same(never, "never " * 200, 6), "it gets no smaller than that"


@pytest.mark.parametrize("first", ["first", "first " * 15])
def test_the_panel_has_a_word_at_the_right_and_three_lines(first, window, boxes):
    window.screen.fill(drawing.GREEN)
    windows.panel(pygame, window.screen, first, "word", "second " * 20, "keys " * 30)
    assert set(boxes) == {first, "word", "second " * 20, "keys " * 30}
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


def test_an_overlay_has_a_row_for_each_key_and_each_colour(window, boxes):
    keys = [("a", "does this"), ("a long key", "does that"), ("b", "a long text " * 3)]
    colours = [(drawing.BLUE, "blue"), (drawing.ORANGE, "orange")]
    windows.overlay(pygame, window.screen, keys, colours)
    (left, top, right, bottom), = boxes.pop(None)
    assert set(boxes) == {text for row in keys for text in row} | {"blue", "orange"}
    at = {text: box for text, (box,) in boxes.items()}  # on the sheet
    assert_apart_and_within(list(at.values()), (12, 12, right - left - 12, bottom - top - 12))
    texts = [at[text] for _, text in (*keys, *colours)]
    assert len({box[0] for box in texts}) == 1 and texts == sorted(texts, key=lambda box: box[1])
    for (key, text), other in zip(keys, keys[1:] + keys[:1]):
        assert at[key][1] == at[text][1] and at[key][2] == at[other[0]][2] < at[text][0]
    pixels = pygame.surfarray.array3d(window.screen).swapaxes(0, 1)
    for color, text in colours:
        rows, columns = np.nonzero(is_color(pixels, color))
        assert rows.mean() == pytest.approx(top + (at[text][1] + at[text][3]) / 2, abs=3)
        assert columns.max() == pytest.approx(left + at["a"][2], abs=2), "below the keys"


def test_a_picture_shows_the_world_the_end_of_the_trail_and_the_marks(window):
    state = np.array([90.0, 420.0, 330.0, 130.0, 0.0])
    trail = np.stack([np.linspace(20, 490, 80), np.full(80, 480.0)], -1)
    window.screen.fill((1, 2, 3))
    windows.picture(pygame, window.screen, state, trail, lambda canvas, unit: drawing.stroke(
        pygame, canvas, unit * np.array([[400.0, 300.0]]), drawing.INK, 12 * unit))
    pixels = pygame.surfarray.array3d(window.screen).swapaxes(0, 1)
    drawn = ~is_color(pixels, (1, 2, 3))
    assert drawn[:VIEW].all() and not drawn[VIEW:].any()
    for point, color in ((state[:2], drawing.VERMILLION), ((330, 145), drawing.BLOCK),
                         (trail[-59], drawing.ORANGE), (trail[-62], drawing.FLOOR),
                         ((400, 300), drawing.INK), ((20, 20), drawing.FLOOR)):
        assert color_at(window, point) == color
