"""`repertoire continue`: new data and new classes for a run that is there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from repertoire.cli._options import folder_out
from repertoire.cli.train import config_parameters, fields_of, finished

__all__ = ["make_command", "outline"]

SUMMARY = "Train a run further on new data, with new classes or without, and say what it forgot."

DETAILS = f"""{SUMMARY}

DATA is a folder with a directory for each class, or a file, as for `train`; classes of the same name are the same. The
run stays as it is: its network, with a row more for each new class, is where the new run begins. Of earlier samples
only what --memory allows is trained on again, by methods that replay them. The same command goes on where it stopped.

Writes what every run has, report.html, and stages/report.html: how well each stage is known, after each.

Options of `train` are those of the run, unless they are given; epochs, batch size and learning rate are decided by the
new data."""


def outline() -> None:
    """Stands for the command in the list of commands."""


outline.__doc__ = SUMMARY


def make_command() -> Callable[..., None]:
    """The command, with an option for each field of the configuration that a further stage may have of its own."""
    from repertoire.protocols import CONTINUED

    own: list[tuple[str, Any, Any, Any]] = [
        ("run", Path, typer.Argument(help="Directory of the run that learns further.", show_default=False), ...),
        ("data", str, typer.Argument(help="The new data.", show_default=False), ...),
        (
            "by",
            str,
            typer.Option(
                "--by",
                metavar="METHOD",
                help="How: replay, supervised to see what is forgotten if nothing is done about it, or another; see "
                "'repertoire list --family continual'.",
            ),
            "replay",
        ),
        (
            "keep_samples",
            str,
            typer.Option(
                "--memory",
                metavar="SAMPLES",
                help="What may be kept of earlier samples for methods that replay them: a number of samples, or an "
                "amount such as 20MB; 0 for nothing.",
            ),
            "200",
        ),
        (
            "choose",
            str,
            typer.Option("--choose", metavar="HOW", help="Which samples are kept: reservoir, herding or typical."),
            "reservoir",
        ),
        (
            "store",
            str,
            typer.Option(
                "--store",
                metavar="FORM",
                help="In which form: whole, or patches, a random few of each image, so that there is room for more; "
                "for --by mae-cil, which draws the others.",
            ),
            "whole",
        ),
        (
            "share",
            float,
            typer.Option("--share", metavar="SHARE", help="With --store patches: the share of them that is kept."),
            0.25,
        ),
        (
            "out",
            Path | None,
            typer.Option(
                "-o",
                "--out",
                parser=folder_out,
                metavar="PATH",
                help="Directory; runs/RUN-DATA by default.",
                show_default=False,
            ),
            None,
        ),
        ("overwrite", bool, typer.Option("--overwrite", help="Begin again, whatever run lies there."), False),
        ("report", bool, typer.Option("--report/--no-report", help="Write the pages when all is over."), True),
        ("quiet", bool, typer.Option("-q", "--quiet", help="Show nothing but the result."), False),
    ]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named = [
        inspect.Parameter(n, kind, default=inspect.Parameter.empty if d is ... else d, annotation=Annotated[a, o])
        for n, a, o, d in own
    ]
    parameters = [*named, *(p for p in config_parameters() if p.name in CONTINUED)]

    def go_on(**given: Any) -> None:
        options = {name: given.pop(name) for name, *_ in own}
        _continue(options, given)

    return finished(go_on, DETAILS, parameters)


def _continue(options: dict[str, Any], given: dict[str, Any]) -> None:
    from repertoire.errors import ascii_path
    from repertoire.protocols import add_stage

    fields = fields_of(None, {**given, "data": ""})
    del fields["data"]
    if (options["run"] / "estimator.json").is_file():
        _fit_further(options, fields)
        return
    found = add_stage(
        options["run"],
        options["data"],
        by=options["by"],
        memory=options["keep_samples"],
        keep=options["choose"],
        store=options["store"],
        share=options["share"],
        out=options["out"],
        overwrite=options["overwrite"],
        quiet=options["quiet"],
        **fields,
    )
    page = None
    if options["report"]:
        from repertoire.report import write_report, write_stages

        # Before anything is printed: who reads the output may be gone.
        write_report(found.run)
        page = write_stages(found.outcome)
    typer.echo(str(found.outcome))
    for note in found.notes:
        typer.echo(f"note: {note}")
    if page is not None:
        typer.echo(f"report: {ascii_path(str(page))}")
    run = ascii_path(str(found.run.path))
    what = "FEATURES.npz" if found.run.facts.modality == "features" else "IMAGE..."
    typer.echo(f"try next: repertoire predict {run} {what}   |   repertoire continue {run} MORE/")


def _fit_further(options: dict[str, Any], fields: dict[str, Any]) -> None:
    """More rows, and more classes, for an estimator that was kept by `fit-features` or `train --learner`."""
    import numpy as np

    from repertoire.data import FeatureSet, load
    from repertoire.errors import ConfigError, DataError, RunError, ascii_path, option
    from repertoire.estimators import load_estimator, save_estimator

    model = load_estimator(options["run"])
    if not hasattr(model, "partial_fit"):
        raise ConfigError(f"{type(model).__name__} learns from everything at once, and nothing can be added to it")
    shares = {name: fields.pop(name) for name in ("seed", "val", "test") if name in fields}
    fields |= {"by": options["by"]} if options["by"] != "replay" else {}
    fields |= {"store": options["store"]} if options["store"] != "whole" else {}
    if fields:
        raise ConfigError(f"{option(next(iter(fields)))} is for networks; an estimator takes none of it")
    run, data = options["run"], options["data"]
    out = options["out"] or Path("runs") / f"{run.resolve().name}-{Path(data).stem}"
    if out.exists() and any(out.iterdir()) and not options["overwrite"]:
        raise RunError(f"{ascii_path(str(out))} holds something; replace it: --overwrite, or choose another --out")
    splits = load(data, single=True, **shares)
    if not isinstance(splits.train, FeatureSet) or splits.kind != "classes":
        raise DataError(f"{ascii_path(data)} holds no features with a class each: embed images first: repertoire embed")
    if splits.train.shape[0] != model.n_features_in_:
        raise DataError(
            f"{ascii_path(data)} has features of width {splits.train.shape[0]}, and the estimator was fitted to "
            f"{model.n_features_in_}: embed the new data with the same network"
        )
    names = np.array(splits.classes)
    for part in (splits.train, splits.val):
        rows = part.subset(np.flatnonzero(part.known))
        if len(rows):
            model.partial_fit(rows.inputs(slice(None)), names[rows.labels])
    save_estimator(model, out)
    truth = names[splits.test.labels]
    right = float((model.predict(splits.test.inputs(slice(None))) == truth).mean())
    typer.echo(f"test accuracy on the new data, among all {len(model.classes_)} classes: {right:.1%}")
    typer.echo(f"kept: {ascii_path(str(out))}")
    typer.echo(f"try next: repertoire fit-features MORE.npz --fitted {ascii_path(str(out))}")
