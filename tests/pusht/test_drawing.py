"""Pictures show what they are given, nothing overlaps, and no file is half written."""
from minidiff import stopping
from minidiff.pusht.geometry import AGENT_RADIUS, BAR, GOAL_POSE, STEM, keypoints
from minidiff.pusht.view import charts, drawing

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from screen import (
    assert_apart_and_within,
    assert_margins_are_blank,
    is_blank,
    is_color,
    key,
    laid_out,
    load,
    pygame,
    unseen_window,
)

STATE = np.array([90.0, 420.0, 330.0, 130.0, 2.2])  # agent, block and goal apart from each other
ROWS, COLUMNS = np.mgrid[:512, :512] + 0.5  # centre of each pixel: y, x


def in_T(pose, grow):
    """(512, 512) bool: pixels in the T at pose, each of its boxes grown by so many px."""
    x, y, angle = pose
    u = (COLUMNS - x) * math.cos(angle) + (ROWS - y) * math.sin(angle)
    v = (ROWS - y) * math.cos(angle) - (COLUMNS - x) * math.sin(angle)
    inside = np.zeros(u.shape, bool)
    for box in (np.array(BAR), np.array(STEM)):
        left, low = box.min(0) - grow
        right, high = box.max(0) + grow
        inside |= (u > left) & (u < right) & (v > low) & (v < high)
    return inside


def near_agent(state, grow):
    return np.hypot(COLUMNS - state[0], ROWS - state[1]) < AGENT_RADIUS + grow


def near_points(points, radius):
    return np.min([np.hypot(COLUMNS - x, ROWS - y) for x, y in points], axis=0) < radius


coordinate = st.floats(0, 512)
states = st.tuples(*[coordinate] * 4, st.floats(-7, 7)).map(np.array)


# ---- frames --------------------------------------------------------------------------------------

@settings(max_examples=4, deadline=None)
@given(states)
def test_every_pixel_of_block_goal_and_agent_is_where_the_state_says(state):
    pixels = drawing.frame(state)
    agent, block, goal = near_agent(state, -2), in_T(state[2:], -4), in_T(GOAL_POSE, -4)
    no_agent, no_block, no_goal = ~near_agent(state, 2), ~in_T(state[2:], 4), ~in_T(GOAL_POSE, 4)
    inner = (np.abs(ROWS - 256) < 240) & (np.abs(COLUMNS - 256) < 240)  # without the walls
    assert is_color(pixels, drawing.VERMILLION)[agent].all()
    assert is_color(pixels, drawing.BLOCK)[block & no_agent & (goal | no_goal)].all()
    assert is_color(pixels, drawing.GOAL)[goal & no_agent & no_block].all()
    assert is_color(pixels, drawing.FLOOR)[no_agent & no_block & no_goal & inner].all()


def test_the_goal_stays_visible_over_a_block_that_covers_it():
    pixels = drawing.frame([60, 60, *GOAL_POSE])
    edge = in_T(GOAL_POSE, 0) & ~in_T(GOAL_POSE, -1)
    assert is_color(pixels, drawing.GREEN)[edge].mean() > 0.3
    assert not is_color(pixels, drawing.GOAL).any()


def test_the_block_has_a_blue_edge_and_the_world_has_walls():
    pixels = drawing.frame(STATE)
    blue, block = is_color(pixels, drawing.BLUE), STATE[2:]
    assert blue[in_T(block, 0.5) & ~in_T(block, -0.5)].mean() > 0.8
    assert not blue[~in_T(block, 3) | in_T(block, -3)].any()
    walls = is_color(pixels, drawing.GRID)
    assert walls[4:6, 10:500].all() and walls[505:507, 10:500].all()
    assert walls[10:500, 4:6].all() and walls[10:500, 505:507].all()
    assert not walls[10:500, 10:500].any()


@pytest.mark.parametrize("size", [64, 160, 512])
def test_a_frame_has_the_size_asked_for_and_shows_the_same_world(size):
    pixels = drawing.frame(STATE, size=size)
    assert pixels.shape == (size, size, 3) and pixels.dtype == np.uint8
    x, y = (STATE[:2] * size / 512).astype(int)
    assert tuple(pixels[y, x]) == drawing.VERMILLION


