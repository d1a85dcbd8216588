"""`repertoire self-train`: a student of what a run is surest of in a pool without labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from repertoire.cli._options import folder_out
from repertoire.cli.train import config_parameters, fields_of, finished

__all__ = ["make_command", "outline"]

SUMMARY = "Train a student on what a run is surest of in a pool without labels, and then on the labels."

DETAILS = f"""{SUMMARY}

Every class takes the images of the pool that the run scores highest for it; the student learns these first, and the
run's own labelled images, alone, then. A third run, of the labels alone for as many steps, says whether the pool
helped (--no-labels-alone leaves it out). The same command goes on where it was stopped.

POOL is a folder of images, however they lie in it; of a run on features, a file of these. Options of `train` are those
of the student; what is not given is the run's, or is decided anew."""


def outline() -> None:
    """Stands for the command in the list of commands."""


outline.__doc__ = SUMMARY


def make_command() -> Callable[..., None]:
    """The command, with an option for each field of the configuration that a student may have of its own."""
    from repertoire.train import STUDENT

    own: list[tuple[str, Any, Any, Any]] = [
        ("teacher", Path, typer.Argument(help="Directory of the run that chooses.", show_default=False), ...),
        ("pool", str, typer.Argument(help="A folder of images, or a file of features.", show_default=False), ...),
        ("top", int, _option("--top", "Images of the pool that each class takes."), 200),
        (
            "most",
            int,
            _option("--most", "Classes of each image that count, the likeliest first; with 1 no two take the same."),
            10,
        ),
        (
            "finetune_epochs",
            int | None,
            _option("--finetune-epochs", "Passes over the labels in the end; by default as with --start."),
            None,
        ),
        (
            "finetune_lr",
            float | None,
            _option("--finetune-lr", "Learning rate on the labels; by default as with --start."),
            None,
        ),
        (
            "labels_alone",
            bool,
            typer.Option(
                "--labels-alone/--no-labels-alone", help="Also train a student on the labels alone, to compare with."
            ),
            True,
        ),
        (
            "out",
            Path | None,
            typer.Option(
                "-o",
                "--out",
                parser=folder_out,
                metavar="PATH",
                help="Directory; runs/NAME-self-trained by default.",
                show_default=False,
            ),
            None,
        ),
        (
            "report",
            bool,
            typer.Option("--report/--no-report", help="Write report.html when all is over."),
            True,
        ),
        ("quiet", bool, typer.Option("-q", "--quiet", help="Show nothing but the result."), False),
    ]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named = [
        inspect.Parameter(n, kind, default=inspect.Parameter.empty if d is ... else d, annotation=Annotated[a, o])
        for n, a, o, d in own
    ]
    parameters = [*named, *(p for p in config_parameters() if p.name in STUDENT)]

    def self_train(**given: Any) -> None:
        options = {name: given.pop(name) for name, *_ in own}
        _self_train(options, given)

    return finished(self_train, DETAILS, parameters)


def _option(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text, show_default=True)


def _self_train(options: dict[str, Any], given: dict[str, Any]) -> None:
    from repertoire.errors import ascii_path
    from repertoire.train import self_train

    fields = fields_of(None, {**given, "data": ""})
    del fields["data"]
    with_report = options.pop("report")
    found = self_train(options.pop("teacher"), options.pop("pool"), **options, **fields)
    page = None
    if with_report:
        from repertoire.report import write_report, write_self_training

        # Before anything is printed: who reads the output may be gone.
        write_report(found.run)
        page = write_self_training(found)
    typer.echo(str(found))
    if page is not None:
        typer.echo(f"report: {ascii_path(str(page))}")
    typer.echo(f"what each class took: {ascii_path(str(found.path / 'chosen.csv'))}")
    run = ascii_path(str(found.run.path))
    what = "FEATURES.npz" if found.run.facts.modality == "features" else "IMAGE..."
    typer.echo(f"try next: repertoire predict {run} {what}   |   repertoire evaluate {run}")
