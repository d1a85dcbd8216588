"""`repertoire report`: the page that explains a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli._options import DeviceOption, PluginOption, RunArgument

__all__ = ["report"]


def report(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file; RUN/report.html by default.", show_default=False)
    ] = None,
    device: DeviceOption = "cpu",
    plugin: PluginOption = None,
) -> None:
    """Write the report of a run: one HTML file that opens offline."""
    from repertoire.cli._options import open_run

    typer.echo(f"report: {open_run(run, device, plugin).report(out)}")