def test_a_frame_is_deterministic_and_leaves_its_arguments_alone():
    plans = np.random.default_rng(0).uniform(0, 512, (5, 8, 2))
    arguments = STATE.copy(), np.array([100.0, 200.0]), plans.copy(), plans[0].copy()
    first = drawing.frame(*arguments)
    assert np.array_equal(first, drawing.frame(*arguments))
    assert np.array_equal(arguments[0], STATE) and np.array_equal(arguments[2], plans)


def test_plans_fade_towards_a_dot_at_their_end_and_touch_nothing_else():
    along = np.linspace(0, 1, 12)[:, None]
    ends = np.array([[250.0, 480.0], [60.0, 250.0], [200.0, 400.0]])
    plans = STATE[:2] + along * (ends[:, None] - STATE[:2])  # (3, 12, 2)
    plain = drawing.frame(STATE).astype(int)
    darker = (plain - drawing.frame(STATE, plans=plans)).sum(-1)  # (512, 512)
    for plan in plans:
        onwards = (plan[-1] - plan[0]) / np.hypot(*(plan[-1] - plan[0]))
        points = plan[3], (plan[-1] + plan[-2]) / 2, plan[-1], plan[-1] + 2.5 * onwards
        at_start, before_end, at_end, at_rim = [darker[int(y), int(x)] for x, y in points]
        assert at_start > before_end > 100 and at_end > 100 and at_rim > 100
        assert all(darker[int(y), int(x)] > 60 for x, y in (plan[4:] + plan[3:-1]) / 2)
    assert (darker[~near_points(plans.reshape(-1, 2), 25)] == 0).all()
    assert np.array_equal(plain, drawing.frame(STATE, plans=np.zeros((0, 12, 2))))


def test_target_and_trail_are_drawn_where_they_are():
    trail = np.stack([np.linspace(40, 200, 30), np.full(30, 470.0)], -1)
    pixels = drawing.frame(STATE, target=[100.0, 100.0], trail=trail)
    for x, y in ((100, 100), (95, 95), (105, 105), (105, 95), (95, 105)):
        assert tuple(pixels[y, x]) == drawing.INK
    for x, y in ((106, 103), (103, 106), (93, 96), (96, 93)):  # beside the arms of the cross
        assert tuple(pixels[y, x]) == drawing.PAPER
    assert is_color(pixels, drawing.ORANGE)[470, 45:195].all()
    plain = drawing.frame(STATE)
    far = ~near_points(np.vstack([trail, [[100, 100]]]), 20)
    assert np.array_equal(pixels[far], plain[far])
    assert np.array_equal(plain, drawing.frame(STATE, trail=np.zeros((0, 2))))


@pytest.mark.parametrize("points, width", [
    ([[30, 30], [30, 30], [90, 60], [50, 90]], 12), ([[60, 60]], 30), ([[60, 60]], 0.1)])
def test_a_stroke_covers_what_is_within_half_its_width_of_its_line(points, width):
    canvas, points = drawing.blank(pygame, 120, 120, drawing.PAPER), np.array(points, float)
    drawing.stroke(pygame, canvas, points, drawing.INK, width)
    inked = is_color(pygame.surfarray.array3d(canvas).swapaxes(0, 1), drawing.INK)
    between = [a + share * (b - a) for a, b in zip(points, points[1:])
               for share in np.linspace(0, 1, 70)]
    line = np.array([*points, *between])
    rows, columns = np.mgrid[:120, :120]
    apart = np.hypot(*(np.stack([columns, rows], -1)[..., None, :] - line).T).min(0).T
    assert inked.any() and inked[apart <= width / 2 - 1.5].all()
    assert not inked[apart > max(1, width / 2) + 1.5].any()


def test_a_surface_is_put_with_the_point_at_its_share_of_it():
    canvas, sheet = (drawing.blank(pygame, *size, color) for size, color in (
        ((60, 50), drawing.PAPER), ((20, 10), drawing.INK)))
    for options, (left, top) in (({}, (30, 20)), ({"across": 0.5, "down": 1}, (20, 10))):
        canvas.fill(drawing.PAPER)
        drawing.put(canvas, sheet, 30, 20, **options)
        inked = is_color(pygame.surfarray.array3d(canvas), drawing.INK)
        assert inked[left:left + 20, top:top + 10].all() and inked.sum() == 200


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
        drawing.frame(**arguments)


