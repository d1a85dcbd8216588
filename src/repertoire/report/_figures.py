"""Figures as inline SVG: a few small charts in one style, coloured by the page's CSS variables.

Coordinates are CSS pixels of a figure about as wide as a phone, so that text keeps its size there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from repertoire.report._text import count, number, percent, shorten

__all__ = [
    "Interval",
    "Scale",
    "Series",
    "element",
    "horizontal",
    "interval_chart",
    "line_chart",
    "reliability_chart",
    "svg",
    "ticks",
    "words",
]

WIDTH = 380
NARROW = 310
"""Curves stand three in a row."""
LONGEST_NAME = 15
LABEL_GAP = 14
"""Least distance between the labels at the ends of two curves."""


def element(tag: str, /, *children: object, **attributes: object) -> Markup:
    """An element; text and attribute values are escaped, attributes of value None left out.

    A trailing underscore of an attribute's name is dropped (`class_`), others become hyphens.

    >>> element("text", "a < b", class_="tick", x=1.0)
    Markup('<text class="tick" x="1">a &lt; b</text>')
    """
    parts = [f"<{tag}"]
    for key, value in attributes.items():
        if value is not None:
            text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    inner = "".join(escape(child) for child in children)
    return Markup("".join(parts) + f">{inner}</{tag}>")


@dataclass(frozen=True)
class Scale:
    """A linear map from data to pixels.

    >>> Scale(0, 10, 100, 200)(5)
    150.0
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, most: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers, evenly spaced, that enclose an interval (`whole`: whole numbers within it).

    Args:
        low, high: finite, low <= high.
        most: about how many spaces there are between the first and the last.

    >>> ticks(0, 0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(1, 30, whole=True)
    [10, 20, 30]
    """
    # An interval too short to be told from a point, or from zero, is given a width.
    tiny, largest = 1e-300, max(abs(low), abs(high))
    span = high - low if high - low > max(1e-9 * largest, tiny) else largest if largest > tiny else 1.0
    rough = max(span / most, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
    if whole:
        return [int(k * step) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class Series:
    """One curve: its name, its points (points that are not finite are left out), and its style, a CSS class.

    `hints` are what the points say when they are pointed at, one each, or none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "main"
    hints: Sequence[str] = ()


def line_chart(
    series: Sequence[Series],
    *,
    description: str,
    write: Callable[[float], str] = number,
    zero: bool = False,
    highest: float | None = None,
    mark: tuple[float, str] | None = None,
    axis: str = "epoch",
    write_across: Callable[[float], str] | None = None,
) -> Markup | None:
    """Curves over epochs, or over something else, each labelled at its end.

    Args:
        series: the curves.
        description: what a reader who does not see the figure is told.
        write: a value of the vertical axis as text.
        zero: let the vertical axis start at zero.
        highest: the vertical axis ends here at the latest.
        mark: an epoch to mark with a vertical line, and what to call it.
        axis: what the horizontal axis shows.
        write_across: a value of the horizontal axis as text; None where these are whole numbers.

    Returns:
        The figure; None where there is not a single finite point.
    """
    curves = [_finite(curve) for curve in series]
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return None
    height, left, right, top, bottom = 220, 46, 44, 20, 40
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    grid = ticks(min(0.0, *ys) if zero else min(ys), max(ys))
    if highest is not None:
        grid = [y for y in grid if y <= highest + 1e-9]
    first, last = min(xs), max(xs)
    named = [
        (x, str(x) if write_across is None else write_across(x))
        for x in ticks(first, last, whole=write_across is None)
        if first <= x <= last
    ]
    margin = 0.5 if first == last else 0.0
    across = Scale(first - margin, last + margin, left, NARROW - right)
    up = Scale(grid[0], max(grid[-1], max(ys)), height - bottom, top)
    drawn = [horizontal(up(y), left, NARROW - right, write(y)) for y in grid]
    drawn += [words(across(x), height - bottom + 16, text, "tick middle") for x, text in named]
    drawn.append(words((left + NARROW - right) / 2, height - 4, axis, "name middle"))
    if mark is not None and first <= mark[0] <= last:
        x = across(mark[0])
        drawn.append(element("line", class_="mark", x1=x, x2=x, y1=float(top), y2=float(height - bottom)))
        side = "end" if x > NARROW / 2 else "start"
        drawn.append(words(x + (-4 if side == "end" else 4), top - 6, mark[1], f"tick {side}"))
    for curve in curves:
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in curve.points)
        drawn.append(element("polyline", class_=f"curve {curve.style}", points=path))
        if len(curve.points) <= 40:
            hints = curve.hints or [""] * len(curve.points)
            drawn += [
                element(
                    "circle",
                    *([element("title", hint)] if hint else []),
                    class_=f"dot {curve.style}",
                    cx=across(x),
                    cy=up(y),
                    r=3.0 if hint else 2.2,
                )
                for (x, y), hint in zip(curve.points, hints, strict=True)
            ]
    if len(curves) > 1:
        heights = spread([up(curve.points[-1][1]) for curve in curves], LABEL_GAP)
        drawn += [
            words(NARROW - right + 7, y + 4, curve.name, f"name {curve.style}")
            for curve, y in zip(curves, heights, strict=True)
        ]
    return svg(NARROW, height, description, drawn)


