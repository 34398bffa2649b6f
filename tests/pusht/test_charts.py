"""Line charts show what they are given: curves, ticks and names stand where they belong."""
from minidiff.pusht.view import charts, drawing
from minidiff.training import Config

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from screen import (
    assert_apart_and_within,
    assert_margins_are_blank,
    is_color,
    laid_out,
    load,
    pygame,
)

NAN = float("nan")
LONG_NAME = "a name that is much longer than any name ought to be, but is"
DEGENERATE = {
    "nothing": [],
    "empty": [("a", [], [])],
    "one point": [("a", [5], [0.3])],
    "one x": [("a", [3, 3], [1, 2])],
    "constant": [("a", [0, 1], [0.001, 0.001])],
    "zeros": [("a", [0, 1], [0, 0])],
    "negative": [("a", [0, 1], [-3, -1])],
    "only NaN": [("a", [0, 1], [NAN, NAN])],
    "infinite": [("a", [0, 1, NAN], [1, np.inf, 2])],
    "thirty decades": [("a", [0, 1], [1e-15, 1e15])],
    "tiny": [("a", [0, 1], [1e-30, 2e-30])],
    "many series": [(f"series {i}", [0, 1], [1, 2]) for i in range(30)],
    "long name": [(LONG_NAME, [0, 1], [1, 2])],
}


def chart_of(tmp_path, series, title="A title", **options):
    charts.curves(tmp_path / "chart.png", series, title, "across", "up", **options)
    return load(tmp_path / "chart.png")


@pytest.fixture
def boxes(monkeypatch):
    return laid_out(monkeypatch, charts)


def axes_of(picture):
    """Column of the vertical axis and row of the horizontal one: where most of the grey is."""
    rows, columns = np.nonzero(is_color(picture, drawing.GREY))
    return np.bincount(columns).argmax(), np.bincount(rows).argmax()


def plot_of(picture):
    """The inside of the axes, (500, 900, 3), without the last pixels next to them."""
    left, bottom = axes_of(picture)
    return picture[bottom - 500:bottom - 2, left + 2:left + 900]


def heights(line, shares):
    """Mean row of a line, (500, 900) bool, at shares of the width."""
    width = line.shape[1]
    return [np.nonzero(line[:, int(width * share)])[0].mean() for share in shares]


@pytest.mark.slow
@pytest.mark.parametrize("name", DEGENERATE)
def test_curves_of_degenerate_data_are_whole_pictures(tmp_path, name):
    for log_y in (True, False):
        picture = chart_of(tmp_path, DEGENERATE[name], log_y=log_y)
        assert picture.shape[0] > 600 and picture.shape[1] > 1000
        assert_margins_are_blank(picture, 20)


def test_each_text_stands_at_what_it_names(tmp_path, boxes):
    """x from 200 to 3050, y from 1 to 100; the names end at 100 and at 10, their line at 10."""
    series = [("a", [200, 1000, 3050], [1, 10, 100]), (LONG_NAME, [200, 300, 400], [50, 20, 10])]
    picture = chart_of(tmp_path, series, note="word " * 40)
    left, bottom = axes_of(picture)
    notes = [" ".join(["word"] * count) for count in (22, 18)]
    x_ticks = {f"{x:,}": left + 900 * (x - 200) / 2850 for x in range(500, 3001, 500)}
    y_ticks = {f"{y}": bottom - 250 * np.log10(y) for y in (1, 2, 5, 10, 20, 50, 100)}
    at = {text: box for text, (box,) in boxes.items()}
    assert set(at) == {"A title", *notes, *x_ticks, *y_ticks, "a", LONG_NAME, "across", None}
    assert_apart_and_within(list(at.values()), (20, 20, picture.shape[1] - 25, len(picture) - 20))
    middle = {text: ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for text, box in at.items()}
    for text, x in x_ticks.items():
        assert middle[text][0] == pytest.approx(x, abs=2) and 5 < at[text][1] - bottom < 20
    for text, y in y_ticks.items():
        assert middle[text][1] == pytest.approx(y, abs=2) and 5 < left - at[text][2] < 20
    for text, y in (("a", bottom - 500), (LONG_NAME, bottom - 250)):
        assert middle[text][1] == pytest.approx(y, abs=2) and 945 < at[text][0] - left < 960
    assert middle["across"][0] == pytest.approx(left + 450, abs=2) and at["across"][1] > bottom + 40
    assert middle[None][1] == pytest.approx(bottom - 250, abs=2) and at[None][2] < at["100"][0] - 20
    for text, following in zip(("A title", *notes), (*notes, "100")):
        assert at[text][0] == pytest.approx(left, abs=2) and at[text][3] < at[following][1]


