"""`repertoire explain --judge`: which explanation to believe of a run's model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from repertoire.errors import Unreadable
    from repertoire.explain import Explainer, Judgement
    from repertoire.train import Run

__all__ = ["judge_sample"]


def judge_sample(
    run: Run,
    images: list[str] | None,
    explainers: dict[str, Explainer],
    targets: Sequence[int],
    sample: int,
    folder: Path,
    null: bool,
    skip_unreadable: bool,
) -> None:
    """Judges explainers on some of the images, prints what was found, and writes judge.json."""
    from repertoire.cli._pictures import pieces
    from repertoire.cli._progress import progress_bar
    from repertoire.explain import judge
    from repertoire.files import write_json

    pixels, masks, whence = _sample(run, images, sample, null, skip_unreadable)
    with progress_bar("judging", len(explainers) + 1) as advance:
        started = False

        def next_one(name: str) -> None:
            nonlocal started
            advance(int(started), f"judging {name}")
            started = True

        found = judge(
            run.model,
            pixels.to(run.device),
            explainers,
            targets=targets[0] if targets else None,
            masks=masks,
            batch_size=next(pieces(sample, run.size)).stop,
            progress=next_one,
        )
    write_json(folder / "judge.json", {"run": str(run.path), "sample": whence, **found.as_dict()})
    run.directory.record(folder / "judge.json")
    _print(found)
    typer.echo(f"details: {folder / 'judge.json'}")


def _sample(
    run: Run, images: list[str] | None, sample: int, null: bool, skip_unreadable: bool
) -> tuple[Tensor, Tensor | None, str]:
    """Float images `[n, C, H, W]`, their masks if the data has them, and where they are from."""
    import numpy as np
    import torch

    from repertoire.cli._inputs import image_paths
    from repertoire.cli._options import report_failures
    from repertoire.cli.predict import read_batches
    from repertoire.data import plain
    from repertoire.errors import DataError

    random = np.random.default_rng(0)
    if not images:
        test = run.splits.test
        rows = np.sort(random.permutation(len(test))[:sample])
        masks = None if test.masks is None else test.object_masks(rows)
        # A map cannot be compared with an object that is not there.
        known = masks is not None and bool(masks.any((1, 2)).all())
        return plain(torch.from_numpy(test.pixels(rows))), torch.from_numpy(masks) if known else None, "test images"
    paths = image_paths(images, null=null)
    chosen = [paths[i] for i in np.sort(random.permutation(len(paths))[:sample])]
    failures: list[Unreadable] = []
    batches = [pixels for _, pixels in read_batches(run, chosen, failures)]
    report_failures(failures, len(chosen), skip_unreadable)
    if sum(map(len, batches)) < 2:
        raise DataError("a judgement needs at least two images; name more, or none for the run's own test images")
    return plain(torch.from_numpy(np.concatenate(batches))), None, f"{len(paths)} given images"


def _print(found: Judgement) -> None:
    columns = [
        ("explainer", None), ("faithful", "faithfulness"), ("insertion", "insertion"), ("deletion", "deletion"),
        ("random weights", "randomization"), ("other class", "sensitivity"), ("on object", "energy"),
    ]  # fmt: skip
    columns = [(title, key) for title, key in columns if key is None or key in found.rows[0].values]
    table = [[title for title, _ in columns] + ["time"]]
    for row in (*found.rows, found.random):
        cells = [row.name]
        for _, key in columns[1:]:
            value = row.mean(str(key))
            if value is None:
                cells.append("-")
            elif key == "faithfulness":
                low, high = row.intervals[key]
                cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
            else:
                cells.append(f"{value:.3f}")
        cells.append(f"{1000 * row.seconds:.1f} ms" if row.seconds else "-")
        table.append(cells)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for cells in table:
        typer.echo(
            "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
        )
    typer.echo(
        "faithful: insertion minus deletion, higher is better; random weights: rank correlation with the map of a "
        "random network, near 0 is better; other class: correlation with the map of the least likely class, 1 is the "
        "same map."
    )
    typer.echo(found.sentence())
    for warning in found.warnings():
        typer.echo(f"warning: {warning}")
    for name, reason in found.failed.items():
        typer.echo(f"left out: {name}: {reason}")
