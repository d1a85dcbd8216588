"""`repertoire stitch`: runs of several sizes in one, which costs as much as one likes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli._options import DeviceOption, PluginOption, folder_out

__all__ = ["stitch"]


def stitch(
    runs: Annotated[
        list[Path], typer.Argument(help="Directories of two runs or more, on the same data.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            parser=folder_out,
            metavar="PATH",
            help="Directory of the new run.",
            show_default="runs/NAME-stitched-1, or the next number",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs in which all routes are trained.")] = 5,
    lr: Annotated[float, typer.Option(help="Learning rate at the beginning.")] = 1e-3,
    distil: Annotated[
        float, typer.Option(min=0, max=1, help="How much the largest network teaches the routes, beside the classes.")
    ] = 0.5,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    report: Annotated[bool, typer.Option(help="Write the report.")] = True,
) -> None:
    """Join runs of several sizes into one network that is as fast or as accurate as you like.

    The front of a smaller network is joined with the back of a larger one, at almost every block. Then:
    predict NET IMAGES --budget 0.4 takes the best way through that costs 0.4 of the largest network.
    """
    from repertoire.errors import ascii_path
    from repertoire.train import stitch_runs

    net = stitch_runs(
        runs,
        out,
        epochs=epochs,
        lr=lr,
        distil=distil,
        device=device,
        plugins=tuple(plugin or ()),
        report=lambda line: typer.echo(line, err=True),
    )
    made = net.info["stitched"]
    for route in made["routes"]:
        ways = [ascii_path(Path(made["runs"][number]).name) for number in (route["from"], route["into"])]
        way = ways[0] if route["from"] == route["into"] else " into ".join(ways)
        typer.echo(f"{route['share']:6.3f} of the cost: validation {made['key']} {route['value']:.4f}  {way}")
    typer.echo(f"test {made['key']} {net.metrics[made['key']]:.4f}, by the largest network")
    typer.echo(f"the new run: {ascii_path(str(net.directory))}")
    if report:
        from repertoire.report import write_report

        typer.echo(f"report: {write_report(net)}")
