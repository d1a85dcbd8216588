"""`repertoire evaluate`: how good a run's model is on labelled images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from repertoire.train import Run

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
    unknown: Annotated[
        Path | None,
        typer.Option(
            "--unknown",
            metavar="PATH",
            help="Images of other classes, a folder or, of a run on features, a file: measure how well they are told "
            "from known ones.",
            show_default=False,
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            metavar="LIST",
            help="Novelty scores to compare, such as costarr,energy,knn; see 'repertoire list novelty-scores'. Without "
            "--unknown, on the run's own classes, held out in turn.",
            show_default=False,
        ),
    ] = None,
    tta: TtaOption = False,
    ensemble: EnsembleOption = None,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    skip_unreadable: SkipOption = None,
) -> None:
    """Print accuracy, calibration and a row per class, and write metrics.json. With --probe, those of the features.

    With --unknown OTHER/ or --score LIST, how well scores tell known classes from others: AUROC, the share of unknown
    images that pass where 95 % of the known ones do (FPR95), OSCR, and risk over coverage; novelty.html shows how the
    scores of both are distributed, and the threshold. A run without classes, on normal images alone, can be asked too.
    """
    from repertoire import registry
    from repertoire.cli._options import open_runs
    from repertoire.errors import ConfigError, ascii_path
    from repertoire.files import write_json
    from repertoire.train import Folds

    if (novel := unknown is not None or score is not None) and (probe is not None or tta or ensemble):
        raise ConfigError("novelty scores look at one network once; leave out --probe, --tta and --ensemble")
    scores = tuple(registry.split(score)) if score is not None else ()
    for spec in scores:
        registry.get("novelty-scores", registry.parse(spec).name)  # a typo is answered before anything is read
    if unknown is not None and not unknown.exists():
        raise ConfigError(f"--unknown is {unknown}, which does not exist")
    opened, answering = open_runs(run, ensemble, device, plugin)
    if novel and answering is not opened:
        raise ConfigError(f"novelty scores look at one network; name one of the runs in {run}")
    if probe is not None and (tta or answering is not opened):
        raise ConfigError("--probe scores the features of one run; leave out --tta and --ensemble")
    if data is not None and _learned_from(opened, data):
        typer.echo(
            f"note: the run was trained on most of {ascii_path(data)}, and its figures there say how well that is "
            f"remembered; on its own test part: repertoire evaluate {ascii_path(str(run))}",
            err=True,
        )
    if probe is not None:
        metrics = opened.probe(probe.value, data)
    elif novel:
        metrics = opened.novelty(_others(opened, unknown), data, scores, skip_unreadable=skip_unreadable)
    else:
        metrics = answering.evaluate(data, tta=tta, skip_unreadable=skip_unreadable)
        if registry.parse(opened.config.rule).name == "local" and answering is opened and opened.task.kind == "classes":
            metrics.update(opened.exit_curve(data, skip_unreadable=skip_unreadable))
    folds = answering if isinstance(answering, Folds) else None
    name = "test" if data is None else Path(data).resolve().stem or "data"
    kinds = {probe.value if probe else "": bool(probe), "tta": tta, "ensemble": bool(ensemble), "novelty": novel}
    parts = ["evaluation", name, *(kind for kind, given in kinds.items() if given)]
    target = out or _free(opened.path if folds is None else folds.path, "-".join(parts)) / "metrics.json"
    write_json(target, metrics)
    opened.directory.record(target)
    if folds is not None and data is None:
        typer.echo(
            "of all runs together, on the test part of the source"
            if folds.summary.get("held_out")
            else "each sample by the run that was not trained on it"
        )
    page = None
    if novel and unknown is not None:
        from repertoire.report import write_novelty

        page = target.with_suffix(".html") if out else target.with_name("novelty.html")
        source = f"{opened.path.name}: {name} and {unknown.name}"
        write_novelty(page, metrics, source=source, noun=f"{opened.noun}s")
        opened.directory.record(page)
    if novel:
        _print_novelty(metrics, f"{opened.noun}s")
    else:
        print_metrics(metrics, f"{opened.noun}s")
    typer.echo(f"metrics: {target}")
    if page is not None:
        typer.echo(f"figures: {page}")


def _learned_from(run: Run, data: str) -> bool:
    """Whether a path is that of the data of a run."""
    own = run.config.data
    return os.path.exists(data) and os.path.exists(own) and os.path.samefile(data, own)


def _others(run: Run, unknown: Path | None) -> Any:
    """Images of other classes, as `Run.novelty` takes them."""
    from repertoire.cli._inputs import image_paths
    from repertoire.data import load_feature_set

    if unknown is None:
        return None
    # Their own classes are none of the run's, so nothing is asked of them.
    return load_feature_set(unknown) if run.facts.modality == "features" else image_paths([str(unknown)])


def _print_novelty(metrics: dict[str, Any], noun: str) -> None:
    """Prints a row for each score, and why some have none."""
    usable = [row for row in metrics["scores"] if "reason" not in row]
    if "groups" in metrics:
        _table(
            [
                ("score", "AUROC", "95 % interval"),
                *((row["score"], f"{row['auroc']:.3f}", _span(row["interval"])) for row in usable),
            ]
        )
        typer.echo(
            f"best on classes that were held out, {len(metrics['groups'])} times: {metrics['best']}; the network has "
            "learned these, so truly unknown ones will be told less well"
        )
    else:
        heads, cells = _columns(metrics, usable)
        _table([("score", *heads), *((row["score"], *each) for row, each in zip(usable, cells, strict=True))])
        accuracy = f", accuracy {metrics['accuracy']:.1%}," if "accuracy" in metrics else ""
        typer.echo(
            f"{metrics['known']} known {noun}{accuracy} and {metrics['unknown']} unknown ones; of AUROC "
            + ("and OSCR more is better, of the others less" if accuracy else "more is better, of FPR95 less")
        )
    for row in metrics["scores"]:
        if "reason" in row:
            typer.echo(f"{row['score']}: not used: {row['reason']}")


def _columns(metrics: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads of the table of scores, and a row of cells for each; a run without classes has no right answers."""
    shares = [(i, share) for i, share in enumerate(metrics["coverages"]) if share in (0.4, 0.8)]
    heads = ["AUROC", "95 % interval", "FPR95", "95 % interval"]
    if "accuracy" in metrics:
        heads += ["OSCR", "AURC", *(f"risk at {share:.0%}" for _, share in shares)]
    cells = []
    for row in rows:
        spans = row["intervals"]
        found = [f"{row['auroc']:.3f}", _span(spans["auroc"]), f"{row['fpr95']:.3f}", _span(spans["fpr95"])]
        if "accuracy" in metrics:
            found += [f"{row['oscr']:.3f}", f"{row['aurc']:.3f}", *(f"{row['risk'][i]:.1%}" for i, _ in shares)]
        cells.append(found)
    return heads, cells


def _span(interval: Sequence[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


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