def test_a_picture_is_as_wide_as_its_title_and_has_no_note_by_default(tmp_path, boxes):
    title = "a title " * 20
    picture = chart_of(tmp_path, [], title)
    assert set(boxes) == {title, "0", "0.2", "0.4", "0.6", "0.8", "1",
                          "0.1", "0.5", "across", None}  # its y axis has 0.1, 0.2, 0.5 and 1
    assert boxes[title][0][2] <= picture.shape[1] - 30


def test_the_name_of_the_y_axis_is_upright(tmp_path, boxes):
    picture = chart_of(tmp_path, [])
    (left, top, right, bottom), = np.array(boxes[None]).round().astype(int)
    text = drawing.render_text(pygame, "up", charts.NAMES)
    line = drawing.blank(pygame, *text.get_size(), drawing.PAPER)
    drawing.put(line, text, 0, 0)
    pixels = pygame.surfarray.array3d(line).swapaxes(0, 1)
    assert np.array_equal(picture[top:bottom, left:right], np.rot90(pixels))


def test_names_and_tick_texts_stand_outside_the_plot(tmp_path):
    series = [(f"series {i}", [0, 1], [0.1 ** i, 0.2]) for i in range(4)]
    picture = chart_of(tmp_path, series, note="a note")
    left, bottom = axes_of(picture)
    ink, grey = is_color(picture, drawing.INK), is_color(picture, drawing.GREY)
    assert not is_color(plot_of(picture), drawing.INK).any()
    assert ink[bottom - 500:bottom, left + 945:].any(), "names"
    assert grey[bottom - 500:bottom, 60:left - 10].any(), "texts of the y ticks"
    assert grey[bottom + 8:bottom + 32].any(), "texts of the x ticks"
    assert ink[bottom + 40:].any() and ink[:, :60].any(), "names of the axes"
    assert ink[:60].any() and grey[60:bottom - 510, left:].any(), "title and note"


def test_a_curve_goes_where_its_values_go_and_leaves_gaps(tmp_path):
    x = np.arange(11.0)
    y = 10.0 ** np.linspace(-3, 3, 11)
    y[[4, 5, 6]] = NAN, 0, NAN
    plot = plot_of(chart_of(tmp_path, [("a", x, y)]))
    blue = is_color(plot, drawing.BLUE)  # on a logarithmic axis: a straight line
    shares = np.array([0.05, 0.25, 0.75, 0.95])
    assert np.allclose(heights(blue, shares), 500 * (1 - shares), atol=3)  # the range takes 500 px
    width = blue.shape[1]
    assert not blue[:, int(width * 0.32):int(width * 0.68)].any()


def test_each_name_stands_where_its_line_ends_in_its_colour(tmp_path):
    """The lines have gaps, one of them at its end."""
    series = [("a", [0, 1, 2, 3], [1, 2, NAN, 1000]), ("a long name, " * 3, [1, 2, 3], [7, 10, 0])]
    picture = chart_of(tmp_path, series)
    left, bottom = axes_of(picture)
    for color, height, is_long in ((drawing.BLUE, 500, False), (drawing.VERMILLION, 500 / 3, True)):
        row = np.nonzero(is_color(picture[:, left + 920:left + 940], color))[0].mean()
        assert row == pytest.approx(bottom - height, abs=3)
        columns = np.nonzero(is_color(picture[:, left + 906:], color).any(0))[0] + 6
        assert 12 < columns.min() < 20 and 38 < columns.max() < 46
        beside = picture[int(row) - 10:int(row) + 10, left + 945:]
        assert is_color(beside, drawing.INK).any(0)[100:].any() == is_long


