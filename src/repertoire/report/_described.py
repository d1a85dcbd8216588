"""Writes the page of a zero-shot classifier: classes that were shown against classes that were only described."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repertoire.errors import RunError
from repertoire.files import check_place, write_text
from repertoire.report import _text
from repertoire.report._figures import Series, line_chart
from repertoire.report._render import render

__all__ = ["write_described_classes"]


def write_described_classes(
    out: str | os.PathLike[str], metrics: Mapping[str, Any], *, source: str, noun: str = "images"
) -> Path:
    """Writes the page of what a zero-shot classifier is worth: one HTML file that opens offline.

    Args:
        out: the file, which is replaced whole or not at all.
        metrics: accuracies on classes that were learned (`seen`) and on those that were held out and only described
            (`unseen`), their `harmonic` mean, `ausuc`, `gamma`, `without_gamma`, `among_unseen`, `unseen_classes`,
            `rows`, and the `curve` of both accuracies.
        source: what was learned from.
        noun: what the samples are called.

    Returns:
        The file's path.

    Raises:
        RunError: the metrics are not such ones, or nothing can be written to `out`.
    """
    path = check_place(out, "out")
    if "curve" not in metrics:
        raise RunError("these metrics are of no classes that are only described")
    curve = list(zip(metrics["curve"]["unseen"], metrics["curve"]["seen"], strict=True))
    figure = line_chart(
        [Series("accuracy on seen classes", curve, "main")],
        description=(
            f"Accuracy on seen classes over that on classes only described, from {_text.percent(curve[0][1])} at "
            f"{_text.percent(curve[0][0])} to {_text.percent(curve[-1][1])} at {_text.percent(curve[-1][0])}. The "
            "table has the numbers."
        ),
        write=_text.percent,
        write_across=_text.percent,
        zero=True,
        highest=1.0,
        mark=(metrics["unseen"], "as predicted"),
        axis="accuracy on classes only described",
    )
    content = {
        "source": _text.label(source),
        "noun": noun,
        "metrics": metrics,
        "away": [_text.label(name) for name in metrics["unseen_classes"]],
        "figure": figure,
    }
    write_text(path, render("described.html.j2", content))
    return path
