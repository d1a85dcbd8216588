"""`repertoire select`: which of many images without labels to label next."""

from __future__ import annotations

import csv
import inspect
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repertoire.cli._options import (
    DeviceOption,
    ImagesArgument,
    NullOption,
    PluginOption,
    RunArgument,
    SkipOption,
)

if TYPE_CHECKING:
    import numpy as np

    from repertoire.errors import Unreadable
    from repertoire.train import Run

__all__ = ["select"]


def select(
    run: RunArgument,
    images: ImagesArgument = None,
    budget: Annotated[int, typer.Option("--budget", "-n", help="How many images to choose.")] = 20,
    selector: Annotated[str, typer.Option("--selector", help="How; see 'repertoire list selectors'.")] = "margin",
    seed: Annotated[int, typer.Option("--seed", help="Of what a selector draws.")] = 0,
    labelled: Annotated[
        bool,
        typer.Option(help="Tell selectors that look for what is new of the images that the run was trained on."),
    ] = True,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    null: NullOption = False,
    skip_unreadable: SkipOption = None,
) -> None:
    """Choose which images to label next, and print them as CSV, the most wanted first.

    The run looks at the images, and a selector says of which a label would teach it the most: margin, entropy and
    least-confidence where it is unsure, coreset and typical where nothing like them has a label yet, badge both.
    """
    from repertoire import registry
    from repertoire.cli._inputs import given_inputs
    from repertoire.cli._options import open_run, report_failures, safe_cell, skips
    from repertoire.errors import ConfigError

    opened = open_run(run, device, plugin)
    opened.check_answers("select images")
    wanted = inspect.signature(registry.get("selectors", registry.parse(selector).name).factory).parameters
    if opened.task.kind != "classes" and "probabilities" in wanted:
        raise ConfigError(
            f"selector {selector} looks at the probabilities of classes, and this run has no class for each image: use "
            "coreset, typical or random"
        )
    given = given_inputs(opened, images or [], null=null)
    failures: list[Unreadable] = []
    # Predictions are worth printing, whatever is chosen by.
    index, said = _gather(opened.stream(given.source), failures)
    skip = skips(opened, skip_unreadable)
    if failures and not skip:
        report_failures(failures, len(given), skip)
    features = _gather(opened.stream_features(given.some(index)), [])[1] if "features" in wanted else None
    known = _labelled(opened) if labelled and "labelled" in wanted else None
    chosen = _choose(selector, budget, said, features, known, seed)
    writer = csv.writer(sys.stdout)
    classes = opened.task.kind == "classes"
    writer.writerow(["rank", "image", *(["class", "probability"] if classes else [])])
    for rank, row in enumerate(chosen, 1):
        name = safe_cell(given.name(index[row]).encode("utf-8", "backslashreplace").decode())
        best = int(said[row].argmax())
        more = [safe_cell(opened.classes[best]), f"{said[row, best]:.6f}"] if classes else []
        writer.writerow([rank, name, *more])
    report_failures(failures, len(given), skip)


def _gather(batches: Any, failures: list[Unreadable]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values of all images that could be used."""
    import numpy as np

    index, values = [], []
    for found in batches:
        failures.extend(found.failed)
        index.append(found.index)
        values.append(found.values)
    if not index:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 2))
    return np.concatenate(index), np.concatenate(values)


def _labelled(run: Run) -> np.ndarray:
    """Features of the images that the run was trained on.

    Raises:
        ConfigError: they are not there any more.
    """
    import numpy as np

    from repertoire.errors import ConfigError, DataError, RunError

    try:
        train = run.splits.train
    except (DataError, RunError) as error:
        raise ConfigError(
            f"the images that the run was trained on are not there ({error}); go without: --no-labelled"
        ) from None
    return run.embed(train.subset(np.flatnonzero(train.known)))


def _choose(
    spec: str, budget: int, said: np.ndarray, features: np.ndarray | None, known: np.ndarray | None, seed: int
) -> list[int]:
    import torch

    from repertoire.select import select as choose

    def tensor(values: np.ndarray | None) -> Any:
        return None if values is None else torch.from_numpy(values)

    found: list[int] = choose(
        spec, budget, probabilities=tensor(said), features=tensor(features), labelled=tensor(known), seed=seed
    ).tolist()
    return found
