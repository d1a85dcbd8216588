"""`repertoire report`: the page that explains a run, the stages of a protocol, or self-training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli._options import DeviceOption, PluginOption, RunArgument, file_out

__all__ = ["report"]


def report(
    run: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            parser=file_out,
            metavar="PATH",
            help="The file; RUN/report.html by default.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = "cpu",
    plugin: PluginOption = None,
) -> None:
    """Write the report of a run, or of a directory of stages or of self-training: one HTML file that opens offline."""
    from repertoire.cli._options import open_run

    if (run / "outcome.json").is_file():
        from repertoire.protocols import Outcome
        from repertoire.report import write_stages

        typer.echo(f"report: {write_stages(Outcome.read(run), out)}")
        return
    if (run / "self-train.json").is_file():
        from repertoire.report import write_self_training
        from repertoire.train import SelfTraining

        typer.echo(f"report: {write_self_training(SelfTraining.read(run), out)}")
        return
    typer.echo(f"report: {open_run(run, device, plugin).report(out)}")
    if out is None and (run / "stages" / "outcome.json").is_file():
        from repertoire.protocols import Outcome
        from repertoire.report import write_stages

        typer.echo(f"report of its stages: {write_stages(Outcome.read(run / 'stages'))}")
