"""The figures have the geometry that their numbers call for."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from repertoire.report._figures import (
    Interval,
    Scale,
    Series,
    element,
    interval_chart,
    line_chart,
    reliability_chart,
    spread,
    ticks,
)

finite = st.floats(-1e6, 1e6)


def tree(figure: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(str(figure))


def of_class(figure: Markup, name: str) -> list[ElementTree.Element]:
    return [part for part in tree(figure).iter() if name in part.get("class", "").split()]


def number(part: ElementTree.Element, key: str) -> float:
    return float(part.get(key, "nan"))


def test_element_escapes_text_and_attributes_but_not_elements() -> None:
    inner = element("b", "x<y")
    assert element("a", inner, "&", title='"><i>', data_class=3, gone=None) == Markup(
        '<a title="&#34;&gt;&lt;i&gt;" data-class="3"><b>x&lt;y</b>&amp;</a>'
    )


@given(finite, finite, st.integers(2, 8))
@example(0.0, 0.0, 5)
@example(0.0, 5e-324, 2)
@example(0.0, 1e-275, 2)
@example(1e6, 1e6 + 1e-9, 5)
@settings(max_examples=25, deadline=None)
def test_ticks_enclose_the_interval_evenly(a: float, b: float, most: int) -> None:
    low, high = min(a, b), max(a, b)
    grid = ticks(low, high, most)
    step = grid[1] - grid[0]
    assert grid[0] <= low + 1e-6 * step
    assert grid[-1] >= high - 1e-6 * step
    assert 2 <= len(grid) <= most + 3
    assert all(math.isclose(y - x, step, rel_tol=1e-5) for x, y in itertools.pairwise(grid))


@given(st.integers(1, 10_000), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_whole_ticks_are_epochs_within_the_run(first: int, length: int) -> None:
    grid = ticks(first, first + length, whole=True)
    assert all(isinstance(x, int) and first <= x <= first + length for x in grid)
    assert len(grid) <= 7


@given(st.lists(st.floats(0, 500), max_size=12), st.floats(1, 30))
@settings(max_examples=50, deadline=None)
def test_spread_keeps_order_and_distance(positions: list[float], gap: float) -> None:
    moved = spread(positions, gap)
    order = sorted(range(len(positions)), key=positions.__getitem__)
    placed = [moved[i] for i in order]
    assert all(y - x >= gap - 1e-6 for x, y in itertools.pairwise(placed))
    apart = [positions[i] for i in order]
    if all(y - x >= gap for x, y in itertools.pairwise(apart)):
        assert moved == positions


def test_line_chart_maps_epochs_and_values_linearly() -> None:
    figure = line_chart([Series("val", [(1, 0.0), (2, 0.5), (3, 1.0)])], description="d", zero=True)
    assert figure is not None
    (path,) = of_class(figure, "curve")
    (x1, y1), (x2, y2), (x3, y3) = ([float(v) for v in p.split(",")] for p in path.get("points", "").split())
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11)
    assert y1 > y2 > y3
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.11)
    assert tree(figure).get("aria-label") == "d"


def test_line_chart_leaves_out_what_is_not_finite() -> None:
    figure = line_chart([Series("a", [(1, math.nan), (2, 1.0), (3, math.inf)])], description="")
    assert figure is not None
    assert len(of_class(figure, "curve")[0].get("points", "").split()) == 1
    assert "nan" not in figure
    assert line_chart([Series("a", [(1, math.nan)]), Series("b", [])], description="") is None


def test_line_chart_ends_at_the_highest_value_and_keeps_labels_apart() -> None:
    points = [(1, 0.2), (2, 1.0)]
    figure = line_chart(
        [Series("train", points, "aside"), Series("val", points)], description="", highest=1.0, mark=(2, "best")
    )
    assert figure is not None
    labels = [part for part in of_class(figure, "name") if part.text in ("train", "val")]
    assert abs(number(labels[0], "y") - number(labels[1], "y")) >= 14
    assert "best" in figure
    assert "1.2" not in [part.text for part in of_class(figure, "tick")]


def test_interval_chart_places_dot_and_whisker() -> None:
    rows = [
        Interval("half", 0.5, 0.25, 0.75, 4),
        Interval("none", None, 0.0, 1.0, 0),
        Interval("all", 1.0, 0.0, 1.0, 1),
    ]
    figure = interval_chart(rows, description="", reference=0.5)
    dots, whiskers, marks = of_class(figure, "dot"), of_class(figure, "whisker"), of_class(figure, "mark")
    assert len(dots) == len(whiskers) == 2
    assert number(dots[0], "cx") == pytest.approx((number(whiskers[0], "x1") + number(whiskers[0], "x2")) / 2, abs=0.02)
    assert number(marks[0], "x1") == pytest.approx(number(dots[0], "cx"), abs=0.02)
    assert number(dots[1], "cx") == pytest.approx(number(whiskers[1], "x2"), abs=0.02)
    assert "no test images" in figure


def test_reliability_chart_puts_calibrated_bins_on_the_diagonal() -> None:
    bins = [
        {"count": 10, "confidence": 0.25, "accuracy": 0.25},
        {"count": 0, "confidence": 0.0, "accuracy": 0.0},
        {"count": 40, "confidence": 1.0, "accuracy": 0.5},
    ]
    figure = reliability_chart(bins, description="")
    (line,), dots, gaps, bars = (of_class(figure, name) for name in ("mark", "dot", "gap", "bar"))
    assert len(dots) == len(gaps) == len(bars) == 2
    across = Scale(number(line, "x1"), number(line, "x2"), number(line, "y1"), number(line, "y2"))
    assert across(number(dots[0], "cx")) == pytest.approx(number(dots[0], "cy"), abs=0.05)
    assert across(number(dots[1], "cx")) == pytest.approx(number(gaps[1], "y1"), abs=0.05)
    middle = (number(line, "y1") + number(line, "y2")) / 2
    assert number(dots[1], "cy") == pytest.approx(middle, abs=0.05)
    assert number(bars[1], "height") == pytest.approx(4 * number(bars[0], "height"))
