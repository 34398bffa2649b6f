"""Pictures show what they are given: pixels stand where the state says, nothing overlaps, no file is half written."""
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import train
from minidiff import checkpoint, demos, policy
from minidiff.pusht import rollout
from minidiff.pusht.view import charts as chart, drawing as draw
from minidiff.pusht.env import AGENT_RADIUS, BAR, GOAL_POSE, STEM
from minidiff.pusht.features import PUSHT

pygame = pytest.importorskip("pygame")
STATE = np.array([90.0, 420.0, 330.0, 130.0, 2.2])  # agent, block and goal apart from each other
ROWS, COLUMNS = np.mgrid[:512, :512] + 0.5  # centre of each pixel: y, x


def in_T(pose, grow):
    """(512, 512) bool: pixels in the T at pose, each of its boxes grown (or shrunk) by so many px."""
    x, y, angle = pose
    u = (COLUMNS - x) * math.cos(angle) + (ROWS - y) * math.sin(angle)
    v = (ROWS - y) * math.cos(angle) - (COLUMNS - x) * math.sin(angle)
    inside = np.zeros(u.shape, bool)
    for box in (np.array(BAR), np.array(STEM)):
        (left, low), (right, high) = box.min(0) - grow, box.max(0) + grow
        inside |= (u > left) & (u < right) & (v > low) & (v < high)
    return inside


def near_agent(state, grow):
    return np.hypot(COLUMNS - state[0], ROWS - state[1]) < AGENT_RADIUS + grow


def near_points(points, radius):
    return np.min([np.hypot(COLUMNS - x, ROWS - y) for x, y in points], axis=0) < radius


def is_color(pixels, color):
    return (pixels[..., 0] == color[0]) & (pixels[..., 1] == color[1]) & (pixels[..., 2] == color[2])


def load(path):
    return pygame.surfarray.array3d(pygame.image.load(str(path))).swapaxes(0, 1)


coordinate = st.floats(0, 512)
states = st.tuples(coordinate, coordinate, coordinate, coordinate, st.floats(-7, 7)).map(np.array)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(states)
def test_every_pixel_of_block_goal_and_agent_is_where_the_state_says(state):
    pixels = draw.frame(state)
    agent, block, goal = near_agent(state, -2), in_T(state[2:], -4), in_T(GOAL_POSE, -4)
    no_agent, no_block, no_goal = ~near_agent(state, 2), ~in_T(state[2:], 4), ~in_T(GOAL_POSE, 4)
    inner = (np.abs(ROWS - 256) < 240) & (np.abs(COLUMNS - 256) < 240)  # without the walls
    assert is_color(pixels, draw.VERMILLION)[agent].all()
    assert is_color(pixels, draw.BLOCK)[block & no_agent & (goal | no_goal)].all()
    assert is_color(pixels, draw.GOAL)[goal & no_agent & no_block].all()
    assert is_color(pixels, draw.FLOOR)[no_agent & no_block & no_goal & inner].all()


def test_the_outline_of_the_goal_stays_visible_over_a_block_that_covers_it():
    pixels = draw.frame([60, 60, *GOAL_POSE])
    edge = in_T(GOAL_POSE, 0) & ~in_T(GOAL_POSE, -1)
    assert is_color(pixels, draw.GREEN)[edge].mean() > 0.3
    assert not is_color(pixels, draw.GOAL).any()


@pytest.mark.parametrize("size", [64, 160, 512])
def test_a_frame_has_the_size_asked_for_and_shows_the_same_world(size):
    pixels = draw.frame(STATE, size=size)
    assert pixels.shape == (size, size, 3) and pixels.dtype == np.uint8
    x, y = (STATE[:2] * size / 512).astype(int)
    assert tuple(pixels[y, x]) == draw.VERMILLION


def test_a_frame_is_deterministic_and_leaves_its_arguments_alone():
    plans = np.random.default_rng(0).uniform(0, 512, (5, 8, 2))
    arguments = STATE.copy(), np.array([100.0, 200.0]), plans.copy(), plans[0].copy()
    first = draw.frame(*arguments)
    assert np.array_equal(first, draw.frame(*arguments))
    assert np.array_equal(arguments[0], STATE) and np.array_equal(arguments[2], plans)


