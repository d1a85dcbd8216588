"""Writes the page of self-training: what was taken of the pool, what each phase gave, and whether it helped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repertoire.errors import option
from repertoire.files import check_place, write_text
from repertoire.report import _text
from repertoire.report._bars import Bar, bar_chart
from repertoire.report._render import render
from repertoire.train import SelfTraining

__all__ = ["write_self_training"]

CLASSES = 200
"""Classes that have a row: of more, those whose least certain sample is the least certain."""

_PHASES = {
    "teacher": "The teacher, which chose.",
    "after the pool": "The student after what the classes took, whose labels are the teacher's.",
    "student": "The student after the true labels, with which it ends.",
    "labels alone": "A student of the labels alone, for as many steps and as many looks at the validation samples.",
}


def write_self_training(found: SelfTraining, out: str | os.PathLike[str] | None = None) -> Path:
    """Writes the page of self-training: one HTML file that opens offline, on any screen.

    It says whether the pool helped, what each phase gave on the same test samples, and what each class took of the pool
    and how certain the teacher was of it.

    Args:
        found: what `repertoire.train.self_train` gave, or `SelfTraining.read` of its directory.
        out: the file; `report.html` in its directory if None. It is replaced whole or not at all.

    Returns:
        The file's path.

    Raises:
        RunError: nothing can be written to `out`.

    Example:
        >>> import repertoire
        >>> found = repertoire.train.self_train("runs/photos-1", "more/", top=200)  # doctest: +SKIP
        >>> repertoire.report.write_self_training(found)  # doctest: +SKIP
        PosixPath('runs/photos-self-trained/report.html')
    """
    target = check_place(found.path / "report.html" if out is None else out, option("out"))
    write_text(target, render("self_training.html.j2", _content(found), styles=("style.css", "diagnosis.css")))
    return target


def _content(found: SelfTraining) -> dict[str, Any]:
    summary = found.summary
    rows = [_row(row) for row in summary["runs"]]
    by_class = summary["classes"]
    if len(by_class) > CLASSES:
        by_class = sorted(by_class, key=lambda row: -1.0 if row["lowest"] is None else row["lowest"])[:CLASSES]
    return {
        "path": found.path,
        "source": _text.name_of_data(found.teacher.config.data),
        "noun": summary["noun"],
        "sentences": str(found).splitlines(),
        "rows": rows,
        "chart": bar_chart(
            [Bar(row["name"], row["accuracy"] or 0.0, _text.percent(row["accuracy"])) for row in rows],
            description="Test accuracy of the teacher, of the student after each phase, and of the labels alone.",
        ),
        "by_class": by_class,
        "cut": len(summary["classes"]) > CLASSES,
        "pool": summary["pool"],
        "chosen": summary["chosen"],
    }


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "about": _PHASES[row["name"]]}
