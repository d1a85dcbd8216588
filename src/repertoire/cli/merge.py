"""`repertoire merge`: several runs into one, by their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli._options import DeviceOption, PluginOption, folder_out

__all__ = ["merge"]


def merge(
    runs: Annotated[list[Path], typer.Argument(help="Directories of two runs or more.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", parser=folder_out, metavar="PATH", help="Directory of the new run.", show_default=False
        ),
    ],
    by: Annotated[
        str, typer.Option("--by", "--operator", help="How; see 'repertoire list weight-operators'.")
    ] = "greedy-soup",
    base: Annotated[
        Path | None,
        typer.Option(
            help="The run that all of them started from, for operators on what was changed since.",
            show_default="found out",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Images to measure the result on, and to merge by; needed where the runs have other classes.",
            show_default="that of the runs",
        ),
    ] = None,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    report: Annotated[bool, typer.Option(help="Write the report.")] = True,
) -> None:
    """Merge the weights of several runs of one network into one run.

    For runs that started from the same weights, unless the operator matches their units. Runs of other classes become
    one that knows the classes of all. The result costs no more to use than one of them, where its form is the same.
    """
    from repertoire.errors import ascii_path
    from repertoire.train import merge as merge_runs

    merged = merge_runs(runs, out, operator=by, base=base, data=data, device=device, plugins=tuple(plugin or ()))
    made = merged.info["merged"]
    for number, (path, value) in enumerate(zip(runs, made["before"], strict=True)):
        used = "" if number in made["ingredients"] else "  (left out)"
        typer.echo(f"validation {made['key']} {value:.4f}  {ascii_path(str(path))}{used}")
    typer.echo(f"validation {made['key']} {made['after']:.4f}  {ascii_path(str(out))}, by {by}")
    for part in made.get("parts", ()):
        name = ascii_path(part["run"])
        typer.echo(f"test accuracy among the classes of {name}: {part['alone']:.4f} alone, {part['merged']:.4f} merged")
    typer.echo(f"test {made['key']} {merged.metrics[made['key']]:.4f}")
    if report:
        from repertoire.report import write_report

        typer.echo(f"report: {write_report(merged)}")