def test_plans_reach_their_end_points_fade_towards_them_and_touch_nothing_else():
    along = np.linspace(0, 1, 12)[:, None]
    ends = np.array([[250.0, 480.0], [60.0, 250.0], [200.0, 400.0]])
    plans = STATE[:2] + along * (ends[:, None] - STATE[:2])  # (3, 12, 2)
    plain, planned = draw.frame(STATE).astype(int), draw.frame(STATE, plans=plans).astype(int)
    darker = (plain - planned).sum(-1)  # (512, 512)
    for plan in plans:
        beyond = plan[-1] + 2.5 * (plan[-1] - plan[0]) / np.hypot(*(plan[-1] - plan[0]))  # still in the dot
        at_start, before_end, at_end, at_rim = (
            darker[int(y), int(x)] for x, y in (plan[3], (plan[-1] + plan[-2]) / 2, plan[-1], beyond))
        assert at_start > before_end > 100 and at_end > 100 and at_rim > 100
    assert (darker[~near_points(plans.reshape(-1, 2), 25)] == 0).all()
    assert np.array_equal(plain, draw.frame(STATE, plans=np.zeros((0, 12, 2))))


def test_target_and_trail_are_drawn_where_they_are():
    trail = np.stack([np.linspace(40, 200, 30), np.full(30, 470.0)], -1)
    pixels = draw.frame(STATE, target=[100.0, 100.0], trail=trail)
    assert all(tuple(pixels[y, x]) == draw.INK for x, y in ((100, 100), (95, 95), (105, 105), (105, 95), (95, 105)))
    assert is_color(pixels, draw.ORANGE)[470, 45:195].all()
    plain = draw.frame(STATE)
    far = ~near_points(np.vstack([trail, [[100, 100]]]), 20)
    assert np.array_equal(pixels[far], plain[far])
    assert np.array_equal(plain, draw.frame(STATE, trail=np.zeros((0, 2))))


@pytest.mark.parametrize("arguments, said", [
    (dict(state=STATE[:4]), "state must have shape"),
    (dict(state=STATE * np.nan), "state must be finite"),
    (dict(state=STATE, target=[1, 2, 3]), "target must have shape"),
    (dict(state=STATE, plans=np.zeros((4, 2))), "plans must have shape"),
    (dict(state=STATE, plans=np.full((1, 4, 2), np.inf)), "plans must be finite"),
    (dict(state=STATE, trail=np.zeros((4, 3))), "trail must have shape"),
])
def test_a_frame_refuses_what_it_cannot_show(arguments, said):
    with pytest.raises(ValueError, match=said):
        draw.frame(**arguments)


def test_plans_far_outside_the_world_are_cut_off():
    x, y = STATE[:2]
    pixels = draw.frame(STATE, target=[1e30, -1e30], plans=[[[x, y], [1e12, y]]])
    darker = (draw.frame(STATE).astype(int) - pixels).sum(-1)
    assert (darker[int(y), int(x) + 1:] > 100).all()


# ---- files

def test_save_png_writes_exactly_these_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    draw.save_png(tmp_path / "a.png", pixels)
    assert np.array_equal(load(tmp_path / "a.png"), pixels)
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])  # while the file is written; when it takes the old one's place
def test_a_save_that_fails_keeps_the_old_file_and_leaves_no_partial_one(tmp_path, monkeypatch, fails):
    old, new = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    draw.save_png(tmp_path / "a.png", old)

    def refuse(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, refuse)
        with pytest.raises(OSError):
            draw.save_png(tmp_path / "a.png", new)
    assert os.listdir(tmp_path) == ["a.png"]
    assert np.array_equal(load(tmp_path / "a.png"), old)


