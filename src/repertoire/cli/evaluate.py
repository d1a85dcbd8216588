"""`repertoire evaluate`: how good a run's model is on labelled images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from repertoire.cli.predict import RunArgument

__all__ = ["evaluate"]


class ProbeKind(StrEnum):
    """What is fitted to frozen features."""

    knn = "knn"
    linear = "linear"


def evaluate(
    run: RunArgument,
    data: Annotated[
        str | None,
        typer.Argument(
            help="A folder with a directory per class; the run's own test images if left out.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Where to write the metrics as JSON.", show_default=False)
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
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Go on without images that cannot be used.")
    ] = False,
) -> None:
    """Print accuracy, calibration and a row per class, and write metrics.json. With --probe, those of the features."""
    from repertoire import registry
    from repertoire.data import load_folder_set
    from repertoire.errors import DataError, ascii_path
    from repertoire.files import write_json
    from repertoire.train import load

    opened = load(run)
    if data is None:
        images, name = opened.splits.test, "test"
    else:
        if not Path(data).is_dir():
            raise DataError(
                f"{ascii_path(data)} is not a folder; name one with a directory per class, or leave it out for the "
                "run's own test images"
            )
        images = load_folder_set(data, classes=opened.classes, skip_unreadable=skip_unreadable, **opened.reading)
        name = Path(data).resolve().name or "data"
    if probe is not None:
        metrics = opened.probe(probe.value, images)
    else:
        metrics = opened.evaluate(images)
        if registry.parse(opened.config.rule).name == "local":
            metrics.update(opened.exit_curve(images))
    stem = f"evaluation-{name}" if probe is None else f"evaluation-{name}-{probe}"
    target = out or _free(opened.path, stem) / "metrics.json"
    write_json(target, metrics)
    _print(metrics)
    typer.echo(f"metrics: {target}")


def _free(folder: Path, stem: str) -> Path:
    """`folder/stem`, or with the first number after it that is free: an evaluation replaces no other."""
    path, number = folder / stem, 2
    while path.exists():
        path, number = folder / f"{stem}-{number}", number + 1
    return path


def _print(metrics: dict[str, Any]) -> None:
    from repertoire.errors import ascii_path

    rows = [("class", "images", "accuracy", "95 % interval", "precision")]
    for row in metrics["per_class"]:
        low, high = row["interval"]
        seen = row["accuracy"] is not None
        rows.append(
            (
                ascii_path(row["class"]),
                str(row["images"]),
                f"{row['accuracy']:.1%}" if seen else "-",
                f"{low:.1%} to {high:.1%}" if seen else "-",
                f"{row['precision']:.1%}" if row["precision"] is not None else "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        typer.echo(
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        )
    low, high = metrics["accuracy_interval"]
    if "probe" in metrics:
        _print_probe(metrics["probe"])
    typer.echo(
        f"accuracy {metrics['accuracy']:.1%} ({low:.1%} to {high:.1%}) on {metrics['images']} images, "
        f"balanced {metrics['balanced_accuracy']:.1%}, macro F1 {metrics['macro_f1']:.3f}, "
        f"NLL {metrics['nll']:.3f}, ECE {metrics['ece']:.3f}"
    )
    if "exits" in metrics:
        _print_exits(metrics)


def _print_probe(probe: dict[str, Any]) -> None:
    fitted = f"frozen features of {probe['trained_on']} training images"
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
