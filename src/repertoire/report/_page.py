"""Puts the report of a run together and writes it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repertoire import registry
from repertoire.errors import RunError, option
from repertoire.files import check_place, write_text
from repertoire.report import _advice, _answers, _exits, _facts, _figures, _tables, _tested, _text
from repertoire.report._made_of import made_of, making
from repertoire.report._remedies import Remedies
from repertoire.report._render import render
from repertoire.train import Run, later_counts

__all__ = ["write_report"]

LARGEST_MATRIX = 30
"""Classes up to which the confusion matrix is shown whole."""

LONGEST_CHART = 40
"""Classes up to which each has a row in the figure; beyond it, those with the lowest accuracy do."""

MOST_ROWS = 400
"""Epochs in the curves and their table; of more, evenly spaced ones are shown."""

_COLUMNS = {
    "train_accuracy": ("Training accuracy", True),
    "val_accuracy": ("Validation accuracy", True),
    "val_nll": ("Validation NLL", False),
    "val_mean_average_precision": ("Validation mAP", True),
    "val_micro_f1": ("Validation F1", True),
    "val_mae": ("Validation MAE", False),
    "val_r2": ("Validation R2", False),
    "val_rank": ("Validation rank", False),
}
"""What the table of the epochs may show beside the loss, and whether it is a share."""

_SCORES = ("images", "accuracy", "accuracy_interval", "balanced_accuracy", "macro_f1", "nll", "ece")
_NEEDED = (*_SCORES, "reliability", "per_class", "confusion")


def write_report(run: Run, out: str | os.PathLike[str] | None = None) -> Path:
    """Writes the report of a run: one HTML file that opens offline, on any screen.

    It says what was trained on what and how well that went, warns of what looks wrong, and shows the curves, the
    accuracy of each class, the confusion matrix, the calibration, the exits of a network that was trained block by
    block, the most telling test images with heat maps, how far those can be trusted, a map of the embeddings, and how
    to repeat the run. An unfinished run gets a report without test results. Where the data is no longer there, or the
    weights are not, the report says so and goes without pictures, or without heat maps.

    Args:
        run: what `repertoire.train.fit` or `repertoire.train.load` gave.
        out: the file; `report.html` in the run's directory if None. It is replaced whole or not at all.

    Returns:
        The file's path.

    Raises:
        RunError: the run is finished, but metrics.json or predictions.npz is missing, damaged or of other classes; or
            nothing can be written to `out`.

    Example:
        >>> import repertoire
        >>> run = repertoire.train.fit("digits", epochs=10, out="runs/demo")  # doctest: +SKIP
        >>> repertoire.report.write_report(run)  # doctest: +SKIP
        PosixPath('runs/demo/report.html')
    """
    target = check_place(run.directory.report_file if out is None else out, option("out"))
    write_text(target, render("report.html.j2", _content(run), script="script.js"))
    return target


def _content(run: Run) -> dict[str, Any]:
    classes_told = run.task.kind in ("classes", "votes")
    metrics = _metrics(run) if classes_told else {}
    finished = run.info["status"] == "finished"
    answers = None if classes_told or not finished else _answers.answers(run)
    history = run.history
    classes = [_text.label(name) for name in run.classes]
    made = made_of(run.info)
    remedies = Remedies(run.config, len(history) or None, str(run.directory), trained=made is None)
    content: dict[str, Any] = {
        "source": _text.shorten(_text.label(run.info.get("source", run.config.data)), 60, keep="end"),
        "path": str(run.directory),
        "backbone": _text.label(run.config.backbone),
        "classes": classes,
        "summary": _text.label(_facts.summary(run)),
        "state": _facts.state(run),
        "notes": run.info.get("notes", []),
        "skipped": run.info.get("skipped", []),
        "warnings": _advice.warnings(run.info.get("counts", {}), classes, history, metrics, remedies),
        "curves": _curves(run, history),
        "history": thin(history),
        "circumstances": _facts.circumstances(run),
        "configuration": _facts.configuration(run.config),
        "command": making(run.info, str(run.directory)) or _facts.command(run.config),
        "next_steps": _facts.next_steps(run, remedies),
        "metrics": metrics,
        "scored": bool(metrics),
        "which_epoch": (
            "the last whose validation accuracy is within a standard error of the highest: what begins with a "
            "pretrained network converges, and later weights are the better ones"
            if later_counts(run.config, run.task)
            else "the best on the validation images"
        ),
        "answers": answers,
        "targets": {"labels": "Labels", "number": "Numbers"}.get(run.task.kind, "Classes"),
        "head_only": _head_only(run, metrics),
        "columns": [
            (name, key, share)
            for key, (name, share) in _COLUMNS.items()
            if any(row.get(key) is not None for row in history)
        ],
        "exits": _exits.exits(metrics),
        "made_of": made,
    }
    if metrics:
        content["tiles"] = _facts.score_tiles(run, metrics)
        content |= _scores(metrics, classes)
        content |= _tested.tested(run, classes)
    return content


def _metrics(run: Run) -> dict[str, Any]:
    """The test metrics, complete or not there at all."""
    if run.info["status"] != "finished" or not run.metrics.get("images"):
        return {}
    metrics, classes = run.metrics, len(run.classes)
    missing = [key for key in _NEEDED if key not in metrics]
    if missing:
        raise RunError(f"{run.directory}/metrics.json is incomplete: it lacks {', '.join(missing)}")
    if len(metrics["per_class"]) != classes or np.shape(metrics["confusion"]) != (classes, classes):
        raise RunError(f"{run.directory}/metrics.json is not about the {classes} classes of the run")
    return metrics


def _scores(metrics: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Everything that the metrics alone say."""
    by_class = [
        _figures.Interval(name, row["accuracy"], row["interval"][0], row["interval"][1], row["images"])
        for name, row in zip(classes, metrics["per_class"], strict=True)
    ]
    lowest = sorted(by_class, key=lambda row: (row.value is None, row.value))[:LONGEST_CHART]
    bins = metrics["reliability"]
    whole = len(classes) <= LARGEST_MATRIX
    return {
        "class_chart": _figures.interval_chart(
            lowest,
            description=f"Accuracy of {len(lowest)} classes with 95% intervals. The table has the numbers.",
            reference=metrics["accuracy"],
        ),
        "class_rows": list(zip(by_class, (row["precision"] for row in metrics["per_class"]), strict=True)),
        "class_chart_cut": len(lowest) < len(by_class),
        "confusion": _tables.confusion_grid(metrics["confusion"], classes) if whole else None,
        "pairs": _tables.most_confused(metrics["confusion"], classes, 5 if whole else 25),
        "bins": [(i / len(bins), (i + 1) / len(bins), b) for i, b in enumerate(bins) if b["count"]],
        "reliability": _figures.reliability_chart(
            bins,
            description=f"Reliability diagram; expected calibration error {metrics['ece']:.3f}.",
        ),
    }


