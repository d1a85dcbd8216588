"""`repertoire export`: a run's model for use elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli.predict import RunArgument

__all__ = ["export"]


class ExportFormat(StrEnum):
    onnx = "onnx"
    torchscript = "torchscript"
    pt2 = "pt2"


def export(
    run: RunArgument,
    format: Annotated[ExportFormat, typer.Option(help="What to write.")] = ExportFormat.onnx,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file; in RUN by default.", show_default=False)
    ] = None,
) -> None:
    """Write the model as ONNX, TorchScript or a torch.export program, and check it against the model."""
    from repertoire.train import export as export_run
    from repertoire.train import load

    typer.echo(f"exported and checked: {export_run(load(run), format.value, out)}")
