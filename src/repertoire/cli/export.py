"""`repertoire export`: a run's model for use elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from repertoire.cli._options import PluginOption, RunArgument, file_out

__all__ = ["export"]


class ExportFormat(StrEnum):
    """Format of an exported model."""

    onnx = "onnx"
    torchscript = "torchscript"
    pt2 = "pt2"
    backbone = "backbone"


def export(
    run: RunArgument,
    format: Annotated[ExportFormat, typer.Option(help="What to write.")] = ExportFormat.onnx,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", parser=file_out, metavar="PATH", help="The file; in RUN by default.", show_default=False
        ),
    ] = None,
    backbone: Annotated[
        bool, typer.Option("--backbone", help="Write the backbone's weights alone, as safetensors: --format backbone.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="In float16: half the size.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="ONNX with weights of 8 bits: a quarter of the size.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Write the model as ONNX, TorchScript or a torch.export program, check it, and say how to feed it.

    What has to be done to an image first is written beside the model, and into an ONNX file. With --half and --int8 the
    accuracy before and after is printed.
    """
    import json

    from repertoire.cli._options import open_run

    kind = ExportFormat.backbone if backbone else format
    written = open_run(run, plugins=plugin).export(kind.value, out, half=half, int8=int8)
    typer.echo(f"exported and checked: {written}")
    if kind != ExportFormat.backbone:
        beside = written.with_name(written.name + ".json")
        typer.echo(f"how to feed it: {beside}")
        _print(json.loads(beside.read_text(encoding="utf-8")).get("difference"))


def _print(found: dict[str, Any] | None) -> None:
    """Prints what lower precision costs."""
    if found is None:
        return
    if not found["images"]:
        typer.echo(f"what it costs in accuracy is not known: {found['reason']}")
        return
    parts = []
    if "accuracy" in found:
        parts.append(f"accuracy {found['accuracy_exported']:.1%} instead of {found['accuracy']:.1%}")
    if "agreement" in found:
        parts.append(f"the same answer for {found['agreement']:.1%}")
    parts.append(f"largest difference {found['largest']:.3g}")
    typer.echo(f"on {found['images']} test images: {', '.join(parts)}")
