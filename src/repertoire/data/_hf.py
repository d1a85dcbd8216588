"""Hugging Face datasets: local files offline, names on the hub only when asked."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repertoire.data._decode import decode, dimensions, plain_reason, read_file
from repertoire.data._source import SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import ImageSet, Splits
from repertoire.errors import ConfigError, DataError, MissingExtra, UnknownName, Unreadable, UnreadableImages
from repertoire.registry import register

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["hf"]

_PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test",)}
_PART_OF = {name: part for part, names in _PARTS.items() for name in names}
_CHUNK = 1024


@register("data", "hf")
def hf(
    request: SourceRequest,
    name: str,
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Splits:
    """A Hugging Face dataset of images with one label each.

    A path is read offline: a folder that `save_to_disk` wrote, `.parquet` or `.arrow` files (one, or a folder of them,
    each belonging to the split that its name or folder says), or a folder in their `imagefolder` layout. Anything else
    is a name on the hub, which is asked only with `request.download`. Splits named train, validation and test are used
    as such, and those that do not exist are drawn from the training images; a dataset of one split is divided whole.

    Images are decoded to RGB of one size and held in memory.

    Args:
        request: `size` is the side in pixels; by default that of the first image where it is square and at most 64, and
            128 otherwise.
        name: a path, or a name on the hub.
        config: which configuration of a dataset on the hub.
        image_column: by default the first column of type `Image`, or else "image" or "img".
        label_column: by default the first of type `ClassLabel`, or else "label", "labels", "class", "target" or
            "fine_label". Integers, text, or None and -1 for no label.

    Raises:
        MissingExtra: `datasets` is not installed.
        ConfigError: the name is no path and downloading was not asked for, or a column does not exist.
        DataError: the dataset cannot be read or is not images with labels.
        UnreadableImages: some images cannot be decoded, unless `request.skip_unreadable`.

    Example:
        >>> splits = hf(SourceRequest(size=32), "flowers/")  # doctest: +SKIP
    """
    try:
        import datasets  # noqa: F401  (everything below needs it)
    except ImportError:
        raise MissingExtra("hf", f"data source 'hf:{name}'") from None
    tables, notes = _parts(name, _open(name, config, request.download))
    first = next(iter(tables.values()))
    images = _column(first, "image", image_column, ("image", "img"))
    label = _column(first, "label", label_column, ("label", "labels", "class", "target", "fine_label"))
    labels, classes = _labels(name, tables, label)
    if "test" in labels and (labels["test"] < 0).all():
        del tables["test"], labels["test"]
        notes.append("The dataset's test images have no labels; the test images were drawn from the others.")

    encoded = {part: _encoded(table, images) for part, table in tables.items()}
    size = request.size or _natural_size(encoded["train"])
    sets: dict[str, ImageSet] = {}
    failures: list[Unreadable] = []
    for part, table in encoded.items():
        pixels, keys, failed = _decoded(table, images, size, request, part)
        failures += failed.values()
        names = [f"{part}/{row}" for row in range(len(table))]
        good = np.setdiff1d(np.arange(len(table)), list(failed))
        whole = ImageSet(pixels, labels[part], names, classes, keys)
        sets[part] = whole.subset(good) if failed else whole
    if failures and not request.skip_unreadable:
        raise UnreadableImages(failures, sum(map(len, tables.values())))
    return make_splits(
        sets["train"],
        val_set=sets.get("val"),
        test_set=sets.get("test"),
        seed=request.seed,
        val=request.val,
        test=request.test,
        source=f"hf:{name}",
        skipped=tuple(failures),
        notes=tuple(notes),
    )


def _open(name: str, config: str | None, download: bool) -> Mapping[str, Dataset]:
    """The dataset's splits, by the names that they have there."""
    import datasets
    import pyarrow  # type: ignore[import-untyped]

    path = Path(name)
    if not path.exists():
        if not download:
            raise ConfigError(
                f"data source 'hf': there is no file or folder {name!r}, and a dataset is fetched from the Hugging "
                "Face hub only with --download (download=True in Python)"
            )
        source = f"{name!r} on the Hugging Face hub"
    elif config is not None:
        raise ConfigError(f"data source 'hf': config={config!r} is for datasets on the hub; {name!r} is a path")
    else:
        source = f"{name!r} as a Hugging Face dataset"
    try:
        loaded = datasets.load_dataset(name, config) if not path.exists() else _open_path(path)
    except (OSError, ValueError, datasets.exceptions.DatasetsError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read {source}: {' '.join(str(error).split())}") from error
    return loaded if isinstance(loaded, Mapping) else {"train": loaded}


def _open_path(path: Path) -> Any:
    import datasets
    import pyarrow.parquet  # type: ignore[import-untyped]

    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return datasets.load_from_disk(os.fspath(path))
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (".parquet", ".arrow"))
    if not files:
        # The builder writes a table of the file names, which is not needed for longer than it takes to read it.
        with tempfile.TemporaryDirectory(prefix="repertoire-hf-") as cache:
            return datasets.load_dataset("imagefolder", data_dir=os.fspath(path), cache_dir=cache, keep_in_memory=True)
    groups: dict[str, list[Dataset]] = {}
    for file in files:
        if file.suffix == ".parquet":
            table = datasets.Dataset(datasets.table.InMemoryTable(pyarrow.parquet.read_table(file)))
        else:
            table = datasets.Dataset.from_file(os.fspath(file))
        groups.setdefault(_split_of(file.relative_to(path.parent)), []).append(table)
    return {split: datasets.concatenate_datasets(parts) for split, parts in groups.items()}