def test_curves_on_a_linear_axis_are_linear(tmp_path, boxes):
    plot = plot_of(chart_of(tmp_path, [("a", [100, 201], [2, 3])], log_y=False))
    blue = is_color(plot, drawing.BLUE)
    assert np.allclose(heights(blue, (0.1, 0.5, 0.9)), [450, 250, 50], atol=3)
    assert {"2", "2.2", "2.4", "2.6", "2.8", "3"} < set(boxes)


def test_a_value_between_gaps_is_a_dot_that_is_larger_than_a_line(tmp_path):
    series = [("line", [0, 1], [30, 30]), ("dot", [0.2, 0.5, 0.8], [NAN, 40, 0])]
    plot = plot_of(chart_of(tmp_path, series))[:, 400:500]
    line, dot = (is_color(plot, color).sum(0).max() for color in charts.SERIES[:2])
    assert 1 <= line <= 3 and 6 <= dot <= 8


def test_each_line_and_its_sample_have_the_style_asked_for(tmp_path):
    """Dashed, whole, and from the first style again: dashed, between y = 1 and 1.1."""
    series = [("a", [0, 1], [3, 3]), ("b", [0, 1], [2, 2]), ("c", [0, 0.5, 1], [1, 1.1, 1])]
    styles = [(drawing.GREEN, True), (drawing.ORANGE, False)]
    picture = chart_of(tmp_path, series, log_y=False, styles=styles)
    left, bottom = axes_of(picture)
    for color, rows, low, high in ((drawing.GREEN, slice(bottom - 505, bottom - 490), 0.4, 0.7),
                                   (drawing.GREEN, slice(bottom - 40, bottom), 0.4, 0.7),
                                   (drawing.ORANGE, slice(bottom - 260, bottom - 240), 0.99, 1)):
        drawn = is_color(picture[rows], color).any(0)
        for part in (drawn[left + 3:left + 897], drawn[left + 917:left + 941]):
            assert low <= part.mean() <= high
        if high < 1:  # as many dashes as fit, of one length
            starts = np.flatnonzero(np.diff(drawn[left:left + 897].astype(int)) > 0)
            assert len(starts) > 45 and np.ptp(np.diff(starts)) <= 1


def test_dashes_lie_on_their_line_and_are_as_long_as_their_gaps():
    bent = np.array([[0.0, 0.0], [40, 30], [40, 80]])  # 100 px
    dashes = charts._dashes(bent)
    x, y = np.concatenate(dashes).T
    assert (np.minimum(np.abs(3 * x - 4 * y), np.abs(x - 40)) < 1e-9).all()
    along = np.where(x < 40, x * 5 / 4, 20 + y)
    np.testing.assert_allclose(along, [px for px in range(100) if px % 18 < 9])
    assert len(dashes) == 6
    assert [dash.tolist() for dash in charts._dashes(bent[1:2])] == [[[40, 30]]]


def test_words_stand_right_above_their_points(tmp_path, boxes):
    series = [("a", [0, 100], [1, 100])]
    for log_y, share in ((True, 0.5), (False, 0.1)):
        boxes.clear()
        picture = chart_of(tmp_path, series, log_y=log_y, words=[("here", 25, 10)])
        left, bottom = axes_of(picture)
        (start, _, _, end), = boxes["here"]
        assert (start, end) == pytest.approx((left + 231, bottom - 500 * share - 6), abs=2)


def test_many_names_share_the_height_of_the_plot(tmp_path, boxes):
    """The last has no line, and thus no end."""
    series = [(f"series {i}", [0, 1], [NAN if i == 29 else 60 - i] * 2) for i in range(30)]
    _, bottom = axes_of(chart_of(tmp_path, series))
    middles = [(box[1] + box[3]) / 2 for i in range(30) for box in boxes[f"series {i}"]]
    assert bottom - 505 < middles[0] and middles[-1] == pytest.approx(bottom, abs=2)
    assert (np.diff(middles) > 15).all()