@dataclass(frozen=True)
class Interval:
    """One row of an interval chart: a share with its interval, None where nothing was measured."""

    name: str
    value: float | None
    low: float
    high: float
    images: int


def interval_chart(rows: Sequence[Interval], *, description: str, reference: float | None = None) -> Markup:
    """A dot and a whisker a row, on a common axis of percentages.

    Args:
        rows: from top to bottom.
        description: what a reader who does not see the figure is told.
        reference: a share to mark with a vertical line.
    """
    longest = max((min(len(row.name), LONGEST_NAME) for row in rows), default=0)
    left, right, top, pitch = 22 + 6.6 * longest, 84, 24, 22
    shares = ticks(min((row.low for row in rows if row.value is not None), default=0.0), 1.0)
    start = shares[0]
    across = Scale(start, 1.0, left, WIDTH - right)
    bottom = top + pitch * len(rows)
    drawn = []
    for share in shares:
        x = across(share)
        drawn.append(element("line", class_="grid", x1=x, x2=x, y1=float(top - 6), y2=float(bottom)))
        drawn.append(words(x, top - 11, percent(share, 0), "tick middle"))
    if reference is not None and reference >= start:
        x = across(reference)
        drawn.append(element("line", class_="mark", x1=x, x2=x, y1=float(top - 6), y2=float(bottom)))
    for i, row in enumerate(rows):
        y = top + pitch * (i + 0.5)
        drawn.append(
            element(
                "text",
                element("title", row.name),
                shorten(row.name, LONGEST_NAME),
                class_="name end",
                x=left - 10,
                y=y + 4,
            )
        )
        if row.value is None:
            drawn.append(words(left + 6, y + 4, "no test images", "tick"))
            continue
        drawn.append(element("line", class_="whisker", x1=across(row.low), x2=across(row.high), y1=y, y2=y))
        drawn.append(element("circle", class_="dot main", cx=across(row.value), cy=y, r=4.0))
        drawn.append(words(WIDTH, y + 4, f"{percent(row.value, 0)} of {count(row.images)}", "tick end"))
    return svg(WIDTH, bottom + 6, description, drawn)


