"""What a run that does not tell classes apart gave on the test samples: several labels, numbers, or an embedding."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from scipy.special import expit, log_expit

from repertoire.data import ImageSet
from repertoire.errors import RepertoireError, RunError
from repertoire.report import _figures, _samples
from repertoire.report._maps import missed_maps
from repertoire.report._text import DASH, count, label, number, percent, plural, shorten
from repertoire.statistics import interval
from repertoire.tasks import wilson
from repertoire.train import Run

__all__ = ["Answers", "answers", "scatter_chart"]

MOST_POINTS = 2000
"""Points of a scatter plot; of more, so many are drawn, evenly spaced."""

MOST_PLOTS = 6
"""Numbers that have a scatter plot; the table has all."""

MOST_ROWS = 200
"""Labels in the table; of more, those with the lowest average precision."""


@dataclass(frozen=True)
class Answers:
    """A part of the page.

    Attributes:
        headline: the figure at the top, and what it is.
        tiles: further figures: name, value, what it means.
        title, remark: of the table.
        columns, rows: the table; the first column names the row.
        cut: how many rows are left out.
        plots: figures, each with a title.
        errors: the samples that were missed most, with their pictures.
        why_no_images: why there are none.
    """

    headline: tuple[str, str]
    tiles: Sequence[tuple[str, str, str]]
    title: str = ""
    remark: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    cut: int = 0
    plots: Sequence[tuple[str, Markup]] = ()
    errors: Sequence[Mapping[str, Any]] = ()
    why_no_images: str | None = None


def answers(run: Run) -> Answers | None:
    """The part of a finished run whose targets are not classes; None where no test sample has a target.

    Raises:
        RunError: metrics.json is incomplete, or predictions.npz is missing, damaged, or of other targets.
    """
    metrics = run.metrics
    if not metrics.get("samples"):
        return None
    part = {"labels": _labels, "number": _numbers, "none": _embedding, "maps": _maps}[run.task.kind]
    try:
        return part(run, metrics)
    except KeyError as error:
        raise RunError(f"{run.directory}/metrics.json is incomplete: it lacks {error}") from None


def _labels(run: Run, metrics: Mapping[str, Any]) -> Answers:
    samples = metrics["samples"]
    exact = wilson(round(metrics["exact_match"] * samples), samples)
    tiles = [
        ("F1, all labels", percent(metrics["micro_f1"]), "at a probability of a half"),
        ("F1, mean", percent(metrics["macro_f1"]), "mean over the labels"),
        ("AUROC", number(metrics["macro_auroc"]), "mean over the labels; 0.5 is chance"),
        ("Exact", percent(metrics["exact_match"]), f"all labels right; {percent(exact[0])} to {percent(exact[1])}"),
        ("Wrong answers", percent(metrics["hamming"]), "of all labels of all samples"),
        ("NLL", number(metrics["nll"]), "mean binary cross-entropy, nats"),
    ]
    rows = sorted(metrics["per_label"], key=lambda row: (row["average_precision"] is None, row["average_precision"]))
    stored = _predictions(run)
    truth, logits = stored["labels"], stored["logits"].astype(np.float64)
    _fits(run, truth, logits)
    known = truth != 255
    missed = np.where(known, -np.where(truth == 1, log_expit(logits), log_expit(-logits)), 0).sum(1)
    names = [label(name) for name in run.classes]

    def told(i: int) -> tuple[str, str]:
        said = expit(logits[i])
        answered = [f"{names[k]} ({percent(said[k], 0)})" for k in np.argsort(-said) if said[k] > 0.5]
        return _listed(answered), _listed([names[k] for k in np.flatnonzero(truth[i] == 1)])

    errors, why = _errors(run, truth, missed, told)
    return Answers(
        (
            percent(metrics["mean_average_precision"]),
            f"mean average precision over the labels, on {plural(samples, 'test sample')}",
        ),
        tiles,
        "Labels",
        "Average precision is the area under precision and recall of a label; a guess gives its share of the samples.",
        ("Label", "Samples with it", "Average precision", "F1", "Precision", "Recall", "AUROC"),
        [
            (
                label(row["label"]),
                f"{count(row['positives'])} of {count(row['samples'])}",
                percent(row["average_precision"]),
                percent(row["f1"]),
                percent(row["precision"]),
                percent(row["recall"]),
                number(row["auroc"]),
            )
            for row in rows[:MOST_ROWS]
        ],
        max(0, len(rows) - MOST_ROWS),
        errors=errors,
        why_no_images=why,
    )


def _numbers(run: Run, metrics: Mapping[str, Any]) -> Answers:
    stored = _predictions(run)
    truth = stored["labels"].astype(np.float64)
    found = stored.get("answers", stored["logits"]).astype(np.float64)
    _fits(run, truth, found)
    away = np.abs(found - truth)
    single = len(run.classes) == 1
    std = np.asarray(run.task.info()["std"], dtype=np.float64)
    names = [label(name) for name in run.classes]
    low, high = interval(away[np.isfinite(away[:, 0]), 0].tolist(), bounds=(0.0, np.inf))
    spread = f" 95% interval: {number(low)} to {number(high)}." if np.isfinite(high) else ""
    headline = (
        (
            number(metrics["mae"]),
            f"mean absolute error of {names[0]} on {plural(metrics['samples'], 'test sample')}.{spread}",
        )
        if single
        else (
            number(metrics["error"]),
            f"mean absolute error in standard deviations, over {plural(len(names), 'number')} and "
            f"{plural(metrics['samples'], 'test sample')}",
        )
    )
    tiles = [
        ("R2", number(metrics["r2"]), "share of the variance explained; 0 is the mean alone"),
        ("Rank correlation", number(metrics["spearman"]), "Spearman; 1 is the right order"),
        ("RMSE", number(metrics["rmse"]), "root of the mean squared error"),
        ("Relative error", number(metrics["error"]), "mean absolute error in standard deviations"),
    ]

    def told(i: int) -> tuple[str, str]:
        shown = [k for k in range(len(names)) if np.isfinite(truth[i, k])]
        values = [
            ", ".join(number(row[k], 4) if single else f"{names[k]} {number(row[k], 4)}" for k in shown)
            for row in (found[i], truth[i])
        ]
        return values[0], values[1]

    relative = np.nan_to_num(away / std).max(1)
    errors, why = _errors(run, truth, relative, told)
    rows = metrics["per_number"]
    return Answers(
        headline,
        tiles,
        "Numbers",
        "The bias is the mean of prediction less truth.",
        ("Number", "Test samples", "Mean absolute error", "RMSE", "Bias", "R2", "Rank correlation"),
        [
            (
                label(row["number"]),
                count(row["samples"]),
                number(row["mae"]),
                number(row["rmse"]),
                number(row["bias"]),
                number(row["r2"]),
                number(row["spearman"]),
            )
            for row in rows[:MOST_ROWS]
        ],
        max(0, len(rows) - MOST_ROWS),
        [
            (
                f"{names[k]}: predicted against true",
                scatter_chart(
                    truth[:, k], found[:, k], description=f"Predicted {names[k]} against the true one, a dot a sample."
                ),
            )
            for k in range(min(len(names), MOST_PLOTS))
        ],
        errors,
        why,
    )


def _embedding(run: Run, metrics: Mapping[str, Any]) -> Answers:
    return Answers(
        (
            number(metrics["rank"]),
            f"of {plural(metrics['dimensions'], 'dimension')} are in use: the effective rank of the embeddings of "
            f"{plural(metrics['samples'], 'test sample')} (RankMe). There are no labels, so the epoch with the highest "
            "rank on the validation samples was kept. A rank shows a collapse; it does not say what the features are "
            "good for.",
        ),
        [("Spread", number(metrics["spread"]), "0 if all samples lie at one point, about 1 if they are spread evenly")],
    )


def _predictions(run: Run) -> dict[str, np.ndarray]:
    file = run.directory.predictions_file
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise RunError(f"{run.directory} is incomplete: it has no {file.name}; put it back, or train again") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{run.directory}/{file.name} is damaged: {error}; put it back, or train again") from None


def _maps(run: Run, metrics: Mapping[str, Any]) -> Answers:
    low, high = metrics["miou_interval"]
    errors, why = missed_maps(run)
    rows = sorted(metrics["per_region"], key=lambda row: (row["iou"] is None, row["iou"]))
    return Answers(
        (
            percent(metrics["miou"]),
            f"mean IoU over the classes ({percent(low)} to {percent(high)} over draws of the images), on "
            f"{plural(metrics['samples'], 'test image')}",
        ),
        [
            ("Pixels", percent(metrics["pixel_accuracy"]), "of all pixels with a class, rightly classified"),
            ("Dice", percent(metrics["mean_dice"]), "mean over the classes"),
            ("NLL", number(metrics["nll"]), "mean over pixels, nats"),
        ],
        "Classes of pixels",
        "IoU of a class is the share that is right, of the pixels that have the class or are given it.",
        ("Class", "Pixels", "Images", "IoU", "Dice", "Precision", "Recall"),
        [
            (
                label(row["class"]),
                count(row["pixels"]),
                count(row["images"]),
                *(percent(row[key]) for key in ("iou", "dice", "precision", "recall")),
            )
            for row in rows[:MOST_ROWS]
        ],
        cut=max(0, len(rows) - MOST_ROWS),
        errors=errors,
        why_no_images=why,
    )


def _fits(run: Run, truth: np.ndarray, found: np.ndarray) -> None:
    if truth.shape != found.shape or truth.ndim != 2 or truth.shape[1] != len(run.classes):
        raise RunError(
            f"{run.directory}/predictions.npz does not fit the run, which has {len(run.classes)} targets: it holds "
            f"targets {list(truth.shape)} and answers {list(found.shape)}"
        )


def _errors(
    run: Run, truth: np.ndarray, missed: np.ndarray, told: Callable[[int], tuple[str, str]]
) -> tuple[list[dict[str, Any]], str | None]:
    """The samples that were missed most, worst first, and why there are no pictures of them."""
    worst = np.argsort(-missed, kind="stable")[: _samples.MOST]
    worst = worst[missed[worst] > 0]
    images, why = None, None
    try:
        samples = run.splits.test
        if np.array_equal(samples.labels, truth, equal_nan=truth.dtype.kind == "f"):
            images = samples
        else:
            why = "The data is no longer what it was when the run was trained."
    except RepertoireError as error:
        why = f"The data cannot be read any more: {error}"
    pictures: Sequence[Any] = [None] * len(worst)
    if isinstance(images, ImageSet):
        pictures = _samples.pictures(images, worst)
    rows = []
    for i, picture in zip(worst.tolist(), pictures, strict=True):
        predicted, true = told(i)
        name = f"sample {i}" if images is None else label(images.names[i])
        rows.append({"name": name, "predicted": predicted, "true": true, "picture": picture})
    return rows, why


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(shorten(name, 30) for name in names[:most])
    return (shown + (f" and {len(names) - most} more" if len(names) > most else "")) or DASH


def scatter_chart(truth: np.ndarray, found: np.ndarray, *, description: str) -> Markup:
    """Predictions against truth with the diagonal; of many, evenly spaced ones in the order of the truth.

    Args:
        truth: `[N]`; NaN where it is unknown.
        found: `[N]`.
    """
    known = np.flatnonzero(np.isfinite(truth) & np.isfinite(found))
    order = known[np.argsort(truth[known], kind="stable")]
    if len(order) > MOST_POINTS:
        order = order[np.unique(np.linspace(0, len(order) - 1, MOST_POINTS).astype(int))]
    x, y = truth[order], found[order]
    both = np.concatenate([x, y]) if len(x) else np.zeros(1)
    grid = _figures.ticks(float(both.min()), float(both.max()))
    side, left, top, bottom = 320, 52, 10, 40
    across = _figures.Scale(grid[0], grid[-1], left, side - 10)
    up = _figures.Scale(grid[0], grid[-1], side - bottom, top)
    drawn = [_figures.horizontal(up(v), left, side - 10, number(v, 4)) for v in grid]
    drawn += [_figures.words(across(v), side - bottom + 16, number(v, 4), "tick middle") for v in grid]
    drawn.append(_figures.words((left + side) / 2, side - 4, "true", "name middle"))
    drawn.append(
        _figures.element(
            "line", class_="mark", x1=across(grid[0]), y1=up(grid[0]), x2=across(grid[-1]), y2=up(grid[-1])
        )
    )
    drawn += [
        _figures.element("circle", class_="dot main sample", cx=across(float(a)), cy=up(float(b)), r=2.4)
        for a, b in zip(x, y, strict=True)
    ]
    return _figures.svg(side, side, description, drawn)
