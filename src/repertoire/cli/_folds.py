"""`repertoire train --folds`: cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from repertoire.train import Folds

__all__ = ["go_on_with_folds", "train_in_folds"]

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "top5_accuracy": "top-5 accuracy",
    "mean_average_precision": "mean average precision",
    "micro_f1": "micro F1",
    "exact_match": "all labels right",
    "mae": "mean absolute error",
    "rmse": "RMSE",
    "r2": "R2",
    "spearman": "rank correlation",
    "nll": "NLL",
    "ece": "calibration error",
}
"""What is shown of the metrics, in this order."""

_IN_PER_CENT = {"accuracy", "balanced_accuracy", "top5_accuracy", "mean_average_precision", "exact_match"}


def train_in_folds(run_options: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Trains a run for each fold, and prints what they say together.

    Raises:
        ConfigError: an option that is for one run.
    """
    from repertoire.errors import ConfigError
    from repertoire.recipe import make_config
    from repertoire.train import fit_folds

    if run_options["overwrite"]:
        raise ConfigError(
            "with --folds the same command goes on with what is not finished; leave --overwrite out, or choose another "
            "--out"
        )
    _show(
        fit_folds(
            folds=run_options["folds"],
            config=make_config(**fields),
            out=run_options["out"],
            quiet=run_options["quiet"],
            record={"report": False},
        ),
        with_report=run_options["report"] is not False,
    )


def go_on_with_folds(run_options: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Goes on with the folds in a directory, and prints what they say together.

    Raises:
        ConfigError: an option that is for a new run.
    """
    from repertoire.errors import ConfigError
    from repertoire.train import resume_folds

    other = sorted(chosen.keys() - {"plugins"})
    other += [name for name in ("config", "out", "protocol", "folds", "overwrite") if run_options[name]]
    if other:
        named = ", ".join("--" + name.replace("_", "-") for name in other)
        raise ConfigError(
            f"--resume goes on with folds as they were configured and takes no other options, found {named}"
        )
    plugins = tuple(chosen.get("plugins", ()))
    _show(
        resume_folds(run_options["resume"], quiet=run_options["quiet"], plugins=plugins),
        with_report=run_options["report"] is not False,
    )


def _show(folds: Folds, *, with_report: bool) -> None:
    from repertoire.cli._listing import print_table
    from repertoire.errors import ascii_path

    written = None
    if with_report:
        from repertoire.report import write_folds

        written = write_folds(folds)
    summary = folds.summary
    count = summary["folds"]
    header = ["metric", *(f"fold {number + 1}" for number in range(min(count, 6))), *["..."] * (count > 6)]
    rows = []
    for name, title in TITLES.items():
        if name in summary["metrics"]:
            row = summary["metrics"][name]
            low, high = row["interval"]
            shown = [_written(name, value) for value in row["values"][:6]] + ["..."] * (count > 6)
            rows.append(
                [title, *shown, f"{_written(name, row['mean'])} ({_written(name, low)} to {_written(name, high)})"]
            )
    print_table([*header, "mean (95 % interval)"], rows)
    noun = folds.runs[0].noun
    pooled = summary["out_of_fold"]
    typer.echo(
        f"{pooled.get('images', pooled.get('samples'))} {noun}s, each tested once, by a run that had not seen it"
    )
    if summary["held_out"]:
        shown = [
            f"{title} {_written(name, summary['held_out'][name])}"
            for name, title in TITLES.items()
            if summary["held_out"].get(name) is not None
        ]
        typer.echo(f"all runs together, on the test part of the source: {', '.join(shown[:2])}")
    shown_path = ascii_path(str(folds.path))
    typer.echo(f"numbers: {shown_path}/summary.json   |   every answer: {shown_path}/predictions.csv")
    if written is not None:
        typer.echo(f"report: {ascii_path(str(written))}")
    if noun == "image":
        typer.echo(f"try next: repertoire predict {shown_path} IMAGE...   (the mean of all {count} runs)")


def _written(name: str, value: float) -> str:
    return f"{value:.1%}" if name in _IN_PER_CENT else f"{value:.4g}"
