"""Line charts show what they are given: curves, ticks and names stand where they belong."""
from minidiff.pusht.view import charts, drawing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from screen import assert_margins_are_blank, is_color, load

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


def chart_of(tmp_path, series, **options):
    charts.curves(tmp_path / "chart.png", series, "A title", "across", "up", **options)
    return load(tmp_path / "chart.png")


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
        beside = picture[int(row) - 10:int(row) + 10, left + 945:]
        assert is_color(beside, drawing.INK).any(0)[100:].any() == is_long


def test_curves_on_a_linear_axis_are_linear(tmp_path):
    plot = plot_of(chart_of(tmp_path, [("a", [0, 100], [0, 1])], log_y=False))
    blue = is_color(plot, drawing.BLUE)
    assert np.allclose(heights(blue, (0.1, 0.5, 0.9)), [450, 250, 50], atol=3)


finite = st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-6)


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


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 500), max_size=12))
def test_names_right_of_a_plot_keep_their_order_and_their_distance(wanted):
    wanted = np.array(wanted)
    placed = charts.spread_out(wanted, 28.0, 500.0)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(placed[order]) >= 28 - 1e-9).all() and (placed <= 500).all()
    if len(wanted) == 1:
        assert placed == wanted
