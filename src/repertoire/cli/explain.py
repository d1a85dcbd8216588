"""`repertoire explain`: where a run's model looked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli.predict import ImagesArgument, NullOption, RunArgument, SkipOption

__all__ = ["explain"]


def explain(
    run: RunArgument,
    images: ImagesArgument = None,
    explainer: Annotated[
        str, typer.Option(help="Which explainer; `repertoire list explainers` names them.")
    ] = "grad-cam",
    target: Annotated[
        str | None, typer.Option("--class", help="Class to explain; the predicted one if left out.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Directory for the pictures; RUN/explanations by default.", show_default=False
        ),
    ] = None,
    null: NullOption = False,
    skip_unreadable: SkipOption = False,
) -> None:
    """Write a picture for each image that shows where the model looked."""
    import torch

    from repertoire import registry
    from repertoire.cli._inputs import image_paths
    from repertoire.cli.predict import _read, _report_failures
    from repertoire.data import plain
    from repertoire.errors import UnknownName, Unreadable
    from repertoire.explain import save_overlay
    from repertoire.train import load

    opened = load(run)
    if target is not None and target not in opened.classes:
        raise UnknownName(f"class of {run}", target, opened.classes)
    explain_ = registry.build("explainers", explainer)
    paths = image_paths(images or [], null=null)
    folder = out or opened.path / "explanations"
    failures: list[Unreadable] = []
    used: dict[str, int] = {}
    for indices, pixels in _read(opened, paths, failures):
        inputs = plain(torch.from_numpy(pixels))
        targets = None if target is None else torch.full((len(inputs),), opened.classes.index(target))
        for i, image, heat in zip(indices, pixels, explain_(opened.model, inputs, targets), strict=True):
            save_overlay(folder / _name(paths[i], used), image, heat)
    typer.echo(f"{sum(used.values())} pictures in {folder}")
    _report_failures(failures, len(paths), skip_unreadable)


def _name(path: Path, used: dict[str, int]) -> str:
    """A file name for the overlay of an image; images of the same name get numbers."""
    stem = "".join(c if c.isalnum() or c in "-_. " else "_" for c in path.stem)[:100] or "image"
    used[stem] = used.get(stem, 0) + 1
    return f"{stem}.png" if used[stem] == 1 else f"{stem}~{used[stem]}.png"
