"""Figures of the diagnosis that the report of a run has no need of: bars, and matrices of shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from repertoire.report._figures import Scale, element, svg
from repertoire.report._text import shorten

__all__ = ["Bar", "bar_chart", "matrix_chart"]

WIDTH = 380
LONGEST = 22


@dataclass(frozen=True)
class Bar:
    """One row: a name, a share in [0, 1], and how it is written."""

    name: str
    share: float
    text: str


def bar_chart(rows: Sequence[Bar], *, description: str) -> Markup:
    """A bar a row, on a common axis from nothing to all.

    Args:
        rows: from top to bottom.
        description: what a reader who does not see the figure is told.
    """
    longest = max((min(len(row.name), LONGEST) for row in rows), default=0)
    left, right, pitch = 14 + 6.6 * longest, 78, 20
    across = Scale(0, 1, left, WIDTH - right)
    drawn = []
    for i, row in enumerate(rows):
        y = pitch * (i + 0.5)
        short = shorten(row.name, LONGEST, keep="end")
        name = element("text", element("title", row.name), short, class_="name end", x=left - 8, y=y + 4)
        track = element("rect", class_="track", x=left, y=y - 6, width=WIDTH - right - left, height=12)
        width = max(across(min(max(row.share, 0.0), 1.0)) - left, 1.0)
        bar = element("rect", class_="bar full", x=left, y=y - 6, width=width, height=12)
        value = element("text", row.text, class_="tick end", x=float(WIDTH), y=y + 4)
        drawn += [name, track, bar, value]
    return svg(WIDTH, pitch * len(rows) + 4, description, drawn)


def matrix_chart(
    values: np.ndarray,
    down: Sequence[str],
    across: Sequence[str],
    *,
    description: str,
    names: tuple[str, str],
    short: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Markup:
    """A matrix of shares as squares, the darker the larger; the pointer tells a square's value.

    Args:
        values: `[rows, columns]`, in [0, 1]; there is no square where one is NaN.
        down, across: names of the rows and of the columns.
        description: what a reader who does not see the figure is told.
        names: what the rows and the columns are.
        short: what stands beside the rows and below the columns, where that is not their names.
    """
    rows, columns = values.shape
    left, top = 62, 8
    side = (WIDTH - left - 8) / max(rows, columns, 4)
    drawn = []
    for i in range(rows):
        for j in range(columns):
            if np.isnan(values[i, j]):
                continue
            value = float(min(max(values[i, j], 0.0), 1.0))
            drawn.append(
                element(
                    "rect",
                    element("title", f"{down[i]}, {across[j]}: {values[i, j]:.2f}"),
                    class_="cell",
                    x=left + j * side,
                    y=top + i * side,
                    width=max(side - 1, 1.0),
                    height=max(side - 1, 1.0),
                    style=f"opacity:{0.04 + 0.96 * value:.3f}",
                )
            )
    beside, below = short or (down, across)
    for i in _some(rows):
        drawn.append(_tick(beside[i], left - 6.0, top + (i + 0.5) * side + 4))
    base = top + rows * side
    for j in _some(columns):
        x = left + (j + 0.5) * side
        drawn.append(_tick(below[j], x + 3, base + 14, f"rotate(-45 {x:.1f} {base + 12:.1f})"))
    height = base + 62
    drawn.append(element("text", names[1], class_="name middle", x=left + columns * side / 2, y=height - 4))
    middle = f"rotate(-90 10 {top + rows * side / 2:.1f})"
    drawn.append(element("text", names[0], class_="name middle", x=10.0, y=top + rows * side / 2, transform=middle))
    return svg(WIDTH, height, description, drawn)


def _tick(name: str, x: float, y: float, turned: str | None = None) -> Markup:
    return element("text", element("title", name), shorten(name, 9), class_="tick end", x=x, y=y, transform=turned)


def _some(count: int, most: int = 16) -> range:
    """Positions that have room for a name."""
    return range(0, count, -(-count // most)) if count else range(0)