def test_save_png_refuses_other_arrays_and_makes_missing_folders(tmp_path):
    for array in (np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(ValueError, match="uint8"):
            draw.save_png(tmp_path / "a.png", array)
    draw.save_png(tmp_path / "new" / "a.png", np.zeros((4, 4, 3), np.uint8))
    assert os.listdir(tmp_path / "new") == ["a.png"]


# ---- film strips and curves

def blank(pixels):
    return is_color(pixels, draw.PAPER).all()


def assert_margins_are_blank(picture, margin):
    assert blank(picture[:margin]) and blank(picture[-margin:])
    assert blank(picture[:, :margin]) and blank(picture[:, -margin:])


def corners_of(picture):
    """(N, 2) row and column of every pixel that has paper above and left of it."""
    paper = is_color(picture, draw.PAPER)
    return np.argwhere(paper[:-1, 1:] & paper[1:, :-1] & ~paper[1:, 1:]) + 1


@pytest.mark.slow
@pytest.mark.parametrize("size, word", [(60, "step"), (80, "a caption wider than its frame, step"), (160, "step")])
def test_a_film_strip_shows_each_frame_whole_with_its_caption_below_and_nothing_overlaps(tmp_path, size, word):
    rows, number = [], 0
    for count in (3, 1):
        frames = []
        for _ in range(count):
            frames.append((STATE + [20 * number, 0, 0, 0, number], f"{word} {number}"))
            number += 1
        rows.append((f"seed {300000 + count}", frames, "success at step 131"))
    draw.film_strip(tmp_path / "strip.png", rows, size=size)
    picture = load(tmp_path / "strip.png")
    assert_margins_are_blank(picture, 30)

    lefts, corners = {}, corners_of(picture)
    for row, (_, frames, _) in enumerate(rows):
        for column, (state, _) in enumerate(frames):
            shown = draw.frame(state, size=2 * size)
            (y, x), = [(y, x) for y, x in corners if np.array_equal(picture[y:y + 2 * size, x:x + 2 * size], shown)]
            lefts.setdefault(column, x)
            assert lefts[column] == x, "frames of a column stand below each other"
            assert not blank(picture[y + 2 * size:y + 2 * size + 48, x:x + 2 * size]), "its caption"
            assert blank(picture[y + 2 * size + 56:y + 2 * size + 66]), "room before the next row"
        assert not blank(picture[y:y + 2 * size, :min(lefts.values())]), "label and footer"
        beside = picture[y:y + 2 * size, x + 2 * size:]
        if column == 0:
            assert blank(beside), "a shorter row ends with its last frame"
    assert not blank(picture[:70]), "the legend"
    for color in (draw.GOAL, draw.BLOCK, draw.VERMILLION):
        assert is_color(picture[:90], color).any()


def test_the_legend_names_plans_only_where_there_are_some(tmp_path):
    plan, ink = np.linspace(STATE[:2], (300, 300), 8)[None], []
    for frame in ((STATE, "step 0"), (STATE, "step 0", plan)):
        draw.film_strip(tmp_path / "strip.png", [("seed 1", [frame] * 3, "")])
        ink.append(is_color(load(tmp_path / "strip.png")[:110], draw.INK).sum())
    assert ink[1] > ink[0] + 28 * 4 > 0


def test_training_draws_the_first_episodes_by_the_untrained_and_the_trained_network(tmp_path, monkeypatch, demos_file):
    data, seeds = demos.load(demos_file, PUSHT), range(5000, 5002)
    config = train.Config(steps=20, width=16, blocks=1, T=6, batch=32, ema=0.5, seed=3)
    run, fresh, resumed = (train.Run(config, tmp_path, data) for _ in range(3))
    train.train(run, save_every=100)
    resumed.restore(*checkpoint.load(run.path))
    trained, untrained = (policy.load(run.path, PUSHT, sampler="ddim", steps=4)[0] for _ in range(2))
    untrained.eps_theta.net.theta[:] = fresh.net.theta
    starts_and_ends = [[states[[0, -1]] for states in rollout.rollout(p, seeds, record=True)[1]]
                       for p in (untrained, trained)]
    rows = []
    monkeypatch.setattr(draw, "film_strip", lambda path, given: rows.append((path, given)))
    for each in (run, resumed):
        train.draw(each, seeds)
        path, strip = rows.pop()
        assert path == tmp_path / "rollouts.png" and len(strip) == 4
        for row, (label, frames, footer) in enumerate(strip):
            seed, after = divmod(row, 2)
            assert label == f"seed {seeds[seed]}" and footer.startswith(("before", "after")[after] + " training")
            assert np.array_equal([frames[0][0], frames[-1][0]], starts_and_ends[after][seed])
        assert not np.array_equal(strip[0][1][-1][0], strip[1][1][-1][0])


def test_a_film_strip_without_frames_is_refused(tmp_path):
    for rows in ([], [("seed 1", [], "")]):
        with pytest.raises(ValueError, match="at least one"):
            draw.film_strip(tmp_path / "strip.png", rows)


def chart_of(tmp_path, series, **options):
    chart.curves(tmp_path / "chart.png", series, "A title", "across", "up", **options)
    return load(tmp_path / "chart.png")


NAN = float("nan")
DEGENERATE = {
    "nothing": [], "empty": [("a", [], [])], "one point": [("a", [5], [0.3])], "one x": [("a", [3, 3], [1, 2])],
    "constant": [("a", [0, 1], [0.001, 0.001])], "zeros": [("a", [0, 1], [0, 0])],
    "negative": [("a", [0, 1], [-3, -1])], "only NaN": [("a", [0, 1], [NAN, NAN])],
    "infinite": [("a", [0, 1, NAN], [1, np.inf, 2])],
    "thirty decades": [("a", [0, 1], [1e-15, 1e15])], "tiny": [("a", [0, 1], [1e-30, 2e-30])],
    "many series": [(f"series {i}", [0, 1], [1, 2]) for i in range(30)],
    "long name": [("a name that is much longer than any name ought to be, but is", [0, 1], [1, 2])],
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_curves_of_degenerate_data_are_whole_pictures(tmp_path, name):
    for log_y in (True, False):
        picture = chart_of(tmp_path, DEGENERATE[name], log_y=log_y)
        assert picture.shape[0] > 600 and picture.shape[1] > 1000
        assert_margins_are_blank(picture, 20)


def axes_of(picture):
    """Column of the vertical axis and row of the horizontal one: where most of the grey is."""
    rows, columns = np.nonzero(is_color(picture, draw.GREY))
    return np.bincount(columns).argmax(), np.bincount(rows).argmax()


def plot_of(picture):
    """The inside of the axes, (500, 900, 3), without the last pixels next to them."""
    left, bottom = axes_of(picture)
    return picture[bottom - 500:bottom - 2, left + 2:left + 900]


def test_names_and_tick_texts_stand_outside_the_plot(tmp_path):
    series = [(f"series {i}", [0, 1], [0.1 ** i, 0.2]) for i in range(4)]
    picture = chart_of(tmp_path, series, note="a note")
    left, bottom = axes_of(picture)
    assert not is_color(plot_of(picture), draw.INK).any()
    assert is_color(picture[bottom - 500:bottom, left + 945:], draw.INK).any()  # names
    assert is_color(picture[bottom - 500:bottom, 60:left - 10], draw.GREY).any()  # texts of the y ticks
    assert is_color(picture[bottom + 8:bottom + 32], draw.GREY).any()  # texts of the x ticks
    assert is_color(picture[bottom + 40:], draw.INK).any() and is_color(picture[:, :60], draw.INK).any()  # axis names
    assert is_color(picture[:60], draw.INK).any() and is_color(picture[60:bottom - 510, left:], draw.GREY).any()


def test_a_curve_goes_where_its_values_go_and_leaves_gaps_where_there_are_none(tmp_path):
    x, y = np.arange(11.0), 10.0 ** np.linspace(-3, 3, 11)
    y[[4, 5, 6]] = NAN, 0, NAN
    blue = is_color(plot_of(chart_of(tmp_path, [("a", x, y)])), draw.BLUE)  # log: a straight line
    width = blue.shape[1]
    heights = [np.nonzero(blue[:, int(width * share)])[0].mean() for share in (0.05, 0.25, 0.75, 0.95)]
    assert np.allclose(heights, 500 * (1 - np.array([0.05, 0.25, 0.75, 0.95])), atol=3)  # the range takes 500 px
    assert not blue[:, int(width * 0.32):int(width * 0.68)].any()


def test_curves_on_a_linear_axis_are_linear(tmp_path):
    blue = is_color(plot_of(chart_of(tmp_path, [("a", [0, 100], [0, 1])], log_y=False)), draw.BLUE)
    heights = [np.nonzero(blue[:, int(900 * share)])[0].mean() for share in (0.1, 0.5, 0.9)]
    assert np.allclose(heights, [450, 250, 50], atol=3)


finite = st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-6)


@settings(max_examples=200, deadline=None)
@given(st.lists(finite, max_size=5), st.sampled_from([0.05, 1.0]))
def test_ticks_of_a_linear_axis_are_round_in_order_and_within_it(values, near):
    low, high, ticks = chart._linear_axis(np.array(values), near)
    marks = np.array([tick for tick, _ in ticks])
    assert 2 <= len(ticks) <= 9 and low < high
    slack = 1e-5 * (high - low)
    assert all(low - slack <= v <= high + slack for v in [*values, *marks])
    steps = np.diff(marks)
    assert np.allclose(steps, steps[0]) and f"{steps[0]:.3e}"[:5] in ("1.000", "2.000", "5.000")
    assert np.allclose([float(text.replace(",", "")) for _, text in ticks], marks, atol=1e-9 * abs(marks).max())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-20, 20), max_size=5))
