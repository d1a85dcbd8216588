"""`repertoire evaluate`: how good a run's model is on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from repertoire.cli._options import (
    DeviceOption,
    EnsembleOption,
    PluginOption,
    RunArgument,
    SkipOption,
    TtaOption,
    file_out,
)

__all__ = ["evaluate", "print_metrics"]


class ProbeKind(StrEnum):
    """Classifier that is fitted to frozen features."""

    knn = "knn"
    linear = "linear"


def evaluate(
    run: RunArgument,
    data: Annotated[
        str | None,
        typer.Argument(
            help="A folder with a directory per class, a .csv file of paths and labels, or of a run on features a file "
            "of these; the run's own test images if left out.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            parser=file_out,
            metavar="PATH",
            help="Where to write the metrics as JSON.",
            show_default=False,
        ),
    ] = None,
    probe: Annotated[
        ProbeKind | None,
        typer.Option(
            "--probe",
            help="Score the features in place of the classifier: fit nearest neighbours or a linear classifier to the "
            "training images, and evaluate that.",
            show_default=False,
        ),
    ] = None,
    tta: TtaOption = False,
    ensemble: EnsembleOption = None,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    skip_unreadable: SkipOption = None,
) -> None:
    """Print accuracy, calibration and a row per class, and write metrics.json. With --probe, those of the features."""
    from repertoire import registry
    from repertoire.cli._options import open_runs
    from repertoire.errors import ConfigError
    from repertoire.files import write_json
    from repertoire.train import Folds

    opened, answering = open_runs(run, ensemble, device, plugin)
    if probe is not None and (tta or answering is not opened):
        raise ConfigError("--probe scores the features of one run; leave out --tta and --ensemble")
    if probe is not None:
        metrics = opened.probe(probe.value, data)
    else:
        metrics = answering.evaluate(data, tta=tta, skip_unreadable=skip_unreadable)
        if registry.parse(opened.config.rule).name == "local" and answering is opened and opened.task.kind == "classes":
            metrics.update(opened.exit_curve(data, skip_unreadable=skip_unreadable))
    folds = answering if isinstance(answering, Folds) else None
    name = "test" if data is None else Path(data).resolve().stem or "data"
    parts = ["evaluation", name, *([probe.value] if probe else []), *["tta"] * tta, *["ensemble"] * bool(ensemble)]
    target = out or _free(opened.path if folds is None else folds.path, "-".join(parts)) / "metrics.json"
    write_json(target, metrics)
    opened.directory.record(target)
    if folds is not None and data is None:
        typer.echo(
            "of all runs together, on the test part of the source"
            if folds.summary.get("held_out")
            else "each sample by the run that was not trained on it"
        )
    print_metrics(metrics, f"{opened.noun}s")
    typer.echo(f"metrics: {target}")


def _free(folder: Path, stem: str) -> Path:
    """`folder/stem`, or with the first number after it that is free: an evaluation replaces no other."""
    path, number = folder / stem, 2
    while path.exists():
        path, number = folder / f"{stem}-{number}", number + 1
    return path


WIDEST = 40
"""Characters of a name in a table."""


def print_metrics(metrics: dict[str, Any], noun: str = "images") -> None:
    """Prints what a task's score holds: a table and a line.

    Args:
        metrics: of `Run.evaluate`.
        noun: what the samples are called: images or vectors.
    """
    if "per_label" in metrics:
        _print_labels(metrics, noun)
    elif "per_region" in metrics:
        _print_regions(metrics)
    elif "per_number" in metrics:
        _print_numbers(metrics, noun)
    elif "per_class" in metrics:
        _print_classes(metrics, noun)
    else:
        scalars = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        typer.echo(", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in scalars.items()))


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    from repertoire.errors import ascii_path

    names = [ascii_path(row[0]) for row in rows]
    names = [name if len(name) <= WIDEST else name[: WIDEST - 1] + "…" for name in names]
    widths = [max(len(row[column]) for row in rows) for column in range(1, len(rows[0]))]
    first = max(map(len, names))
    for name, row in zip(names, rows, strict=True):
        typer.echo("  ".join([name.ljust(first), *(cell.rjust(w) for cell, w in zip(row[1:], widths, strict=True))]))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _print_classes(metrics: dict[str, Any], noun: str) -> None:
    rows = [("class", noun, "accuracy", "95 % interval", "precision")]
    for row in metrics["per_class"]:
        low, high = row["interval"]
        span = f"{low:.1%} to {high:.1%}" if row["accuracy"] is not None else "-"
        rows.append((row["class"], str(row["images"]), _share(row["accuracy"]), span, _share(row["precision"])))
    _table(rows)
    low, high = metrics["accuracy_interval"]
    if "probe" in metrics:
        _print_probe(metrics["probe"], noun)
    top5 = f", top-5 {metrics['top5_accuracy']:.1%}" if "top5_accuracy" in metrics else ""
    typer.echo(
        f"accuracy {metrics['accuracy']:.1%} ({low:.1%} to {high:.1%}) on {metrics['images']} {noun}{top5}, "
        f"balanced {metrics['balanced_accuracy']:.1%}, macro F1 {metrics['macro_f1']:.3f}, "
        f"NLL {metrics['nll']:.3f}, ECE {metrics['ece']:.3f}"
    )
    if "exits" in metrics:
        _print_exits(metrics)


def _print_labels(metrics: dict[str, Any], noun: str) -> None:
    rows = [("label", noun, "with it", "AP", "AUROC", "precision", "recall", "F1")]
    for row in metrics["per_label"]:
        shares = (_share(row[key]) for key in ("average_precision", "auroc", "precision", "recall", "f1"))
        rows.append((row["label"], str(row["samples"]), str(row["positives"]), *shares))
    _table(rows)
    typer.echo(
        f"mean average precision {_share(metrics['mean_average_precision'])} on {metrics['samples']} {noun}, "
        f"micro F1 {metrics['micro_f1']:.3f}, all labels right {metrics['exact_match']:.1%}, NLL {metrics['nll']:.3f}"
    )


def _print_numbers(metrics: dict[str, Any], noun: str) -> None:
    rows = [("number", noun, "MAE", "RMSE", "bias", "R2", "Spearman")]
    for row in metrics["per_number"]:
        values = (_number(row[key]) for key in ("mae", "rmse", "bias", "r2", "spearman"))
        rows.append((row["number"], str(row["samples"]), *values))
    _table(rows)
    typer.echo(
        f"mean absolute error {_number(metrics['mae'])}, R2 {_number(metrics['r2'])} on {metrics['samples']} {noun}"
    )


def _print_regions(metrics: dict[str, Any]) -> None:
    rows = [("class", "pixels", "images", "IoU", "Dice", "precision", "recall")]
    for row in metrics["per_region"]:
        shares = (_share(row[key]) for key in ("iou", "dice", "precision", "recall"))
        rows.append((row["class"], str(row["pixels"]), str(row["images"]), *shares))
    _table(rows)
    low, high = metrics["miou_interval"]
    typer.echo(
        f"mean IoU {metrics['miou']:.1%} ({low:.1%} to {high:.1%}) on {metrics['samples']} images, Dice "
        f"{metrics['mean_dice']:.1%}, pixels {metrics['pixel_accuracy']:.1%}, NLL {metrics['nll']:.3f}"
    )


def _print_probe(probe: dict[str, Any], noun: str) -> None:
    fitted = f"frozen features of {probe['trained_on']} training {noun}"
    if probe["kind"] == "knn":
        typer.echo(f"probe: weighted vote of the {probe['neighbours']} nearest of the {fitted}, by cosine")
    else:
        typer.echo(f"probe: logistic regression on the {fitted}")


def _print_exits(metrics: dict[str, Any]) -> None:
    for row in metrics["exits"]:
        where = f"exit {row['block']} after {row['last_unit']}"
        typer.echo(f"{where}: accuracy {row['accuracy']:.1%} for {row['work']:.2f} of the work")
    for row in metrics["early_exit"]:
        where = f"--early-exit {row['confidence']}"
        typer.echo(f"{where}: accuracy {row['accuracy']:.1%} for {row['work']:.2f} of the work on average")