def test_points_have_gaps_where_a_value_cannot_be_shown():
    x, y = [0, NAN, 2, 3, np.inf, 5], [10, 1, np.inf, 0, 1, -1]
    for log_y, shown in ((True, [1, NAN, NAN, NAN, NAN, NAN]), (False, [10, NAN, NAN, 0, NAN, -1])):
        points = charts._points(x, y, log_y)
        assert np.array_equal(points, np.stack([x, shown], -1), equal_nan=True)


def test_pieces_are_what_lies_between_gaps():
    points = np.array([[0, NAN], [1, 1], [2, NAN], [3, NAN], [4, 4], [5, 5]])
    pieces = charts._pieces(points)
    assert [piece.tolist() for piece in pieces] == [[[1, 1]], [[4, 4], [5, 5]]]


finite = st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-6)


@pytest.mark.parametrize("values, near, low, high, texts", [
    ([], 1.0, 0, 1, "0 0.2 0.4 0.6 0.8 1"),
    ([0], 1.0, -1, 1, "-1 -0.5 0 0.5 1"), ([90], 1.0, 40, 140, "40 60 80 100 120 140"),
    ([-5, 1], 1.0, -5, 1, "-5 -4 -3 -2 -1 0 1"), ([0, 6.5], 1.0, 0, 8, "0 2 4 6 8"),
    ([1e-30, 2e-30], 1.0, 1e-30, 2e-30, "1e-30 1.2e-30 1.4e-30 1.6e-30 1.8e-30 2e-30"),
    ([0, 42], 1.0, 0, 50, "0 10 20 30 40 50"),
    ([103, 197], 0.05, 100, 200, "100 120 140 160 180 200"),  # out to the next tick
    ([107, 207], 0.05, 107, 207, "120 140 160 180 200"),  # which is too far
    ([105, 205], 0.05, 100, 205, "100 120 140 160 180 200"),
    ([95, 195], 0.05, 95, 200, "100 120 140 160 180 200")])
def test_a_linear_axis_is_as_long_as_its_data_ask_for(values, near, low, high, texts):
    start, end, ticks = charts.linear_axis(np.array(values), near)
    assert (start, end) == pytest.approx((low, high), abs=0)
    assert " ".join(text for _, text in ticks) == texts


@settings(max_examples=200, deadline=None)
@given(st.lists(finite, max_size=5), st.sampled_from([0.05, 1.0]))
def test_ticks_of_a_linear_axis_are_round_in_order_and_within_it(values, near):
    low, high, ticks = charts.linear_axis(np.array(values), near)
    marks = np.array([tick for tick, _ in ticks])
    assert 2 <= len(ticks) <= 9 and low < high
    slack = 1e-5 * (high - low)
    assert all(low - slack <= v <= high + slack for v in [*values, *marks])
    steps = np.diff(marks)
    assert np.allclose(steps, steps[0])
    assert f"{steps[0]:.3e}"[:5] in ("1.000", "2.000", "5.000")
    said = [float(text.replace(",", "")) for _, text in ticks]
    assert np.allclose(said, marks, atol=1e-9 * abs(marks).max())


@pytest.mark.parametrize("values, texts", [
    ([], "0.1 0.2 0.5 1"), ([0], "0.5 1 2"), ([0.8], "5 10"),
    ([0, 3], "1 2 5 10 20 50 100 200 500 1,000"), ([0, 3.5], "1 10 100 1,000 10,000"),
    ([-6, 2], "1e-6 1e-5 0.0001 0.001 0.01 0.1 1 10 100"),
    ([3, 7], "1,000 10,000 100,000 1e6 1e7"), ([0, 9], "1 100 10,000 1e6 1e8 1e10")])
def test_a_log_axis_has_ticks_that_its_decades_leave_room_for(values, texts):
    _, _, ticks = charts.log_axis(np.array(values))
    assert " ".join(text for _, text in ticks) == texts


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-20, 20), max_size=5))
def test_ticks_of_a_log_axis_are_round_in_order_and_enclose_the_data(values):
    low, high, ticks = charts.log_axis(np.array(values))
    marks = np.array([tick for tick, _ in ticks])
    assert 2 <= len(ticks) <= 13 and low == marks[0] and high == marks[-1]
    assert (np.diff(marks) > 0).all()
    assert all(low - 1e-6 <= v <= high + 1e-6 for v in values)
    texts = [text.replace(",", "") for _, text in ticks]
    assert np.allclose(np.log10([float(text) for text in texts]), marks)
    assert all(text.lstrip("0.")[0] in "125" for text in texts)