def _head_only(run: Run, metrics: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Validation results of the head alone and of the tuned network, where both were tried, and which was kept."""
    before = run.info.get("head_only")
    if not before:
        return []
    best = run.task.best
    row = _advice.best_row(run.history) or {}
    after = row.get(f"val_{best.key}")

    def shown(value: float | None) -> str:
        share = run.task.kind in ("classes", "votes", "labels", "maps")
        return _text.percent(value) if share else _text.number(value)

    kept = metrics.get("best_epoch", row.get("epoch", 0)) == 0
    return [
        ("the head alone, on frozen features", shown(before.get(best.key)), kept),
        ("all layers, from there", shown(after), not kept),
    ]


def _curves(run: Run, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The figures over the epochs: title, picture, remark."""
    rows = thin(history)
    best = _advice.best_row(history)
    mark = (best["epoch"], "best") if best is not None and best.get("best") else None

    def curve(key: str, name: str, style: str = "main") -> _figures.Series:
        return _figures.Series(name, [(row["epoch"], row[key]) for row in rows if row.get(key) is not None], style)

    # Only a training loss that is itself a negative log-likelihood may share an axis with one.
    loss = registry.parse(run.config.loss).name
    single = registry.parse(run.config.head).name in ("linear", "cosine")
    comparable = "train_readout_loss" if rows and "train_readout_loss" in rows[0] else "train_loss"
    alike = comparable == "train_readout_loss" or (loss == "cross-entropy" and single)
    train = [curve(comparable, "train", "aside")] if alike else []
    charts: list[tuple[str, list[_figures.Series], dict[str, Any]]] = [
        ("Negative log-likelihood", [*train, curve("val_nll", "val")], {"zero": True, "mark": mark}),
        (
            "Accuracy",
            [curve("train_accuracy", "train", "aside"), curve("val_accuracy", "val")],
            {"write": lambda share: f"{100 * share:g}%", "highest": 1.0, "mark": mark},
        ),
        ("Learning rate", [curve("lr", "")], {"zero": True}),
    ]
    for key in ("val_mean_average_precision", "val_mae", "val_r2", "val_rank"):
        name, share = _COLUMNS[key]
        told: dict[str, Any] = {"write": lambda value: f"{100 * value:g}%", "highest": 1.0} if share else {}
        charts.insert(-1, (name, [curve(key, "")], {**told, "mark": mark}))
    if not train or comparable != "train_loss":
        charts.insert(1, (f"Training loss: {loss}", [curve("train_loss", "", "aside")], {}))
    figures = []
    for title, series, options in charts:
        description = f"{title} over the epochs. The table has the numbers."
        figure = _figures.line_chart(series, description=description, **options)
        if figure is not None:
            figures.append({"title": title, "figure": figure})
    return figures


def thin(rows: Sequence[Mapping[str, Any]], most: int = MOST_ROWS) -> list[Mapping[str, Any]]:
    """Thins rows to about `most`, evenly spaced, always with the last one and the best ones of late."""
    if len(rows) <= most:
        return list(rows)
    kept = {round(i) for i in np.linspace(0, len(rows) - 1, most)}
    best = [i for i, row in enumerate(rows) if row.get("best")]
    return [rows[i] for i in sorted(kept | set(best[-1:]))]