def test_plans_far_outside_the_world_are_cut_off():
    x, y = STATE[:2]
    pixels = drawing.frame(STATE, target=[1e30, -1e30], plans=[[[x, y], [1e12, y]]])
    darker = (drawing.frame(STATE).astype(int) - pixels).sum(-1)
    assert (darker[int(y), int(x) + 1:] > 100).all()
    assert not is_color(drawing.frame([-300, 100, *STATE[2:]]), drawing.VERMILLION).any()


# ---- files ---------------------------------------------------------------------------------------

def test_save_png_writes_exactly_these_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    drawing.save_png(tmp_path / "a.png", pixels)
    assert np.array_equal(load(tmp_path / "a.png"), pixels)
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])  # while it is written; when it is put there
def test_a_save_that_fails_keeps_the_old_file_and_no_partial_one(tmp_path, monkeypatch, fails):
    old, new = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    drawing.save_png(tmp_path / "a.png", old)

    def refuse(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, refuse)
        with pytest.raises(OSError):
            drawing.save_png(tmp_path / "a.png", new)
    assert os.listdir(tmp_path) == ["a.png"]
    assert np.array_equal(load(tmp_path / "a.png"), old)


def test_without_pillow_an_animation_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RuntimeError, match=r"pip install 'minidiff\[film\]'"):
        drawing.save_animation(tmp_path / "a.gif", [np.zeros((4, 4, 3), np.uint8)])


