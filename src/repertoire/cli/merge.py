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
    operator: Annotated[
        str, typer.Option("--operator", help="How; see 'repertoire list weight-operators'.")
    ] = "greedy-soup",
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    report: Annotated[bool, typer.Option(help="Write the report.")] = True,
) -> None:
    """Merge the weights of several runs of one network into one run.

    For runs that started from the same weights. The result costs no more to use than one of them.
    """
    from repertoire.errors import ascii_path
    from repertoire.train import RunDirectory
    from repertoire.train import merge as merge_runs

    # Before the runs are opened: what comes of them takes minutes.
    RunDirectory(out).check_free()

    merged = merge_runs(runs, out, operator=operator, device=device, plugins=tuple(plugin or ()))
    made = merged.info["merged"]
    for number, (path, value) in enumerate(zip(runs, made["before"], strict=True)):
        used = "" if number in made["ingredients"] else "  (left out)"
        typer.echo(f"validation {made['key']} {value:.4f}  {ascii_path(str(path))}{used}")
    typer.echo(f"validation {made['key']} {made['after']:.4f}  {ascii_path(str(out))}, by {operator}")
    typer.echo(f"test {made['key']} {merged.metrics[made['key']]:.4f}")
    if report:
        from repertoire.report import write_report

        typer.echo(f"report: {write_report(merged)}")