def test_ticks_of_a_log_axis_are_round_in_order_and_enclose_the_data(values):
    low, high, ticks = chart._log_axis(np.array(values))
    marks = np.array([tick for tick, _ in ticks])
    assert 2 <= len(ticks) <= 13 and low == marks[0] and high == marks[-1] and (np.diff(marks) > 0).all()
    assert all(low - 1e-6 <= v <= high + 1e-6 for v in values)
    texts = [text.replace(",", "") for _, text in ticks]
    assert np.allclose(np.log10([float(text) for text in texts]), marks)
    assert all(text.lstrip("0.")[0] in "125" for text in texts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 500), max_size=12))
def test_names_beside_a_plot_keep_their_order_and_their_distance(wanted):
    wanted = np.array(wanted)
    placed = chart._spread(wanted, 28.0, 500.0)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(placed[order]) >= 28 - 1e-9).all() and (placed <= 500).all()
    if len(wanted) == 1:
        assert placed == wanted


# ---- pygame and the window

def test_importing_draw_does_not_import_pygame_and_drawing_prints_nothing():
    code = ("import sys; from minidiff.pusht.view import drawing as draw; assert 'pygame' not in sys.modules; "
            "draw.frame([1, 2, 3, 4, 5], size=32); draw._legend(draw._pygame())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          cwd=Path(draw.__file__).parents[2])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_pygame_every_drawing_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pygame", None)  # makes `import pygame` fail
    for draws in (lambda: draw.frame(STATE), lambda: draw.film_strip(tmp_path / "a.png", [("", [(STATE, "")], "")]),
                  lambda: chart.curves(tmp_path / "a.png", [], "", "", ""), draw.Window,
                  lambda: draw.save_png(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))):
        with pytest.raises(RuntimeError, match=r"pip install pygame.*Python 3\.14.*3\.10-3\.13"):
            draws()


@pytest.fixture
def no_screen(monkeypatch):
    """SDL's driver that draws into nowhere, asked for: a window for tests."""
    pygame.display.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield monkeypatch
    pygame.display.quit()


def test_a_window_shows_frames_until_it_is_closed(no_screen):
    window, picture = draw.Window(fps=0), draw.frame(STATE, size=96)
    assert window.show(picture) and window.show(picture)
    assert np.array_equal(pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1), picture)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert window.show(picture) is False
    assert window.show(picture) is False and not pygame.display.get_init()
    window.close()


def test_without_a_display_a_window_says_so_and_what_to_do_instead(no_screen):
    no_screen.setattr(pygame.display, "get_driver", lambda: "offscreen")  # what SDL falls back to
    with pytest.raises(RuntimeError, match="no display.*offscreen.*save_png"):
        draw.Window()
    no_screen.undo()
    no_screen.setenv("SDL_VIDEODRIVER", "nonsense")
    with pytest.raises(RuntimeError, match="no display.*nonsense.*save_png"):
        draw.Window()