def _split_of(file: Path) -> str:
    """The split that a file's name says, or else a folder's, the nearest first: `data/test-00000-of-00001.parquet`."""
    for part in (file.stem, *(parent.name for parent in file.parents)):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _PART_OF:
                return word
    return "train"


def _parts(name: str, found: Mapping[str, Dataset]) -> tuple[dict[str, Dataset], list[str]]:
    """The splits under our names, train first, and what to tell about those not used."""
    parts: dict[str, Dataset] = {}
    for part, names in _PARTS.items():
        present = [split for split in names if split in found]
        if present:
            parts[part] = found[present[0]]
    unused = sorted(set(found) - set(_PART_OF))
    if "train" not in parts:
        if len(found) != 1:
            raise DataError(f"hf:{name} has no split named train; it has {', '.join(sorted(found)) or 'none'}")
        return {"train": next(iter(found.values()))}, []
    return parts, [f"Splits that were not used: {', '.join(unused)}."] if unused else []


def _column(table: Dataset, kind: str, chosen: str | None, usual: tuple[str, ...]) -> str:
    if chosen is not None:
        if chosen not in table.column_names:
            raise UnknownName(f"{kind} column", chosen, table.column_names)
        return chosen
    import datasets

    wanted = datasets.Image if kind == "image" else datasets.ClassLabel
    typed = [column for column, feature in table.features.items() if isinstance(feature, wanted)]
    named = [column for column in usual if column in table.column_names]
    if not typed + named:
        raise DataError(
            f"no column is known to hold the {kind}s; name one of {', '.join(table.column_names)} with "
            f"{kind}_column=..."
        )
    return (typed + named)[0]


def _labels(name: str, tables: Mapping[str, Dataset], column: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """int64 labels of each part, -1 for none, and the names of the classes."""
    import datasets

    for part, table in tables.items():
        if column not in table.column_names:
            raise DataError(f"hf:{name}: the {part} split has no column {column!r}")
    values = {part: list(table[column]) for part, table in tables.items()}
    feature = tables["train"].features[column]
    if isinstance(feature, datasets.ClassLabel) and feature.names:
        numbers = {
            part: np.array([-1 if v is None else v for v in row], dtype=np.int64) for part, row in values.items()
        }
        return numbers, tuple(feature.names)
    present = {value for row in values.values() for value in row} - {None}
    if not all(type(value) is int for value in present) and not all(isinstance(value, str) for value in present):
        raise DataError(f"hf:{name}: labels in {column!r} must be integers or text, found {feature}")
    known = sorted(present - {-1})
    position = {value: number for number, value in enumerate(known)}
    numbers = {part: np.array([position.get(v, -1) for v in row], dtype=np.int64) for part, row in values.items()}
    return numbers, tuple(map(str, known))


def _encoded(table: Dataset, column: str) -> Dataset:
    """The table with images as they are stored, so that the bytes can be hashed and decoded by our own rules."""
    import datasets

    table = table.select_columns([column])
    if isinstance(table.features[column], datasets.Image):
        return table.cast_column(column, datasets.Image(decode=False))
    return table


def _bytes(cell: Any) -> bytes:
    """The encoded image of one cell."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str):
        return read_file(cell)[0]
    if not isinstance(cell, bytes):
        raise ValueError("holds no image" if cell is None else f"holds {type(cell).__name__}, not an encoded image")
    return cell


def _natural_size(table: Dataset) -> int:
    """The side of the first image where it is small and square; what suits photographs otherwise."""
    try:
        width, height = dimensions(_bytes(next(iter(table[0].values()))))
    except (OSError, IndexError, ValueError):
        return 128  # an image that does not open is reported when all are decoded
    return width if width == height <= 64 else 128


def _decoded(
    table: Dataset, column: str, size: int, request: SourceRequest, part: str
) -> tuple[np.ndarray, np.ndarray, dict[int, Unreadable]]:
    """Pixels uint8 `[N, size, size, 3]`, keys, and the rows that could not be decoded."""
    pixels = np.zeros((len(table), size, size, 3), dtype=np.uint8)
    keys = np.zeros(len(table), dtype=np.uint64)
    failed: dict[int, Unreadable] = {}

    def one(row: int, cell: Any) -> None:
        try:
            data = _bytes(cell)
            keys[row] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
            pixels[row] = decode(data, size, request.fit)
        except (OSError, ValueError) as error:
            failed[row] = Unreadable(f"{part}/{row}", plain_reason(error))

    with ThreadPoolExecutor(request.workers or os.cpu_count()) as pool:
        for start, cells in _chunks(table, column):
            # Pillow decodes outside the interpreter's lock; the results need no lock, since each has its own row.
            list(pool.map(one, range(start, start + len(cells)), cells))
    return pixels, keys, dict(sorted(failed.items()))


def _chunks(table: Dataset, column: str) -> Iterator[tuple[int, list[Any]]]:
    """Cells a chunk at a time, so that the encoded images never are in memory together."""
    for start in range(0, len(table), _CHUNK):
        yield start, table[start : start + _CHUNK][column]
