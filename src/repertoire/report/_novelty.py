"""Writes the page of what tells known samples from unknown ones: how their scores lie, and the threshold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from repertoire.errors import RunError
from repertoire.files import check_place, write_text
from repertoire.report import _text
from repertoire.report._figures import Scale, element, svg, ticks, words
from repertoire.report._render import render

__all__ = ["score_histogram", "write_novelty"]

WIDTH = 380
SIDE = 92
"""Height of the bars of known samples, and of those of unknown ones, in pixels."""


def score_histogram(histogram: Mapping[str, Sequence[float]], threshold: float | None, *, description: str) -> Markup:
    """Known samples upwards and unknown ones downwards, over the score, with a line at the threshold.

    A bar is a share of its own side, so that few unknown samples are seen as well as many known ones.

    Args:
        histogram: `edges` of the bins, and counts of the `known` and of the `unknown` samples in each.
        threshold: what lies below, to the left, is called unknown; None for no line.
        description: what a reader who does not see the figure is told.
    """
    edges, left, right, top = histogram["edges"], 12, 12, 22
    across = Scale(edges[0], edges[-1], left, WIDTH - right)
    middle = top + SIDE
    shares = {side: [n / max(1, sum(histogram[side])) for n in histogram[side]] for side in ("known", "unknown")}
    tall = SIDE / max(1e-9, *shares["known"], *shares["unknown"])
    drawn = []
    for side, colour in (("known", "main"), ("unknown", "aside")):
        for i, share in enumerate(shares[side]):
            if not share:
                continue
            start, height = across(edges[i]), max(1.0, tall * share)
            hint = f"{edges[i]:.3g} to {edges[i + 1]:.3g}: {_text.percent(share)} of the {side}"
            drawn.append(
                element(
                    "rect",
                    element("title", hint),
                    class_=f"side {colour}",
                    x=start + 0.5,
                    y=middle - height if side == "known" else middle + 0.0,
                    width=max(across(edges[i + 1]) - start - 1, 0.5),
                    height=height,
                )
            )
    bottom = float(middle + SIDE)
    drawn.append(element("line", class_="axis", x1=float(left), x2=float(WIDTH - right), y1=float(middle), y2=middle))
    if threshold is not None:
        x = min(max(across(threshold), left), WIDTH - right)
        drawn.append(element("line", class_="mark", x1=x, x2=x, y1=float(top - 4), y2=bottom))
        drawn.append(words(min(max(x, 30.0), WIDTH - 30.0), top - 9, "threshold", "tick middle"))
    # Where there are few bars: known samples score high, which is to the right.
    drawn.append(words(left, middle - SIDE + 10, "known", "name main start"))
    drawn.append(words(WIDTH - right, bottom - 2, "unknown", "name aside end"))
    for value in ticks(edges[0], edges[-1]):
        if edges[0] <= value <= edges[-1]:
            drawn.append(words(across(value), bottom + 18, _text.number(value), "tick middle"))
    drawn.append(words(WIDTH / 2, bottom + 36, "score, higher for what is known", "name middle"))
    return svg(WIDTH, bottom + 42, description, drawn)


def write_novelty(
    out: str | os.PathLike[str], metrics: Mapping[str, Any], *, source: str, noun: str = "images"
) -> Path:
    """Writes the page of an evaluation with unknown samples: one HTML file that opens offline.

    Args:
        out: the file, which is replaced whole or not at all.
        metrics: what `Run.novelty` gave with unknown samples.
        source: what was evaluated on what.
        noun: what the samples are called: images or vectors.

    Returns:
        The file's path.

    Raises:
        RunError: the metrics are not those of such an evaluation, or nothing can be written to `out`.
    """
    path = check_place(out, "out")
    if "unknown" not in metrics:
        raise RunError("these metrics are of no evaluation with unknown samples: give what Run.novelty gave with some")
    keep = metrics["keep"]
    rows: list[dict[str, Any]] = []
    for row in metrics["scores"]:
        if "reason" in row:
            continue
        passed = row.get("passed")
        said = "" if passed is None else f", of which {_text.percent(passed['unknown'])} lie above the threshold"
        description = (
            f"Scores of {row['known']} known {noun} and {row['unknown']} unknown ones by {row['score']}{said}. "
            "The table has the numbers."
        )
        figure = score_histogram(row["histogram"], row["threshold"], description=description)
        rows.append({**row, "figure": figure, "name": _text.label(row["score"])})
    content = {
        "source": _text.label(source),
        "noun": noun,
        "known": metrics["known"],
        "unknown": metrics["unknown"],
        "accuracy": metrics.get("accuracy"),
        "keep": keep,
        "rows": rows,
        "unused": [(_text.label(row["score"]), row["reason"]) for row in metrics["scores"] if "reason" in row],
    }
    write_text(path, render("novelty.html.j2", content))
    return path