@pytest.mark.parametrize("wanted, placed", [
    ([100, 100, 300], [100, 128, 300]), ([490, 495, 0], [472, 500, 0]),
    ([300, 10, 20], [300, 10, 38]), ([5, 5, 5], [5, 33, 61])])
def test_names_that_are_too_near_move_down_unless_the_plot_ends(wanted, placed):
    assert charts.spread_out(np.array(wanted), 28.0, 500.0).tolist() == placed


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 500), max_size=12))
def test_names_right_of_a_plot_keep_their_order_and_their_distance(wanted):
    wanted = np.array(wanted)
    placed = charts.spread_out(wanted, 28.0, 500.0)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(placed[order]) >= 28 - 1e-9).all() and (placed <= 500).all()
    if len(wanted) == 1:
        assert placed == wanted


# ---- the loss of a run ---------------------------------------------------------------------------

def drawn(monkeypatch, by_t, n, first=0.0, **options):
    """What draw_loss draws for losses first, first + 1, ..: its lines by name, all else."""
    calls = []
    monkeypatch.setattr(charts, "curves", lambda *given: calls.append(given))
    config = Config(steps=400, weight="uniform", **options)
    charts.loss("loss.png", SimpleNamespace(
        config=config, n=n, losses=first + np.arange(400.0), loss_by_t=np.array(by_t)))
    (path, lines, *words, styles), = calls
    assert path == "loss.png" and len(lines) == len(styles) and styles[0] == (charts.BLACK, False)
    return {name: (list(x), list(y)) for name, x, y in lines}, words


def test_the_loss_is_drawn_as_means_over_hundredths_of_the_run(monkeypatch):
    lines, words = drawn(monkeypatch, np.full((2, 4), NAN), 301)  # the last is left over
    middles = np.arange(1.5, 300, 3)
    assert lines == {"training loss": (list(middles), list(middles - 0.5))}
    assert words == ["L_simple, lambda = uniform, mlp", "gradient step", "loss", True,
                     "training loss: means over 3 steps"]
    assert drawn(monkeypatch, np.full((2, 4), NAN), 301, first=-9.0)[1][-2] is False
    lines, _ = drawn(monkeypatch, np.full((2, 4), NAN), 2)
    assert lines == {"training loss": ([0.5, 1.5], [0, 1])}


def test_the_loss_is_drawn_by_the_quarters_of_the_chain_that_there_are(monkeypatch):
    by_t = [[1, NAN, 5, 7], [2, NAN, NAN, 8]]
    lines, words = drawn(monkeypatch, by_t, 301, T=10)
    del lines["training loss"]
    assert list(lines) == ["t = 1..2: least noise", "t = 6..7", "t = 8..10: most noise"]
    assert lines["t = 8..10: most noise"] == ([0, 200], [7, 8])
    assert words[-1].endswith("steps; the others: quarters of the chain")
    lines, words = drawn(monkeypatch, np.ones((2, 4)), 301, T=1)
    assert list(lines) == ["training loss", "t = 1..1: most noise"] and "the others" in words[-1]


def test_the_more_noise_the_darker_is_the_line_of_the_loss(monkeypatch):
    calls = []
    monkeypatch.setattr(charts, "curves", lambda *given: calls.append(given))
    by_t = np.ones((2, 4))
    by_t[:, 1] = NAN  # a quarter that is missing takes its colour with it
    for shown in (np.ones((2, 4)), by_t):
        charts.loss("loss.png", SimpleNamespace(config=Config(steps=400), n=400,
                                                losses=np.ones(400), loss_by_t=shown))
    (*_, every), (*_, some) = calls
    assert some == every[:2] + every[3:]
    light = [np.dot(color, (0.2126, 0.7152, 0.0722)) for color, _ in every]
    assert light[0] == 0 and (np.diff(light[1:]) < -25).all() and light[-1] > 25
