"""Figures of a comparison: intervals under each other, and what accuracy costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from repertoire.report._figures import LABEL_GAP, Scale, element, spread, svg, ticks
from repertoire.report._text import shorten

__all__ = ["Estimate", "Spot", "forest_chart", "front", "pareto_chart"]

WIDTH = 380
LONGEST = 52
"""Characters of a name that has a line to itself."""


@dataclass(frozen=True)
class Estimate:
    """A value with its interval (None where there is none), the values it is the mean of, and its CSS class."""

    name: str
    value: float | None
    interval: tuple[float, float] | None
    values: Sequence[float]
    style: str = "main"
    hint: str = ""


@dataclass(frozen=True)
class Spot:
    """A configuration in the plane of cost and quality: its number in the table, its name, and its CSS class."""

    number: int
    name: str
    cost: float
    quality: float
    style: str


def forest_chart(
    rows: Sequence[Estimate], *, description: str, write: Callable[[float], str], reference: float | None = None
) -> Markup | None:
    """A dot and a whisker a row, under the name, with the single values as ticks; None where nothing was measured.

    Args:
        rows: from top to bottom.
        description: what a reader who does not see the figure is told.
        write: a value of the axis as text.
        reference: a value to mark with a vertical line.
    """
    shown = [row for row in rows if row.value is not None]
    if not shown:
        return None
    ends = [value for row in shown for value in (*row.values, *_finite(row.interval))]
    ends += [] if reference is None else [reference]
    left, right, top, pitch = 14, 30, 30, 40
    grid = ticks(min(ends), max(ends), 4)
    across = Scale(grid[0], grid[-1], left, WIDTH - right)
    bottom = float(top + pitch * len(rows))
    drawn = []
    for value in grid:
        x = across(value)
        drawn.append(element("line", class_="grid", x1=x, x2=x, y1=float(top - 8), y2=bottom))
        drawn.append(element("text", write(value), class_="tick middle", x=x, y=float(top - 14)))
    if reference is not None:
        x = across(reference)
        drawn.append(element("line", class_="mark", x1=x, x2=x, y1=float(top - 8), y2=bottom))
    for i, row in enumerate(rows):
        name, line = top + pitch * i + 12.0, top + pitch * i + 26.0
        title = element("title", row.name)
        text = shorten(row.name, LONGEST)
        drawn.append(element("text", title, text, class_="name halo", x=float(left), y=name))
        if row.value is None:
            drawn.append(element("text", "no run is finished", class_="tick", x=float(left), y=line + 4))
            continue
        for value in row.values:
            x = across(value)
            drawn.append(element("line", class_=f"seed {row.style}", x1=x, x2=x, y1=line - 5, y2=line + 5))
        if row.interval is not None and len(_finite(row.interval)) == 2:
            low, high = map(across, row.interval)
            drawn.append(element("line", class_=f"whisker {row.style}", x1=low, x2=high, y1=line, y2=line))
        dot = element(
            "circle", element("title", row.hint), class_=f"dot {row.style}", cx=across(row.value), cy=line, r=4.5
        )
        drawn.append(dot)
    return svg(WIDTH, bottom + 4, description, drawn)


def pareto_chart(
    spots: Sequence[Spot],
    *,
    description: str,
    axis: str,
    write: Callable[[float], str],
    write_cost: Callable[[float], str],
    higher_is_better: bool = True,
) -> Markup | None:
    """Quality against cost, and a line through what nothing else beats in both; None where there is nothing.

    Args:
        spots: the configurations; each is a dot with its number.
        description: what a reader who does not see the figure is told.
        axis: what the cost is.
        write, write_cost: a quality and a cost as text.
        higher_is_better: whether more quality is better.
    """
    if not spots:
        return None
    height, left, right, top, bottom = 250, 50, 26, 16, 42
    costs, qualities = [s.cost for s in spots], [s.quality for s in spots]
    # From zero, so that distances are costs and not only their order.
    places, levels = ticks(0.0, max(costs), 4), ticks(min(qualities), max(qualities), 4)
    across = Scale(0.0, places[-1], left, WIDTH - right)
    up = Scale(levels[0], levels[-1], height - bottom, top)
    drawn = []
    for level in levels:
        y = up(level)
        drawn.append(element("line", class_="grid", x1=float(left), x2=float(WIDTH - right), y1=y, y2=y))
        drawn.append(element("text", write(level), class_="tick end", x=left - 7.0, y=y + 4))
    for place in places:
        drawn.append(
            element("text", write_cost(place), class_="tick middle", x=across(place), y=height - bottom + 16.0)
        )
    drawn.append(element("text", axis, class_="name middle", x=(left + WIDTH - right) / 2, y=height - 6.0))
    best = front(spots, higher_is_better=higher_is_better)
    path = " ".join(f"{across(s.cost):.1f},{up(s.quality):.1f}" for s in best)
    drawn.append(element("polyline", class_="curve front", points=path))
    labels = spread([up(s.quality) for s in spots], LABEL_GAP, top, height - bottom)
    for spot, y in zip(spots, labels, strict=True):
        hint = f"{spot.name}: {write(spot.quality)} for {write_cost(spot.cost)}"
        x = across(spot.cost)
        ring = "front" if spot in best else ""
        drawn.append(
            element(
                "circle", element("title", hint), class_=f"dot {spot.style} {ring}", cx=x, cy=up(spot.quality), r=5.0
            )
        )
        drawn.append(element("text", str(spot.number), class_="tick halo", x=x + 8, y=y + 4))
    return svg(WIDTH, height, description, drawn)


def front(spots: Sequence[Spot], *, higher_is_better: bool = True) -> list[Spot]:
    """Spots that nothing else beats in both cost and quality, cheapest first."""
    sign = 1 if higher_is_better else -1
    found: list[Spot] = []
    for spot in sorted(spots, key=lambda s: (s.cost, -sign * s.quality)):
        if not found or sign * spot.quality > sign * found[-1].quality:
            found.append(spot)
    return found


def _finite(interval: tuple[float, float] | None) -> list[float]:
    return [] if interval is None else [end for end in interval if math.isfinite(end)]
