"""What the windows share: how often they draw, when they end, the names of keys, lines that fit."""
from minidiff import stopping
from minidiff.pusht.view import drawing, windows
from minidiff.pusht.view.windows import HEIGHT, VIEW, WIDTH

from types import SimpleNamespace

import numpy as np
import pytest
from screen import (
    SIZES,
    Time,
    assert_apart_and_within,
    color_at,
    is_color,
    key,
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


def test_the_clock_tells_the_rate_that_was_reached():
    now = Time()
    clock = windows.Clock(now, period=0.025)
    assert clock.rate() == "– of 40 Hz"
    for _ in range(30):
        now.seconds += 1 / 3
        clock.tick()
    assert clock.rate() == "3 of 40 Hz"
    for _ in range(10):
        now.seconds += 0.025
        clock.tick()
    assert clock.rate() == "40 of 40 Hz", "of the last steps"
    now.seconds += 60
    clock.restart()
    clock.tick()
    assert clock.rate() == "– of 40 Hz", "a pause is not slow"
    clock.tick()
    clock.period = 0.8
    assert clock.rate() == "– of 1.25 Hz", "nor are two steps at once infinitely quick"


def test_a_step_that_is_held_is_not_late():
    now = Time()
    clock = windows.Clock(now)
    clock.hold()
    assert clock.left() == pytest.approx(0.1), "not yet due"
    now.seconds = 5
    clock.hold()
    assert clock.left() == 0 == clock.last
    now.seconds = 5.04
    clock.tick()
    assert clock.dropped == 0 and clock.last == 5.04


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
        assert screen.get_size() == (WIDTH, HEIGHT)
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


@pytest.mark.parametrize("left, pictures", [(0.06, 75), (0.04, 15), (0.0, 75), (-9.0, 75)])
def test_no_picture_begins_that_would_delay_a_step(left, pictures, window, now):
    """A picture takes 50 ms. Where no step is due, as in a pause, they come as fast as they can."""
    class Slow(Game):
        fresh = property(lambda game: True, lambda game, value: None)

        def draw(self, screen):
            super().draw(screen)
            self.now.seconds += 0.05

    game = Slow(window, now, left=left)
    windows.play(game, window)
    assert game.drawn == pytest.approx(pictures, rel=0.1)


def test_what_is_drawn_once_is_drawn_again_after_an_event_alone(window, now):
    game = Game(window, now)
    times = iter(range(10**6))
    window.events = lambda: ["an event"] if next(times) == 500 else []
    windows.play(game, window)
    assert (game.drawn, game.handled) == (2, ["an event"])


def test_a_signal_ends_the_window_and_its_summary_is_printed(window, now, monkeypatch, capsys):
    titles = []
    monkeypatch.setattr(drawing, "Window", lambda title: titles.append(title) or window)
    monkeypatch.setattr(stopping, "asked", lambda: now.seconds > 1)
    game = Game(window, now)
    restarted = []
    game.clock.restart = lambda: restarted.append(game.drawn)
    windows.run(game)
    assert now.seconds < 1.1 and not window.open and restarted == [0]
    assert titles == ["minidiff"]
    assert capsys.readouterr().out == f"{game.drawn} pictures\n"


def test_a_film_has_the_last_ten_seconds_at_their_pace(window, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    film = windows.Film()
    for k in range(60):
        window.screen.fill((4 * k, 200 * (k % 2), 0))
        film.add(pygame, window.screen, 0.3 * k)
    film.add(pygame, window.screen, 0.3 * 59 + 0.05)  # too soon
    assert len(film.shots) == 35
    film.save(tmp_path / "a.webp")
    saved = Image.open(tmp_path / "a.webp")
    assert saved.n_frames == 35 and saved.size == (768, 450)
    reds, seconds = [], 0
    for k in range(saved.n_frames):
        saved.seek(k)
        saved.load()
        reds.append(saved.convert("RGB").getpixel((400, 200))[0])
        seconds += saved.info["duration"] / 1000
    np.testing.assert_allclose(reds, 4 * np.arange(25, 60), atol=12)
    assert seconds == pytest.approx(34 * 0.3 + 1, abs=0.1)


def test_a_window_of_another_shape_begins_another_film(window):
    film = windows.Film()
    for second, (size, count) in enumerate([((1024, 600), 1), ((2048, 1200), 2), ((800, 600), 1)]):
        film.add(pygame, pygame.Surface(size, 0, 32), second)
        assert len(film.shots) == count


def test_a_free_name_is_that_of_no_file(tmp_path):
    for expected in ("a.png", "a-2.png", "a-3.png"):
        name = windows.free_name(str(tmp_path / "a"), ".png")
        assert name == str(tmp_path / expected)
        (tmp_path / expected).touch()


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
            line = windows.fitting(pygame, "long " * 20, 20, drawing.GREEN, room)
            assert same(line, "long " * 20, fits)
    never = windows.fitting(pygame, "never " * 200, 20, drawing.GREEN, 600)
    assert same(never, "never " * 200, 6), "it gets no smaller than that"


def test_a_paragraph_breaks_between_words_where_it_must(window):
    text = "many words " * 9 + "end"
    lines = windows.wrapped(pygame, text, 16, 200)
    assert " ".join(lines) == text and len(lines) > 3
    for line, following in zip(lines, lines[1:]):
        longer = f"{line} {following.split()[0]}"
        assert drawing.render_text(pygame, line, 16).get_width() <= 200
        assert drawing.render_text(pygame, longer, 16).get_width() > 200
    assert windows.wrapped(pygame, "incomprehensibilities", 16, 20) == ["incomprehensibilities"]


@pytest.mark.parametrize("size", [*SIZES, (600, 900)], ids=str)
def test_a_page_is_as_large_as_its_screen_allows_and_in_the_middle(size):
    page = windows.Page(pygame, pygame.Surface(size))
    left, top = page.at(0, 0)
    right, bottom = page.at(WIDTH, HEIGHT)
    assert (left, top) == pytest.approx((size[0] - right, size[1] - bottom), abs=1e-6)
    assert min(left, top) == pytest.approx(0) and right - left == pytest.approx(WIDTH * page.scale)
    assert (right - left) / (bottom - top) == pytest.approx(WIDTH / HEIGHT)


@pytest.mark.parametrize("desktop", [*SIZES, (1080, 1920)], ids=str)
def test_a_window_opens_as_large_as_its_desktop_allows(desktop, window, monkeypatch):
    window.close()
    monkeypatch.setattr(pygame.display, "get_desktop_sizes", lambda: [desktop, (99, 99)])
    opened = drawing.Window("minidiff")
    screen = opened.stage(WIDTH, HEIGHT)
    width, height = screen.get_size()
    assert pygame.display.get_caption()[0] == "minidiff" and screen.get_flags() & pygame.RESIZABLE
    assert width / height == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    assert width <= desktop[0] and height <= desktop[1] - 60, "there is room for its frame"
    assert width > 0.95 * desktop[0] or height > 0.8 * desktop[1]
    assert opened.stage(WIDTH, HEIGHT) is screen
    opened.close()


def test_a_picture_is_for_the_size_that_the_window_has_now(window, now):
    class Resized(Game):
        fresh = property(lambda game: True, lambda game, value: None)

        def draw(self, screen):
            pixels = pygame.surfarray.array3d(screen)
            seen.append((screen.get_size(), is_color(pixels, drawing.PAPER).all()))
            screen.fill(drawing.GREEN)
            if len(seen) == 2:
                pygame.display.set_mode((800, 700))
            elif len(seen) == 4:
                self.now.seconds = 5  # the next update closes the window

    seen = []
    windows.play(Resized(window, now), window)
    assert seen == [((WIDTH, HEIGHT), True)] * 2 + [((800, 700), True)] * 2


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_world_fills_its_square_at_any_size(size):
    screen = pygame.Surface(size)
    windows.picture(pygame, screen, np.array([90.0, 420, 330, 130, 0]), [], lambda *canvas: None)
    page = windows.Page(pygame, screen)
    right, bottom = page.at(VIEW - 2, VIEW - 2)
    assert min(screen.get_at((int(right), int(bottom)))[:3]) > 240
    right, _ = page.at(VIEW + 1, 0)
    assert screen.get_at((int(right), 5))[:3] == (0, 0, 0)


@pytest.mark.parametrize("size, pos", [((2048, 1300), (300, 250)), ((2148, 1200), (350, 200))])
def test_the_mouse_is_where_it_is_on_the_page(size, pos, window, now):
    game, places = Game(window, now), []
    game.handle = lambda event: places.append(getattr(event, "pos", None))
    game.draw = lambda screen: None
    window.screen = pygame.display.set_mode(size)  # twice the page, and 50 px on two sides of it
    moved = pygame.event.Event(pygame.MOUSEMOTION, pos=pos, rel=(0, 0), buttons=(0, 0, 0))
    window.events = lambda: [moved, key("n")] if not places else []
    windows.play(game, window)
    assert places == [(150, 100), None]


def test_the_panel_has_its_words_in_their_places(window, boxes):
    window.screen.fill(drawing.GREEN)
    keys = windows.APART.join(["a  this", "b  that", "c  more"])
    windows.panel(pygame, window.screen, "first    more    yet", "word", "second\nthird", keys, 300,
                  "note")
    pixels = pygame.surfarray.array3d(window.screen).swapaxes(0, 1)
    assert is_color(pixels[:, :VIEW], drawing.GREEN).all(), "the world is left as it is"
    at = {text: box for text, (box,) in boxes.items()}
    assert set(at) == {"first", "more    yet", "word", "second", "third", "note", "a  this",
                       "b  that", "c  more"}
    assert_apart_and_within(list(at.values()), (VIEW + 14, 10, WIDTH - 14, HEIGHT - 8))
    assert at["word"][2] == WIDTH - 16 and at["word"][1] < 20 > at["first"][1]
    assert at["first"][3] <= at["more    yet"][1] < 300 == at["second"][1]
    assert at["second"][3] <= at["third"][1] < at["third"][3] <= at["note"][1] < 380
    assert at["a  this"][:2] < at["b  that"][:2] and at["a  this"][1] == at["c  more"][1] > 500
    assert is_color(pixels[300:400], drawing.VERMILLION).any() and not is_color(
        pixels[300:380, VIEW:], drawing.GREEN).any()


def test_help_stands_beside_the_world_and_leaves_the_rest(window, boxes):
    window.screen.fill(drawing.GREEN)
    keys = [("a", "does this"), ("a long key", "does that"), ("b", "a long text " * 3)]
    colours = [(drawing.BLUE, "blue"), (drawing.ORANGE, "orange")]
    windows.overlay(pygame, window.screen, keys, colours, y=300)
    pixels = pygame.surfarray.array3d(window.screen).swapaxes(0, 1)
    assert is_color(pixels[:, :VIEW], drawing.GREEN).all(), "the world is left as it is"
    assert is_color(pixels[:300], drawing.GREEN).all(), "and what stands above"
    assert not is_color(pixels[300:, VIEW:], drawing.GREEN).any()
    at = {text: box for text, (box,) in boxes.items()}
    assert set(at) == {text for row in keys for text in row} | {"blue", "orange"}
    assert_apart_and_within(list(at.values()), (VIEW + 10, 300, WIDTH - 10, HEIGHT - 4))
    texts = [at[text] for _, text in (*keys, *colours)]
    assert len({box[0] for box in texts}) == 1 and texts == sorted(texts, key=lambda box: box[1])
    for (mark, text), other in zip(keys, keys[1:] + keys[:1]):
        assert at[mark][1] == at[text][1] and at[mark][2] == at[other[0]][2] < at[text][0]
    for color, text in colours:
        rows, columns = np.nonzero(is_color(pixels, color))
        assert rows.mean() == pytest.approx((at[text][1] + at[text][3]) / 2, abs=3)
        assert columns.max() <= at["a"][2] + 2, "below the keys"


def test_a_help_of_many_rows_stays_on_the_page(window, boxes):
    windows.overlay(pygame, window.screen, [(str(k), f"does {k}") for k in range(17)], y=294)
    assert_apart_and_within([box for text, (box,) in boxes.items()],
                            (VIEW + 10, 294, WIDTH - 10, HEIGHT - 4))


def test_a_picture_shows_the_world_the_end_of_the_trail_and_the_marks(window):
    state = np.array([90.0, 420.0, 330.0, 130.0, 0.0])
    trail = np.stack([np.linspace(20, 490, 80), np.full(80, 480.0)], -1)
    window.screen.fill((1, 2, 3))
    windows.picture(pygame, window.screen, state, trail, lambda canvas, unit: drawing.stroke(
        pygame, canvas, unit * np.array([[400.0, 300.0]]), drawing.INK, 12 * unit))
    pixels = pygame.surfarray.array3d(window.screen).swapaxes(0, 1)
    drawn = ~is_color(pixels, (1, 2, 3))
    assert drawn[:, :VIEW].all() and not drawn[:, VIEW:].any()
    for point, color in ((state[:2], drawing.VERMILLION), ((330, 145), drawing.BLOCK),
                         (trail[-59], drawing.ORANGE), (trail[-62], drawing.FLOOR),
                         ((400, 300), drawing.INK), ((20, 20), drawing.FLOOR)):
        assert color_at(window, point) == color