def test_save_png_refuses_other_arrays_and_makes_missing_folders(tmp_path):
    for array in (np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(ValueError, match="uint8"):
            drawing.save_png(tmp_path / "a.png", array)
    drawing.save_png(tmp_path / "new" / "a.png", np.zeros((4, 4, 3), np.uint8))
    assert os.listdir(tmp_path / "new") == ["a.png"]


@pytest.mark.parametrize("suffix", ["webp", "gif", "png"])
def test_an_animation_shows_its_frames_at_their_pace_for_ever(suffix, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    frames = [np.full((8, 8, 3), grey, np.uint8) for grey in (0, 100, 200)]
    for options, duration in (({}, 100), ({"fps": 4}, 250)):
        drawing.save_animation(tmp_path / f"a.{suffix}", frames, **options)
        picture = Image.open(tmp_path / f"a.{suffix}")
        assert picture.n_frames == 3 and picture.info["loop"] == 0
        for k, frame in enumerate(frames):
            picture.seek(k)
            picture.load()
            assert picture.info["duration"] == duration
            assert np.allclose(picture.convert("RGB"), frame, atol=9)
    assert os.listdir(tmp_path) == [f"a.{suffix}"]


# ---- film strips ---------------------------------------------------------------------------------

def corners_of(picture):
    """(N, 2) row and column of every pixel that has paper above and left of it."""
    paper = is_color(picture, drawing.PAPER)
    return np.argwhere(paper[:-1, 1:] & paper[1:, :-1] & ~paper[1:, 1:]) + 1


def places(picture, shown):
    """Row and column of each place of a picture where this square one stands."""
    side = len(shown)
    return [(y, x) for y, x in corners_of(picture)
            if np.array_equal(picture[y:y + side, x:x + side], shown)]


@pytest.mark.slow
@pytest.mark.parametrize("size, word", [
    (60, "step"), (80, "a caption wider than its frame, step"), (160, "step")])
def test_a_film_strip_shows_each_frame_whole_with_its_caption_below(tmp_path, size, word):
    rows, number = [], 0
    for count in (3, 1):
        frames = []
        for _ in range(count):
            frames.append((STATE + [20 * number, 0, 0, 0, number], f"{word} {number}"))
            number += 1
        rows.append((f"seed {300000 + count}", frames, "success at step 131"))
    drawing.film_strip(tmp_path / "strip.png", rows, size=size)
    picture = load(tmp_path / "strip.png")
    assert_margins_are_blank(picture, 30)

    lefts, side = {}, 2 * size
    for _, frames, _ in rows:
        for column, (state, _) in enumerate(frames):
            (y, x), = places(picture, drawing.frame(state, size=side))
            lefts.setdefault(column, x)
            assert lefts[column] == x, "frames of a column stand below each other"
            below = picture[y + side:]
            assert not is_blank(below[:48, x:x + side]), "its caption"
            assert is_blank(below[56:66]), "room before the next row"
        assert not is_blank(picture[y:y + side, :min(lefts.values())]), "label and footer"
        if column == 0:
            assert is_blank(picture[y:y + side, x + side:]), "a short row ends with its last frame"
    assert not is_blank(picture[:70]), "the legend"
    for color in (drawing.GOAL, drawing.BLOCK, drawing.VERMILLION):
        assert is_color(picture[:90], color).any()


@pytest.mark.parametrize("size, word", [
    (60, "step"), (60, "a caption that is wider, step"), (None, "step")])
def test_what_a_film_strip_says_stands_at_its_frames(tmp_path, monkeypatch, size, word):
    boxes = laid_out(monkeypatch, drawing)
    rows = [("seed 1", [(STATE, f"{word} {k}") for k in range(3)], "a footer\nof two lines"),
            ("seed 2", [(STATE, f"{word} 3")], "")]
    drawing.film_strip(tmp_path / "strip.png", rows, **{"size": size} if size else {})
    picture = load(tmp_path / "strip.png")
    height, width, _ = picture.shape
    assert_margins_are_blank(picture, 40)
    assert not is_blank(picture[:, -60:]) and not is_blank(picture[-70:])
    frames, side = boxes.pop(None), 2 * (size or 160)
    named = {text: boxes.pop(text) for text in ("goal", "block", "agent")}  # on the legend
    assert all(len(places) == 1 for places in [*named.values(), *boxes.values()])
    at = {text: box for text, (box,) in boxes.items()}
    assert_apart_and_within([*frames, *at.values()], (40, 100, width - 40, height - 40))
    lefts, tops = np.array(frames)[:, :2].T
    assert len(frames) == 4 and lefts[0] == lefts[3] and tops[0] == tops[1] == tops[2]
    assert lefts[1] - lefts[0] == lefts[2] - lefts[1]
    for k, (left, top, right, bottom) in enumerate(frames):
        assert (right - left, bottom - top) == (side, side)
        caption = at[f"{word} {k}"]
        assert caption[0] + caption[2] == pytest.approx(left + right, abs=2)
        assert 4 <= caption[1] - bottom < 16
    for lines, frame in ((("seed 1", "a footer", "of two lines"), 0), (("seed 2",), 3)):
        heads = [at[line] for line in lines]
        assert heads == sorted(heads, key=lambda box: box[1]) and heads[0][0] == 48
        middle = (heads[0][1] + heads[-1][3]) / 2
        assert middle == pytest.approx(tops[frame] + side / 2, abs=10)
    assert max(at[text][2] for text in ("seed 1", "of two lines")) < min(
        lefts[0], at[f"{word} 0"][0]) - 20
    start = min(lefts[0], at[f"{word} 0"][0])
    assert np.nonzero(is_color(picture[:100], drawing.GOAL))[1].min() == pytest.approx(start, abs=5)


def test_the_legend_names_colours_with_a_sample_left_of_each_name(monkeypatch):
    boxes = laid_out(monkeypatch, drawing)
    surface = drawing.legend(pygame, plans=True, target=True)
    pixels = pygame.surfarray.array3d(surface).swapaxes(0, 1)
    at = [box for text in ("goal", "block", "agent", "plans", "target")
          for box in boxes[text]]
    assert len(at) == 5 == len(boxes)
    assert_apart_and_within(at, (0, 0, *surface.get_size()))
    assert at == sorted(at) and surface.get_width() - at[-1][2] < 20
    for box, fill, edge, side, height in zip(
            at, (drawing.GOAL, drawing.BLOCK, drawing.VERMILLION, drawing.INK),
            (drawing.GREEN, drawing.BLUE, drawing.VERMILLION, drawing.INK), (24, 24, 28, 28),
            (24, 24, 28, 4)):
        assert (box[1] + box[3]) / 2 == pytest.approx(24, abs=1)
        left = int(box[0]) - 40
        sample = pixels[:, left:left + 36]
        rows, columns = np.nonzero(is_color(sample, fill))
        assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == pytest.approx((side, height), abs=2)
        assert rows.mean() + 0.5 == pytest.approx(24, abs=1)
        assert is_color(sample[24], edge)[[0, 27]].all() and is_blank(sample[:, 29:])
        assert is_blank(sample[13, 3]) == (fill in (drawing.VERMILLION, drawing.INK)), "its corner"
        assert is_blank(sample[:9])
    left = int(at[-1][0]) - 40
    inked = is_color(pixels[:, left:left + 34], drawing.INK)  # of the cross
    assert inked[24, 14] and inked[14, 4] and inked[34, 24] and inked[14, 24] and inked[34, 4]
    assert not inked[:, 14][[14, 34]].any() and not inked[24][[4, 24]].any()


def test_each_frame_has_its_plans_and_target_and_the_legend_names_them(tmp_path):
    plan, ink = np.linspace(STATE[:2], (300, 300), 8)[None], []
    target = np.array([200.0, 300.0])
    for more in ([[], []], [[plan], [plan + 30]], [[plan], [plan, target]]):
        frames = [(STATE + [20 * k, 0, 0, 0, 0], "", *more[k]) for k in range(2)]
        drawing.film_strip(tmp_path / "strip.png", [("seed 1", frames, "")], size=60, near=True)
        picture = load(tmp_path / "strip.png")
        for state, _, *own in frames:
            shown = drawing.close_up(state, *own, size=120, view=drawing.view_of(frames))
            assert len(places(picture, shown)) == 1
        ink.append(is_color(picture[:110], drawing.INK).sum())
    assert ink[2] - 28 * 4 > ink[1] > ink[0] + 28 * 4 > 0


def test_rows_are_near_by_what_each_of_them_shows(tmp_path):
    rows = [("", [(STATE, "")], ""), ("", [(np.array([300.0, 300, 250, 250, 1]), "")], "")]
    drawing.film_strip(tmp_path / "strip.png", rows, size=60, near=True)
    picture = load(tmp_path / "strip.png")
    for _, frames, _ in rows:
        view = drawing.view_of(frames)
        assert len(places(picture, drawing.close_up(frames[0][0], size=120, view=view))) == 1


def test_a_caption_may_have_lines_and_the_next_row_makes_room(tmp_path, monkeypatch):
    boxes = laid_out(monkeypatch, drawing)
    rows = [("1", [(STATE, "one"), (STATE, "first\nsecond")], ""), ("2", [(STATE, "two")], "")]
    drawing.film_strip(tmp_path / "strip.png", rows, size=60)
    height, width, _ = load(tmp_path / "strip.png").shape
    frames = boxes.pop(None)
    assert_apart_and_within([*frames, *(box for place in boxes.values() for box in place
                                        if box[1] > 100)], (40, 100, width - 40, height - 40))
    (first,), (second,), (one,) = boxes["first"], boxes["second"], boxes["one"]
    assert first[1] == one[1] and 40 <= second[1] - first[1] <= 50
    assert frames[2][1] - second[3] > 40
    assert sum(first[::2]) == pytest.approx(sum(second[::2]), abs=2)


@pytest.mark.parametrize("left, top, side, size", [
    (110, 175, 200, 200), (0, 0, 512, 100), (312, 312, 200, 400), (128, 256, 256, 512)])
def test_a_close_up_is_a_part_of_the_frame(left, top, side, size):
    unit = size / side
    target, plans = np.array([300.0, 400.0]), np.array([[[200.0, 300.0], [330, 130]]])
    whole = drawing.frame(STATE, target, np.insert(plans, 0, STATE[:2], axis=1),
                          size=round(512 * unit))
    shown = drawing.close_up(STATE, plans, target, size, (left, top, side))
    x, y = round(left * unit), round(top * unit)
    assert np.array_equal(shown, whole[y:y + size, x:x + size])
    assert shown.shape == (size, size, 3)
    assert np.array_equal(drawing.close_up(STATE), drawing.frame(STATE))


def test_in_a_close_up_each_plan_is_a_line_from_the_agent():
    first = np.array([[200.0, 420.0], [90.0, 300.0]])  # of two plans, 110 px away and 120
    plans = np.stack([first, first + [30, 0]], 1)
    before = plans.copy()
    darker = drawing.close_up(STATE).astype(int) - drawing.close_up(STATE, plans)
    for to in first:
        for share in np.linspace(0.1, 0.9, 9):
            x, y = (STATE[:2] + share * (to - STATE[:2])).astype(int)
            assert darker[y, x].sum() > 60
    assert np.array_equal(plans, before)


@settings(max_examples=30, deadline=None)
@given(states, st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=3))
def test_a_view_is_a_square_in_the_world_that_holds_what_its_frames_show(state, ends):
    frames = [(state, "")] + [(state, "", np.array([[end, end]]), np.array(end)) for end in ends]
    left, top, side = drawing.view_of(frames)
    assert left >= 0 and top >= 0 and max(left, top) + side <= 512 + 1e-9
    corners = keypoints(np.array([state[2:], GOAL_POSE])).reshape(-1, 2)
    agent = state[:2] - AGENT_RADIUS, state[:2] + AGENT_RADIUS
    inside = np.vstack([*agent, *corners, *ends]).clip(0, 512) - [left, top]
    assert inside.min() >= -1e-9 and inside.max() <= side + 1e-9


def test_a_view_is_no_larger_than_what_it_holds_and_ten_px_around():
    """Of the agent left of the goal, under the block, and a plan to the right."""
    state = np.array([150.0, 256.0, *GOAL_POSE])
    plans = np.array([[[400.0, 256.0]]])
    left, top, side = drawing.view_of([(state, "", plans)])
    assert (left, side) == (125, 285)  # from 150 - 15 - 10 to 400 + 10
    y = keypoints(np.array([GOAL_POSE]))[0, :, 1]
    assert top + side / 2 == pytest.approx((y.min() + y.max()) / 2)


def test_after_a_signal_no_row_of_a_film_strip_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "asked", lambda: True)
    with pytest.raises(stopping.Stopped):
        drawing.film_strip(tmp_path / "strip.png", [("seed 1", [(STATE, "step 0")], "")])
    assert not list(tmp_path.iterdir())


