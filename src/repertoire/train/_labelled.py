"""Inputs that are read from lists: image files with their targets, and vectors of features."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire.data import Samples, load_feature_set, load_folder_set
from repertoire.errors import DataError, RunError, ShapeError, Unreadable, ascii_path, nearest
from repertoire.tasks import Task

__all__ = ["Labelled", "called", "labelled_list", "labelled_samples", "vectors"]


@dataclass(frozen=True)
class Labelled:
    """A list of image files with their targets, read when they are needed.

    Attributes:
        paths: of the files.
        labels: the targets, as `Samples.labels` holds them.
    """

    paths: list[Path]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


_PATH_COLUMNS = ("path", "image", "file", "filename", "file_name", "image_path", "filepath", "name")
_LABEL_COLUMNS = ("label", "class", "target", "true", "labels", "category", "y", "classes")


def labelled_list(path: Path, classes: Sequence[str], kind: str = "classes") -> Labelled:
    """The files and targets that a .csv or .tsv file lists.

    The column of paths is called path, image, file or filename; that of the class label, class, target or true. Targets
    of several labels or numbers have a column each, called after it. Paths count from the file's own folder. An empty
    label says that nobody knows.

    Raises:
        DataError: it has no such columns, or a row with a label that is none of the classes.
    """
    shown = ascii_path(str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown} is not a list in UTF-8: {error}") from None
    separator = "\t" if path.suffix.lower() == ".tsv" or "\t" in text.split("\n", 1)[0] else ","
    reader = csv.DictReader(text.splitlines(), delimiter=separator)
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    where = next((columns[name] for name in _PATH_COLUMNS if name in columns), None)
    if where is None:
        raise DataError(f"{shown} has no column of paths (path, image, file or filename); found {list(columns)}")
    paths: list[Path] = []
    targets: list[Any] = []
    read = _reader_of(shown, columns, classes, kind)
    for number, row in enumerate(reader, 2):
        if not (name := (row[where] or "").strip()):
            continue
        paths.append(path.parent / name)
        targets.append(read(row, number))
    if not paths:
        raise DataError(f"{shown} lists no image")
    dtype = {"classes": np.int64, "labels": np.uint8, "number": np.float32}.get(kind, np.int64)
    return Labelled(paths, np.array(targets, dtype=dtype))


def _reader_of(shown: str, columns: dict[str, str], classes: Sequence[str], kind: str) -> Any:
    """A function from a row and its number to its target."""
    if kind in ("labels", "number"):
        missing = [name for name in classes if name.strip().lower() not in columns]
        if missing:
            raise DataError(
                f"{shown} has no column {missing[0]!r}; a run on {kind} needs one for each of {list(classes)}"
            )
        names = [columns[name.strip().lower()] for name in classes]

        def numbers(row: dict[str, str], number: int) -> list[float]:
            cells = [(row[name] or "").strip() for name in names]
            try:
                unknown = 255.0 if kind == "labels" else np.nan
                return [float(cell) if cell else unknown for cell in cells]
            except ValueError:
                raise DataError(f"{shown}, line {number}: {cells} are not numbers") from None

        return numbers
    label = next((columns[name] for name in _LABEL_COLUMNS if name in columns), None)
    if label is None:
        raise DataError(f"{shown} has no column of labels (label, class, target or true); found {list(columns)}")
    positions = {name: k for k, name in enumerate(classes)}

    def position(row: dict[str, str], number: int) -> int:
        name = (row[label] or "").strip()
        if name and name not in positions:
            guess = nearest(name, classes)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise DataError(f"{shown}, line {number}: {name!r} is not a class of the run{hint} ({', '.join(classes)})")
        return positions[name] if name else -1

    return position


def labelled_samples(
    images: Samples | str | os.PathLike[str],
    classes: tuple[str, ...],
    task: Task,
    reading: Mapping[str, Any] | None,
    skip: bool,
    run: str,
) -> Samples | Labelled:
    """Labelled images or vectors, from whatever `Run.evaluate` takes.

    Args:
        images: a set, or a path: a folder with a directory per class, a list of paths and labels, a file of features.
        classes, task: of the run.
        reading: how its images are read; None for a run on features.
        skip: whether images that cannot be used are left out.
        run: what to call the run.

    Raises:
        RunError: a set of other classes. DataError, UnreadableImages: as `Run.evaluate`.
    """
    if isinstance(images, Samples):
        if images.classes != classes:
            raise RunError(f"the images have the classes {list(images.classes)}, the run {list(classes)}")
        task.check(images)
        return images
    if not isinstance(images, str | os.PathLike):
        raise DataError(
            f"labelled images are a folder with a directory per class, a .csv file or an ImageSet, found a "
            f"{type(images).__name__}"
        )
    path = Path(images)
    if reading is None:
        vectors = load_feature_set(path, classes=classes)
        task.check(vectors)
        return vectors
    if path.is_dir():
        if task.kind not in ("classes", "maps"):
            raise DataError(f"{run} predicts {called(task.kind)}; give a .csv file with a column for each")
        found = load_folder_set(path, classes=classes, skip_unreadable=skip, **reading)
        task.check(found)
        return found
    if task.kind == "maps":
        raise DataError(f"{ascii_path(os.fspath(images))} is no folder; name one that holds images/ and maps/")
    if path.suffix.lower() in (".csv", ".tsv") and path.is_file():
        return labelled_list(path, classes, task.kind)
    what = "is no folder and no .csv file" if path.exists() else "does not exist"
    raise DataError(
        f"{ascii_path(os.fspath(images))} {what}; name a folder with a directory per class or a .csv file of paths "
        "and labels, or nothing for the run's own test images"
    )


def called(kind: str) -> str:
    """What a run of a kind of task predicts, in a message."""
    return {"number": "numbers", "votes": "classes", "maps": "a class for every pixel"}.get(kind, kind)


def vectors(images: Any, width: int, batch_size: int) -> Iterator[tuple[np.ndarray, Tensor, list[Unreadable]]]:
    """Batches of features `[n, d]`, for a run that was trained on features: from an array, a set, or a file of them,
    which is read a batch at a time."""
    if isinstance(images, str | os.PathLike):
        images = load_feature_set(images)
    if isinstance(images, Samples):
        if images.shape != (width,):
            raise ShapeError(f"the run was trained on features [N, {width}], found {[len(images), *images.shape]}")
        for start in range(0, len(images), batch_size):
            chunk = torch.tensor(images.inputs(slice(start, start + batch_size))).float()
            yield np.arange(start, start + len(chunk)), _finite(chunk), []
        return
    array = torch.as_tensor(np.asarray(images) if not isinstance(images, Tensor) else images)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != width or not array.is_floating_point():
        raise ShapeError(
            f"the run was trained on features: float [N, {width}], found {array.dtype} {list(array.shape)}"
        )
    for start in range(0, len(array), batch_size):
        chunk = array[start : start + batch_size].detach().float()
        yield np.arange(start, start + len(chunk)), _finite(chunk), []


def _finite(chunk: Tensor) -> Tensor:
    if not bool(chunk.isfinite().all()):
        raise ShapeError("features must be finite numbers")
    return chunk