def reliability_chart(bins: Sequence[dict[str, float]], *, description: str) -> Markup:
    """Accuracy against stated confidence, bin by bin, above the share of the images in each bin.

    A dot's area grows with its number of images, and a line shows its distance from the diagonal, where a calibrated
    model's dots lie.

    Args:
        bins: `count`, `confidence` and `accuracy` of each; of equal width over (0, 1].
        description: what a reader who does not see the figure is told.
    """
    left, right, top, plot, strip = 46, 14, 10, 236, 46
    across = Scale(0, 1, left, WIDTH - right)
    up = Scale(0, 1, top + plot, top)
    base = top + plot + 14 + strip
    total = max(1, sum(b["count"] for b in bins))
    largest = max([1.0, *(b["count"] for b in bins)])
    drawn = [horizontal(up(k / 4), left, WIDTH - right, percent(k / 4, 0)) for k in range(5)]
    drawn.append(element("line", class_="mark", x1=across(0), y1=up(0), x2=across(1), y2=up(1)))
    width = (WIDTH - right - left) / max(1, len(bins))
    for i, b in enumerate(bins):
        if not b["count"]:
            continue
        x, y = across(b["confidence"]), up(b["accuracy"])
        share = percent(b["count"] / total)
        hint = f"{percent(b['confidence'])} sure, {percent(b['accuracy'])} right, {share} of the images"
        drawn.append(element("line", class_="gap", x1=x, x2=x, y1=up(b["confidence"]), y2=y))
        radius = 2.5 + 5.0 * math.sqrt(b["count"] / largest)
        drawn.append(element("circle", element("title", hint), class_="dot main", cx=x, cy=y, r=radius))
        tall = max(1.0, strip * b["count"] / largest)
        drawn.append(element("rect", class_="bar", x=left + i * width + 1, y=base - tall, width=width - 2, height=tall))
    drawn.append(element("line", class_="axis", x1=float(left), x2=float(WIDTH - right), y1=base + 0.5, y2=base + 0.5))
    drawn.append(words(left - 7, base - strip / 2 + 4, "images", "tick end"))
    drawn += [words(across(k / 4), base + 16, percent(k / 4, 0), "tick middle") for k in range(5)]
    drawn.append(words((left + WIDTH - right) / 2, base + 33, "stated confidence", "name middle"))
    drawn.append(words(left + 6, top + 12, "share that is right", "name"))
    return svg(WIDTH, base + 38, description, drawn)


def spread(positions: Sequence[float], gap: float, low: float = -math.inf, high: float = math.inf) -> list[float]:
    """The positions, moved as little as a sweep allows so that neighbours are at least `gap` apart; order is kept.

    They stay between `low` and `high` where there is room for all of them.

    >>> spread([10.0, 12.0, 50.0], 6)
    [8.0, 14.0, 50.0]
    >>> spread([10.0, 12.0, 50.0], 6, low=10.0, high=48.0)
    [10.0, 16.0, 48.0]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[list[float]] = []  # each: the centre and the number of labels that stand together
    for i in order:
        groups.append([positions[i], 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            centre, size = groups.pop()
            before = groups[-1]
            before[0] = (before[0] * before[1] + centre * size) / (before[1] + size)
            before[1] += size
    placed = [centre + gap * (k - (size - 1) / 2) for centre, size in groups for k in range(int(size))]
    result = [0.0] * len(positions)
    for rank, (i, value) in enumerate(zip(order, placed, strict=True)):
        after = len(order) - 1 - rank
        result[i] = max(min(value, high - gap * after), low + gap * rank)
    return result


def _finite(series: Series) -> Series:
    """Without the points, and their hints, that are not finite."""
    kept = [i for i, point in enumerate(series.points) if math.isfinite(point[1])]
    hints = [series.hints[i] for i in kept] if series.hints else ()
    return Series(series.name, [series.points[i] for i in kept], series.style, hints)


def svg(width: float, height: float, description: str, children: Sequence[Markup]) -> Markup:
    box = f"0 0 {width:g} {height:g}"
    return element("svg", *children, class_="chart", viewBox=box, role="img", aria_label=description)


def words(x: float, y: float, text: str, style: str) -> Markup:
    return element("text", text, class_=style, x=float(x), y=float(y))


def horizontal(y: float, start: float, end: float, text: str) -> Markup:
    line = element("line", class_="grid", x1=float(start), x2=float(end), y1=y, y2=y)
    return line + words(start - 7, y + 4, text, "tick end")