def test_a_film_strip_without_frames_is_refused(tmp_path):
    for rows in ([], [("seed 1", [], "")]):
        with pytest.raises(ValueError, match="at least one"):
            drawing.film_strip(tmp_path / "strip.png", rows)


# ---- pygame and the window -----------------------------------------------------------------------

def test_importing_drawing_loads_no_pygame_and_drawing_prints_nothing():
    code = ("import sys; from minidiff.pusht.view import drawing; "
            "assert 'pygame' not in sys.modules; drawing.frame([1, 2, 3, 4, 5], size=32); "
            "drawing.legend(drawing.load_pygame())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_pygame_every_drawing_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pygame", None)  # makes `import pygame` fail
    path = tmp_path / "a.png"
    for draw in (lambda: drawing.frame(STATE),
                 lambda: drawing.film_strip(path, [("", [(STATE, "")], "")]),
                 lambda: charts.curves(path, [], "", "", ""),
                 lambda: drawing.save_png(path, np.zeros((2, 2, 3), np.uint8)),
                 drawing.Window):
        said = r"pip install 'minidiff\[pusht\]'.*Python 3\.14.*3\.10-3\.13"
        with pytest.raises(RuntimeError, match=said):
            draw()


@pytest.fixture
def window(monkeypatch):
    with unseen_window(monkeypatch) as window:
        yield window


