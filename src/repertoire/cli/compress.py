"""`repertoire compress`: a run whose network takes fewer bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli._options import DeviceOption, PluginOption, folder_out

__all__ = ["compress"]


def counted(number: float) -> str:
    """A large number in few digits."""
    for size, word in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{word}"
    return f"{number:.0f} "


def compress(
    run: Annotated[Path, typer.Argument(help="Directory of a finished run.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            parser=folder_out,
            metavar="PATH",
            help="Directory of the new run.",
            show_default="runs/NAME-small-1, or the next number",
        ),
    ] = None,
    by: Annotated[str, typer.Option("--by", help="How; see 'repertoire list compressors'.")] = "half",
    base: Annotated[
        Path | None,
        typer.Option(
            help="The run that it started from, for compressors of what was changed since (ternary).",
            show_default="found out",
        ),
    ] = None,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    report: Annotated[bool, typer.Option(help="Write the report.")] = True,
) -> None:
    """Compress the network of a run into a new run.

    Sizes are those of the weights as they are written, with everything that is needed to read them; accuracy is that of
    the network that comes out of the file.
    """
    from repertoire.errors import ascii_path
    from repertoire.train import compress as compress_run

    small = compress_run(
        run,
        out,
        by=by,
        base=base,
        device=device,
        plugins=tuple(plugin or ()),
        report=lambda line: typer.echo(line, err=True),
    )
    made = small.info["compressed"]
    before, after = made["bytes"]
    for name, word in (("val", "validation"), ("test", "test")):
        typer.echo(f"{word} {made['key']} {made[name][0]:.4f} before, {made[name][1]:.4f} after")
    typer.echo(f"weights {counted(before)}B before, {counted(after)}B after: 1 / {before / after:.1f}, by {by}")
    if origin := made.get("origin"):
        where = ascii_path(origin["run"]) if "run" in origin else f"the published weights of {origin['backbone']}"
        typer.echo(f"to be opened beside {where}, which it is a change of")
    whole, left = made["multiplications"]
    share = f", {left / whole:.2f} of them" if left != whole else ""
    typer.echo(f"multiplications for an image: {counted(whole).strip()} before, {counted(left).strip()} after{share}")
    typer.echo(f"the new run: {ascii_path(str(small.directory))}")
    if report:
        from repertoire.report import write_report

        typer.echo(f"report: {write_report(small)}")
