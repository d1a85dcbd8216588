"""`repertoire explain`: where a run's model looked, and which explanation to believe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repertoire.cli._options import (
    DeviceOption,
    ImagesArgument,
    NullOption,
    PluginOption,
    RunArgument,
    SkipOption,
    folder_out,
)

if TYPE_CHECKING:
    from repertoire.errors import Unreadable
    from repertoire.explain import Explainer
    from repertoire.train import Run

__all__ = ["explain"]


def explain(
    run: RunArgument,
    images: ImagesArgument = None,
    explainer: Annotated[
        list[str] | None,
        typer.Option(
            help="Which explainer, grad-cam by default; may be repeated. `repertoire list explainers` names them.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--class", help="Class to explain; the predicted one if left out. May be repeated.", show_default=False
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Explain so many of the likeliest classes.", show_default=False)
    ] = None,
    judge: Annotated[
        bool,
        typer.Option(
            "--judge",
            help="Measure several explainers on a sample of the images, or of the run's own test images, and say which "
            "is most faithful for this model; writes no pictures.",
        ),
    ] = False,
    sample: Annotated[int, typer.Option(min=2, help="Images that --judge measures.")] = 64,
    gallery: Annotated[
        bool, typer.Option("--gallery", help="Write HTML pages that show the pictures side by side.")
    ] = False,
    npz: Annotated[bool, typer.Option("--npz", help="Write the maps as numbers, to maps.npz.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            parser=folder_out,
            metavar="PATH",
            help="Directory for what is written; RUN/explanations by default.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    null: NullOption = False,
    skip_unreadable: SkipOption = None,
) -> None:
    """Write a picture for each image that shows where the model looked; or judge which explainer to believe."""
    from repertoire import registry
    from repertoire.cli._inputs import image_paths
    from repertoire.cli._judging import judge_sample
    from repertoire.cli._options import open_run, report_failures, skips
    from repertoire.cli._pictures import Pictures
    from repertoire.errors import ConfigError, UnknownName
    from repertoire.explain import usual_explainers

    if target and top:
        raise ConfigError("--class and --top both say which classes to explain; give one of them")
    if judge and (gallery or npz or top or len(target or ()) > 1):
        raise ConfigError(
            "--judge writes neither pictures nor maps, and explains one class of each image; leave out --gallery, "
            "--npz, --top and all but one --class"
        )
    opened = open_run(run, device, plugin)
    opened.check_answers("explain")
    opened.check_images("explain")
    skip = skips(opened, skip_unreadable)
    for name in target or ():
        if name not in opened.classes:
            raise UnknownName(f"class of {run}", name, opened.classes)
    names = list(dict.fromkeys(explainer or (usual_explainers() if judge else ["grad-cam"])))
    explainers: dict[str, Explainer] = {name: registry.build("explainers", name) for name in names}
    folder = out or opened.path / "explanations"
    targets = [opened.classes.index(name) for name in target or ()]
    if judge:
        judge_sample(opened, images, explainers, targets, sample, folder, null, skip)
        return
    _check_fit(opened, explainers)
    paths = image_paths(images or [], null=null)
    failures: list[Unreadable] = []
    pictures = Pictures(opened, explainers, folder, targets, min(top or 1, len(opened.classes)))
    written = pictures.write(paths, failures, gallery=gallery, npz=npz)
    typer.echo(f"{written} {'picture' if written == 1 else 'pictures'} in {folder}")
    if gallery and written:
        typer.echo(f"gallery: {folder / 'index.html'}")
    report_failures(failures, len(paths), skip)


def _check_fit(run: Run, explainers: dict[str, Explainer]) -> None:
    """Refuses explainers that cannot explain this model before an image is read."""
    import torch

    from repertoire.errors import ConfigError
    from repertoire.explain import fitting

    channels = int(run.info["channels"])
    blank = torch.rand(1, channels, run.size, run.size, generator=torch.Generator().manual_seed(0)).to(run.device)
    failed = fitting(run.model, blank, explainers)[1]
    if failed:
        raise ConfigError("; ".join(f"explainer {name}: {reason}" for name, reason in failed.items()))
