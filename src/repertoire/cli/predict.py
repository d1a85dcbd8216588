"""`repertoire predict` and `repertoire embed`: a run's model on new images, in constant memory."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from repertoire.errors import Unreadable
    from repertoire.train import Run

__all__ = ["embed", "predict"]


Row = tuple[str, list[tuple[str, float]], int | None]
"""Name of an image, its best classes, and the exit it left by, from 1, where there are exits."""


class TableFormat(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


RunArgument = Annotated[Path, typer.Argument(help="Directory of a run.", show_default=False)]
ImagesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Image files or directories; none, or -, reads a list of files from standard input.", show_default=False
    ),
]
NullOption = Annotated[bool, typer.Option("-0", "--null", help="The list on standard input is separated by NUL bytes.")]
SkipOption = Annotated[bool, typer.Option("--skip-unreadable", help="Images that cannot be used are no error.")]


def predict(
    run: RunArgument,
    images: ImagesArgument = None,
    format: Annotated[TableFormat, typer.Option(help="How to print.")] = TableFormat.table,
    top: Annotated[int, typer.Option(min=1, help="How many classes to print for each image.")] = 1,
    early_exit: Annotated[
        float | None,
        typer.Option(
            metavar="CONFIDENCE",
            help="Let an image leave at the first block that is this sure of it; for runs of local learning.",
            show_default=False,
        ),
    ] = None,
    null: NullOption = False,
    skip_unreadable: SkipOption = False,
) -> None:
    """Print the class of new images, with its probability."""
    from repertoire.cli._inputs import image_paths
    from repertoire.errors import ConfigError
    from repertoire.train import load
    from repertoire.train import top as top_classes

    opened = load(run)
    paths = image_paths(images or [], null=null)
    failures: list[Unreadable] = []
    work: list[float] = []

    def rows() -> Iterator[Row]:
        for indices, pixels in _read(opened, paths, failures):
            exits: list[int | None] = [None] * len(indices)
            if early_exit is None:
                probabilities = opened.predict(pixels)
            else:
                probabilities, left = opened.predict_early(pixels, early_exit)
                exits = [int(number) + 1 for number in left]
                work.extend(opened.exits.work[number] for number in left)
            for i, best, number in zip(indices, top_classes(probabilities, opened.classes, top), exits, strict=True):
                yield str(paths[i]), best, number

    if early_exit is not None and not 0 <= early_exit <= 1:
        raise ConfigError(f"--early-exit is {early_exit}; expected a probability, from 0 to 1")
    if early_exit is not None:
        _ = opened.exits  # refused before an image is read
    {TableFormat.table: _print_table, TableFormat.csv: _print_csv, TableFormat.json: _print_json}[format](rows())
    if work:
        typer.echo(f"mean work: {sum(work) / len(work):.2f} of the whole network", err=True)
    _report_failures(failures, len(paths), skip_unreadable)


def embed(
    run: RunArgument,
    images: ImagesArgument = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The .npz file to write.")] = Path("features.npz"),
    null: NullOption = False,
    skip_unreadable: SkipOption = False,
) -> None:
    """Write the features of images to an .npz file: `features` [N, d] and `names` [N]."""
    import numpy as np

    from repertoire.cli._inputs import image_paths
    from repertoire.errors import ConfigError, UnreadableImages
    from repertoire.files import atomic_path
    from repertoire.train import load

    if out.suffix != ".npz":
        raise ConfigError(f"--out is {out}; features are written as .npz")
    opened = load(run)
    paths = image_paths(images or [], null=null)
    failures: list[Unreadable] = []
    features: list[np.ndarray] = []
    names: list[str] = []
    for indices, pixels in _read(opened, paths, failures):
        features.append(opened.embed(pixels))
        names.extend(str(paths[i]).encode("utf-8", "backslashreplace").decode() for i in indices)
    if failures and (not skip_unreadable or not names):
        raise UnreadableImages(failures, len(paths))
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, features=np.concatenate(features), names=np.array(names))
    typer.echo(f"{len(names)} x {features[0].shape[1]} features in {out}")
    _report_failures(failures, len(paths), skip_unreadable)


def _read(run: Run, paths: list[Path], failures: list[Unreadable]) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches of pixels with their positions in `paths`; what cannot be used goes to `failures`."""
    from repertoire.data import decode_files

    for indices, pixels, failed in decode_files(paths, **run.reading):
        failures.extend(failed)
        if len(indices):
            yield indices, pixels


def _print_table(rows: Iterator[Row]) -> None:
    from repertoire.errors import ascii_path

    for name, best, number in rows:
        classes = "  ".join(f"{probability:6.1%} {ascii_path(label)}" for label, probability in best)
        left = f"  (exit {number})" if number is not None else ""
        typer.echo(f"{classes}{left}  {ascii_path(name)}")


def _print_csv(rows: Iterator[Row]) -> None:
    writer = csv.writer(sys.stdout)
    header = False
    for name, best, number in rows:
        extra = [] if number is None else [number]
        if not header:
            writer.writerow(["image", "rank", "class", "probability", *(["exit"] if extra else [])])
            header = True
        printable = name.encode("utf-8", "backslashreplace").decode()
        for rank, (label, probability) in enumerate(best, 1):
            writer.writerow([printable, rank, label, f"{probability:.6f}", *extra])
    if not header:
        writer.writerow(["image", "rank", "class", "probability"])


def _print_json(rows: Iterator[Row]) -> None:
    """An array with an object a line, written as it comes."""
    first = True
    sys.stdout.write("[")
    for name, best, number in rows:
        printable = name.encode("utf-8", "backslashreplace").decode()
        top = [{"class": label, "probability": round(probability, 6)} for label, probability in best]
        row: dict[str, Any] = {"image": printable, **top[0], "top": top}
        if number is not None:
            row["exit"] = number
        sys.stdout.write(("\n" if first else ",\n") + json.dumps(row, ensure_ascii=False))
        first = False
    sys.stdout.write("]\n" if first else "\n]\n")


def _report_failures(failures: list[Unreadable], total: int, skip: bool) -> None:
    from repertoire.errors import UnreadableImages

    if not failures:
        return
    error = UnreadableImages(failures, total)
    if not skip:
        raise error
    typer.echo(f"{len(failures)} of {total} images were skipped", err=True)
