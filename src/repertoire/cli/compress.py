"""`repertoire compress`: a run whose network takes fewer bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli._options import DeviceOption, PluginOption, folder_out

__all__ = ["compress"]


def compress(
    run: Annotated[Path, typer.Argument(help="Directory of a finished run.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", parser=folder_out, metavar="PATH", help="Directory of the new run.", show_default=False
        ),
    ],
    by: Annotated[str, typer.Option("--by", help="How; see 'repertoire list compressors'.")] = "half",
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

    small = compress_run(run, out, by=by, device=device, plugins=tuple(plugin or ()))
    made = small.info["compressed"]
    before, after = made["bytes"]
    for name, word in (("val", "validation"), ("test", "test")):
        typer.echo(f"{word} {made['key']} {made[name][0]:.4f} before, {made[name][1]:.4f} after")
    typer.echo(f"weights {before / 1e6:.2f} MB before, {after / 1e6:.2f} MB after: 1 / {before / after:.1f}, by {by}")
    typer.echo(f"the new run: {ascii_path(str(out))}")
    if report:
        from repertoire.report import write_report

        typer.echo(f"report: {write_report(small)}")
