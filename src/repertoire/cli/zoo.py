"""`repertoire zoo`: which of the runs that there are suits new images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli._options import DeviceOption, PluginOption

__all__ = ["app"]

app = typer.Typer(help="Keep an index of runs, and search it for those that suit new images.", no_args_is_help=True)

ZooOption = Annotated[Path, typer.Option("--zoo", help="Directory of the index.")]


class By(StrEnum):
    """What a search goes by."""

    vectors = "vectors"
    leep = "leep"
    logme = "logme"


@app.command()
def add(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs on images.", show_default=False)],
    zoo: ZooOption = Path("zoo"),
    probes: Annotated[
        str | None,
        typer.Option(
            help="Images that every run is asked about, for a new index; labels do not matter.",
            show_default="those that the first run was trained on",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="For a new index: what embeds probes and data, a pretrained backbone or the directory of a run.",
            show_default="lite0",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=2, help="For a new index: how many probes, at most.", show_default="256")
    ] = None,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
) -> None:
    """Add runs to the index: each is asked about the probes, and not looked into."""
    from repertoire.cli._options import open_run
    from repertoire.errors import ConfigError, ascii_path
    from repertoire.zoo import Index, add_runs, new_index

    where = _device(device)
    opened = [open_run(path, device, plugin) for path in runs]
    if (zoo / "index.json").is_file():
        if given := [name for name, value in _new(probes, reference, count) if value is not None]:
            raise ConfigError(
                f"--{given[0]} goes with a new index, and {zoo} holds one: leave it out, or name another --zoo"
            )
        index = Index.load(zoo)
    else:
        if probes is None:
            probes = opened[0].config.data
            typer.echo(f"a new index: runs are asked about images of {ascii_path(probes)} (others: --probes PHOTOS/)")
        index = new_index(probes, reference=reference or "lite0", count=count or 256, device=where)
    add_runs(index, opened, device=where, report=typer.echo)
    index.save(zoo)
    typer.echo(f"{len(index)} runs in {zoo}")


def _new(probes: str | None, reference: str | None, count: int | None) -> list[tuple[str, object]]:
    """What goes with a new index alone."""
    return [("probes", probes), ("reference", reference), ("count", count)]


@app.command()
def learn(
    zoo: ZooOption = Path("zoo"),
    seed: Annotated[int, typer.Option(help="Of what is learned.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Let the index learn which runs serve which data, from the data that its runs were trained on."""
    from repertoire.zoo import Index, learn_from_runs

    index = Index.load(zoo)
    learn_from_runs(index, device=_device(device), seed=seed, report=typer.echo)
    index.save(zoo)
    typer.echo(f"{zoo} has learned from the data of {len(index)} runs")


@app.command()
def search(
    data: Annotated[str, typer.Argument(help="Labelled images, as `train` takes them.", show_default=False)],
    zoo: ZooOption = Path("zoo"),
    top: Annotated[int, typer.Option(min=1, help="How many runs to print.")] = 5,
    by: Annotated[
        By,
        typer.Option(help="The vectors of the index, for which no run is asked; or a score for which all are."),
    ] = By.vectors,
    device: DeviceOption = "auto",
) -> None:
    """Print the runs that suit some images, the best first, as CSV."""
    import csv
    import sys

    from repertoire.cli._options import safe_cell
    from repertoire.zoo import Index, ask_runs, search_images

    index, where = Index.load(zoo), _device(device)
    found = (
        search_images(index, data, top, device=where)
        if by is By.vectors
        else ask_runs(index, data, by.value, top, device=where)
    )
    writer = csv.writer(sys.stdout)
    writer.writerow(["rank", "run", "score"])
    for rank, each in enumerate(found, 1):
        writer.writerow([rank, safe_cell(each.name), f"{each.score:.4f}"])


def _device(name: str) -> str:
    """The device of that name; "auto" is a GPU where there is one."""
    import torch

    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
