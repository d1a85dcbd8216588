"""`repertoire compare`: a grid of configurations with paired seeds, and what they differ by."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repertoire.cli._listing import print_table
from repertoire.cli._options import folder_out
from repertoire.cli.train import config_parameters, fields_of, finished, input_parameters

if TYPE_CHECKING:
    from repertoire.compare import Comparison, Row

__all__ = ["make_command", "outline"]

SUMMARY = "Compare configurations on the same images with the same seeds."

DETAILS = f"""{SUMMARY}

Every value of a field that varies is combined with every value of the others, and each configuration is trained with
each seed. The first value of each field is the baseline. A value with several options goes in parentheses:
--vary 'rule=backprop,(local:blocks=4,auxiliary=linear)'. All options of `train` say what the configurations share. The
same command goes on with what is not finished; with more values or seeds it adds to it.
Ends with status 0; 1 if some runs failed; 2 if nothing could be run."""


def outline() -> None:
    """Stands for the command in the list of commands."""


outline.__doc__ = SUMMARY


def make_command() -> Callable[..., None]:
    """The command, with an option for each field of the configuration."""
    own: list[tuple[str, Any, Any, Any]] = [
        ("vary", list[str] | None, _option("--vary", "FIELD=VALUE,VALUE,...; again for another field."), None),
        ("seeds", int, _option("--seeds", "Runs of each configuration; the first has the seed of --seed."), 5),
        (
            "baseline",
            list[str] | None,
            _option("--baseline", "FIELD=VALUE of the baseline, where that is not the first value."),
            None,
        ),
        (
            "metric",
            str,
            _option(
                "--metric",
                "accuracy, balanced_accuracy, macro_f1, nll, ece or val_accuracy; mean_average_precision of several "
                "labels, mae of numbers, miou of maps.",
            ),
            "accuracy",
        ),
        (
            "search",
            list[str] | None,
            _option("--search", "FIELD=LOW..HIGH, LOW..HIGH:log or VALUE,VALUE: searched for every configuration."),
            None,
        ),
        ("trials", int, _option("--trials", "Trials of each configuration, with --search."), 8),
        (
            "out",
            Path | None,
            typer.Option(
                "-o",
                "--out",
                parser=folder_out,
                metavar="PATH",
                help="Directory; comparisons/NAME-1 or the next number by default.",
            ),
            None,
        ),
        ("jobs", int | None, _option("--jobs", "Runs at once; by default one a core, and one on a GPU."), None),
        ("threads", int, _option("--threads", "Threads of each run."), 1),
        ("backend", str, _option("--backend", "loky (this machine), ray or dask (a cluster)."), "loky"),
        (
            "report",
            bool,
            typer.Option("--report/--no-report", help="Write report.html when all runs are over."),
            True,
        ),
        ("json", bool, _option("--json", "Print everything as JSON instead of a table."), False),
        ("quiet", bool, typer.Option("-q", "--quiet", help="Show nothing but the result."), False),
    ]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        *input_parameters(),
        *(inspect.Parameter(n, kind, default=d, annotation=Annotated[a, o]) for n, a, o, d in own),
        *config_parameters(),
    ]

    def compare(**given: Any) -> None:
        options = {name: given.pop(name) for name in ("config", *(name for name, *_ in own))}
        _compare(options, given)

    return finished(compare, DETAILS, parameters)


def _option(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text)


def _compare(options: dict[str, Any], given: dict[str, Any]) -> None:
    from repertoire.compare import compare, parse_assignments

    found = compare(
        **fields_of(options["config"], given),
        vary=parse_assignments(options["vary"] or (), "--vary"),
        seeds=options["seeds"],
        baseline=parse_assignments(options["baseline"] or (), "--baseline"),
        metric=options["metric"],
        search=parse_assignments(options["search"] or (), "--search"),
        trials=options["trials"],
        out=options["out"],
        jobs=options["jobs"],
        threads=options["threads"],
        backend=options["backend"],
        quiet=options["quiet"],
    )
    page = None
    if options["report"]:
        from repertoire.report import write_comparison

        page = write_comparison(found)
    if options["json"]:
        typer.echo(found.to_json())
    else:
        _show(found)
        if page is not None:
            typer.echo(f"report: {page}")
    if found.failures:
        raise typer.Exit(1)


def _show(found: Comparison) -> None:
    searched = any(row.found for row in found.table)
    header = ["configuration", "runs", f"{found.metric.title} (95 % interval)", "difference (95 % interval)"]
    header += ["adjusted p", "time", "memory"] + (["found"] if searched else [])
    print_table(header, [_cells(found, row, searched) for row in found.table])
    typer.echo("")
    for sentence in found.sentences:
        typer.echo(sentence)


def _cells(found: Comparison, row: Row, searched: bool) -> list[str]:
    metric = found.metric
    mean = metric.value(row.mean) + (f" ({metric.span(*row.interval)})" if row.interval else "")
    difference = "baseline" if row.verdict == "baseline" else "–"
    if row.difference is not None:
        difference = metric.difference(row.difference, sign=True)
    if row.difference_interval is not None:
        difference += f" ({metric.differences(*row.difference_interval, sign=True)})"
    cells = [
        row.label,
        f"{len(row.values)}/{len(row.runs)}",
        mean,
        difference,
        "–" if row.p_adjusted is None else f"{row.p_adjusted:.3f}",
        "–" if row.seconds is None else f"{row.seconds:.1f} s",
        "–" if row.memory is None else f"{row.memory / 2**20:,.0f} MiB",
    ]
    return cells + ([", ".join(f"{k}={v}" for k, v in row.found.items())] if searched else [])