@pytest.mark.parametrize("close", ["q", "escape", "quit"])
def test_a_window_shows_frames_until_it_is_closed(window, close):
    window.fps = 0
    picture = drawing.frame(STATE, size=96)
    assert window.show(picture) and window.show(picture)
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    assert np.array_equal(shown, picture)
    pygame.event.post(key("w"))
    assert window.show(picture)
    pygame.event.post(pygame.event.Event(pygame.QUIT) if close == "quit" else key(close))
    assert window.show(picture) is False
    assert window.show(picture) is False and not pygame.display.get_init()
    window.close()


def test_a_window_has_a_title_and_shows_ten_frames_a_second(window):
    ticks = []
    window.clock = SimpleNamespace(tick=ticks.append)
    window.show(drawing.frame(STATE, size=96)[:, :64])
    assert pygame.display.get_caption()[0] == "PushT" and ticks == [10]
    assert pygame.display.get_surface().get_size() == (64, 96)


def test_without_a_display_a_window_says_so_and_what_to_do_instead(monkeypatch):
    pygame.display.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    for driver in ("offscreen", "dummy"):  # what SDL falls back to
        with monkeypatch.context() as patch:
            patch.setattr(pygame.display, "init", lambda: None)
            patch.setattr(pygame.display, "get_driver", lambda name=driver: name)
            patch.delenv("SDL_VIDEODRIVER")
            with pytest.raises(RuntimeError, match=f"no display.*{driver}.*save_png"):
                drawing.Window()
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    with pytest.raises(RuntimeError, match="no display.*nonsense.*save_png"):
        drawing.Window()
