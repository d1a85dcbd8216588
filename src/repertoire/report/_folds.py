"""Writes the page of a cross-validation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from repertoire.errors import option
from repertoire.files import check_place, write_text
from repertoire.report import _text
from repertoire.report._render import render
from repertoire.train import Folds

__all__ = ["write_folds"]

MISTAKES = 50
"""Answers that are shown, of those that are wrong and most certain."""

CONFUSED = 12
"""Pairs of classes that are shown, of those that are taken for each other."""

_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "top5_accuracy": "Top-5 accuracy",
    "mean_average_precision": "Mean average precision",
    "micro_f1": "Micro F1",
    "exact_match": "All labels right",
    "mae": "Mean absolute error",
    "rmse": "RMSE",
    "r2": "R²",
    "spearman": "Rank correlation",
    "nll": "Negative log-likelihood",
    "ece": "Calibration error",
}
_SHARES = {"accuracy", "balanced_accuracy", "top5_accuracy", "mean_average_precision", "exact_match"}


def write_folds(folds: Folds, out: str | os.PathLike[str] | None = None) -> Path:
    """Writes the page of a cross-validation: one HTML file that opens offline, on any screen.

    It shows what each fold gave and the mean with its interval, and of all samples together, each answered by the run
    that had not seen it, the classes, what is taken for what, and the mistakes that were most certain: wrong labels are
    often among these.

    Args:
        folds: what `repertoire.train.fit_folds` gave.
        out: the file; `report.html` in the directory of the folds if None. It is replaced whole or not at all.

    Returns:
        The file's path.

    Raises:
        RunError: nothing can be written to `out`, or the folds are not finished.

    Example:
        >>> import repertoire
        >>> folds = repertoire.train.fit_folds("digits", 5, epochs=10)  # doctest: +SKIP
        >>> repertoire.report.write_folds(folds)  # doctest: +SKIP
        PosixPath('runs/digits-folds/report.html')
    """
    target = check_place(folds.path / "report.html" if out is None else out, option("out"))
    write_text(target, render("folds.html.j2", _content(folds)))
    return target


def _content(folds: Folds) -> dict[str, Any]:
    summary = folds.summary
    first = folds.runs[0]
    pooled = summary["out_of_fold"]
    total = pooled.get("images", pooled.get("samples", 0))
    return {
        "path": folds.path,
        "source": _text.name_of_data(first.config.data),
        "summary": (
            f"{summary['folds']} runs, each tested on a fold that it was not trained on: "
            f"{_text.plural(total, first.noun)} in all."
        ),
        "count": summary["folds"],
        "noun": first.noun,
        "rows": _rows(summary["metrics"]),
        "overlap": summary["overlap"],
        "held_out": _rows({k: {"mean": v} for k, v in (summary["held_out"] or {}).items() if k in _TITLES}),
        "per_class": pooled.get("per_class", []),
        "confused": _confused(pooled, folds.classes),
        "mistakes": _mistakes(folds),
        "runs": [
            (number, row, run) for number, (row, run) in enumerate(zip(summary["runs"], folds.runs, strict=True), 1)
        ],
    }


def _rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, title in _TITLES.items():
        if name not in metrics or metrics[name]["mean"] is None:
            continue
        found = metrics[name]
        write = _text.percent if name in _SHARES else _text.number
        low, high = found.get("interval", (None, None))
        rows.append(
            {
                "title": title,
                "mean": write(found["mean"]),
                "interval": "" if low is None else f"{write(low)} to {write(high)}",
                "values": [write(value) for value in found.get("values", [])],
            }
        )
    return rows


def _confused(pooled: dict[str, Any], classes: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """What is taken for what most often: the true class, the other, and how often."""
    if "confusion" not in pooled:
        return []
    wrong = np.array(pooled["confusion"])
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    return [(classes[i], classes[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def _mistakes(folds: Folds) -> list[tuple[str, int, str, str, float]]:
    """Wrong answers, the most certain first: name, fold, true class, answer and its probability."""
    if folds.task.kind != "classes":
        return []
    found = folds.out_of_fold
    said, labels = found["values"].argmax(1), found["labels"]
    wrong = np.flatnonzero((said != labels) & (labels >= 0))
    sure = found["values"][wrong, said[wrong]]
    chosen = wrong[np.argsort(-sure, kind="stable")[:MISTAKES]]
    return [
        (
            str(found["names"][i]),
            int(found["fold"][i]),
            folds.classes[labels[i]],
            folds.classes[said[i]],
            float(found["values"][i, said[i]]),
        )
        for i in chosen
    ]
