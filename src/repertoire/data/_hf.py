"""Hugging Face datasets: local files offline, names on the hub only when asked."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repertoire.data._decode import Levels, decode_or_look, dimensions, plain_reason, read_file
from repertoire.data._levels import levels_note, settle
from repertoire.data._names import part_of
from repertoire.data._source import SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import ImageSet, Splits
from repertoire.data._walk import passed_over
from repertoire.errors import (
    ConfigError,
    DataError,
    MissingExtra,
    UnknownName,
    Unreadable,
    UnreadableImages,
    option,
    plural,
)
from repertoire.registry import register

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["hf"]

_CHUNK = 1024


@register("data", "hf")
def hf(
    request: SourceRequest,
    name: str,
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Splits:
    """A Hugging Face dataset of images with a label, several labels or a number each.

    A path is read offline: a folder that `save_to_disk` wrote, `.parquet` or `.arrow` files (one, or a folder of them,
    each belonging to the split that its name or folder says), or a folder in their `imagefolder` layout. Anything else
    is a name on the hub, which is asked only with `request.download`. Splits named train, validation and test (or
    otherwise as usual: Training, dev, ...) are used as such, and those that do not exist are drawn from the training
    images; a dataset of one split is divided whole. A split named unlabelled becomes the extra set of that name.

    Images are decoded to RGB of one size and held in memory.

    Args:
        request: `size` is the side in pixels; by default that of the first image where it is square and at most 64, and
            128 otherwise.
        name: a path, or a name on the hub.
        config: which configuration of a dataset on the hub.
        image_column: by default the first column of type `Image`, or else "image" or "img".
        label_column: by default the first of type `ClassLabel`, or else "label", "labels", "class", "target" or
            "fine_label". Integers or text are classes, lists of them several labels, floats numbers; None and -1 are no
            label.

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
    opened, left_out = _open(name, config, request.download)
    tables, notes = _parts(name, opened)
    if left_out:
        notes.append(f"{plural(left_out, 'file')} hidden or left by a system, and not looked at.")
    first = next(iter(tables.values()))
    images = _column(first, "image", image_column, ("image", "img"))
    usual = ("label", "labels", "class", "target", "fine_label")
    if request.unlabelled and label_column is None and not _has_labels(first, usual):
        labels: dict[str, np.ndarray] = {part: np.full(len(table), -1, np.int64) for part, table in tables.items()}
        classes: tuple[str, ...] = ()
    else:
        labels, classes = _labels(name, tables, _column(first, "label", label_column, usual))
    if "test" in labels and labels["test"].ndim == 1 and (labels["test"] < 0).all() and not request.unlabelled:
        del tables["test"], labels["test"]
        notes.append("The dataset's test images have no labels; the test images were drawn from the others.")

    encoded = {part: _encoded(table, images) for part, table in tables.items()}
    size = request.size or _natural_size(encoded["train"], request.photographs)
    parts = {part: _decoded(table, images, size, request, part) for part, table in encoded.items()}
    found = settle(span for part in parts.values() for span in part.spans.values())
    levels = {kind: (request.levels or {}).get(kind, ends) for kind, ends in found.items()}
    sets: dict[str, ImageSet] = {}
    failures: list[Unreadable] = []
    for part, decoded in parts.items():
        if decoded.spans:
            decoded.again(levels)
        failures += [decoded.failed[row] for row in sorted(decoded.failed)]
        names = [f"{part}/{row}" for row in range(len(decoded.keys))]
        good = np.setdiff1d(np.arange(len(decoded.keys)), list(decoded.failed))
        whole = ImageSet(decoded.pixels, labels[part], names, classes, decoded.keys)
        sets[part] = whole.subset(good) if decoded.failed else whole
    if failures and not request.skip_unreadable:
        raise UnreadableImages(failures, sum(map(len, tables.values())))
    note = levels_note(levels)
    splits = make_splits(
        sets["train"],
        val_set=sets.get("val"),
        test_set=sets.get("test"),
        extra={"unlabelled": sets["unlabelled"]} if "unlabelled" in sets else None,
        seed=request.seed,
        val=request.val,
        test=request.test,
        source=f"hf:{name}",
        skipped=tuple(failures),
        notes=(*notes, *([note] if note else [])),
        unlabelled=request.unlabelled,
        single=request.single,
    )
    return replace(splits, levels=levels)


def _open(name: str, config: str | None, download: bool) -> tuple[Mapping[str, Dataset], int]:
    """The dataset's splits, by the names that they have there, and how many files of a folder were passed over."""
    import datasets
    import pyarrow  # type: ignore[import-untyped]

    path = Path(name)
    if not path.exists():
        if not download:
            raise ConfigError(
                f"data source 'hf': there is no file or folder {name!r}, and a dataset is fetched from the Hugging "
                f"Face hub only with {option('download', True)}"
            )
        source = f"{name!r} on the Hugging Face hub"
    elif config is not None:
        raise ConfigError(f"data source 'hf': config={config!r} is for datasets on the hub; {name!r} is a path")
    else:
        source = f"{name!r} as a Hugging Face dataset"
    try:
        loaded, left_out = (datasets.load_dataset(name, config), 0) if not path.exists() else _open_path(path)
    except (OSError, ValueError, datasets.exceptions.DatasetsError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read {source}: {' '.join(str(error).split())}") from error
    return loaded if isinstance(loaded, Mapping) else {"train": loaded}, left_out


def _open_path(path: Path) -> tuple[Any, int]:
    import datasets
    import pyarrow.parquet  # type: ignore[import-untyped]

    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return datasets.load_from_disk(os.fspath(path)), 0
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (".parquet", ".arrow"))
    if path.is_dir():
        files = [file for file in files if not _is_passed_over(file, path)]
    if not files:
        return _open_images(path)
    groups: dict[str, list[Dataset]] = {}
    for file in files:
        if file.suffix == ".parquet":
            table = datasets.Dataset(datasets.table.InMemoryTable(pyarrow.parquet.read_table(file)))
        else:
            table = datasets.Dataset.from_file(os.fspath(file))
        groups.setdefault(_split_of(file.relative_to(path.parent)), []).append(table)
    return {split: datasets.concatenate_datasets(parts) for split, parts in groups.items()}, 0


def _open_images(path: Path) -> tuple[Any, int]:
    """A folder in the `imagefolder` layout, and how many files were passed over."""
    import datasets

    root = Path(os.path.abspath(path))
    # Hidden ones the builder passes over by itself.
    files = [file for file in sorted(root.rglob("[!.]*")) if file.is_file()]
    kept = [file for file in files if not _is_passed_over(file, root)]
    named = {folder.name: part_of(folder.name) for folder in sorted(root.iterdir()) if folder.is_dir()}
    if len(kept) < len(files):
        # By their names: the builder takes any folder of images for a class, and would look for parts in all of them.
        options: dict[str, Any] = {"data_files": _by_part(kept, root)}
    elif "train" in named.values():  # it knows fewer names of parts than we do
        below = {name: os.path.join(glob.escape(str(root / name)), "**") for name, part in named.items() if part}
        options = {"data_files": below}
    else:
        options = {"data_dir": os.fspath(root)}
    # The builder writes a table of the file names, which is not needed for longer than it takes to read it.
    with tempfile.TemporaryDirectory(prefix="repertoire-hf-") as cache, _without_bars():
        loaded = datasets.load_dataset("imagefolder", cache_dir=cache, keep_in_memory=True, **options)
    return loaded, len(files) - len(kept)


def _by_part(files: Sequence[Path], root: Path) -> dict[str, list[str]]:
    """Patterns of files by the part that a folder says, the highest first; all are one where no folder says train."""
    groups: dict[str | None, list[str]] = defaultdict(list)
    for file in files:
        parts = (part_of(folder) for folder in file.relative_to(root).parts[:-1])
        groups[next(filter(None, parts), None)].append(glob.escape(os.fspath(file)))
    if "train" not in groups:
        return {"train": [pattern for several in groups.values() for pattern in several]}
    return {part: several for part, several in groups.items() if part is not None}


def _is_passed_over(file: Path, root: Path) -> bool:
    """Whether a file, or a folder between it and the root, is hidden or left by a system."""
    return any(map(passed_over, file.relative_to(root).parts))


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of `datasets`: what is on the disk is read in no time."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _split_of(file: Path) -> str:
    """The split that a file's name says, or else a folder's, the nearest first: `data/test-00000-of-00001.parquet`."""
    for part in (file.stem, *(parent.name for parent in file.parents)):
        for word in re.split(r"[^a-zA-Z]+", part):
            if part_of(word) is not None:
                return word
    return "train"


def _parts(name: str, found: Mapping[str, Dataset]) -> tuple[dict[str, Dataset], list[str]]:
    """The splits under our names, train first, and what to tell about those not used."""
    parts: dict[str, Dataset] = {}
    unused = []
    # Of several names of a part, the plainest is taken.
    for split in sorted(found, key=lambda split: (len(split), split)):
        part = part_of(split)
        if part is None or part in parts:
            unused.append(split)
        else:
            parts[part] = found[split]
    if "train" not in parts:
        if len(found) != 1:
            raise DataError(f"hf:{name} has no split named train; it has {', '.join(sorted(found)) or 'none'}")
        return {"train": next(iter(found.values()))}, []
    order = [part for part in ("train", "val", "test", "unlabelled") if part in parts]
    notes = [f"Splits that were not used: {', '.join(sorted(unused))}."] if unused else []
    return {part: parts[part] for part in order}, notes


def _has_labels(table: Dataset, usual: Sequence[str]) -> bool:
    import datasets

    return any(isinstance(f, datasets.ClassLabel) or name in usual for name, f in table.features.items())


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
    """The labels of each part as `Samples` has them, and the names of the classes."""
    import datasets

    for part, table in tables.items():
        if column not in table.column_names and part != "unlabelled":
            raise DataError(f"hf:{name}: the {part} split has no column {column!r}")
    values = {
        part: list(table[column]) if column in table.column_names else [None] * len(table)
        for part, table in tables.items()
    }
    feature = tables["train"].features[column]
    inner = getattr(feature, "feature", feature)
    names = tuple(inner.names) if isinstance(inner, datasets.ClassLabel) and inner.names else None
    present = [value for row in values.values() for value in row if value is not None]
    if present and all(isinstance(value, list) for value in present):
        return _several(values, names, f"hf:{name}: labels in {column!r}")
    if any(type(value) is float for value in present) and all(type(value) in (int, float) for value in present):
        numbers = {
            part: np.array([np.nan if v is None else v for v in row], np.float32) for part, row in values.items()
        }
        return {part: row[:, None] for part, row in numbers.items()}, (column,)
    known = _known(present, f"hf:{name}: labels in {column!r}", feature) if names is None else range(len(names))
    position = {value: number for number, value in enumerate(known)}
    numbers = {part: np.array([position.get(v, -1) for v in row], dtype=np.int64) for part, row in values.items()}
    return numbers, tuple(map(str, known)) if names is None else names


def _known(present: Iterable[Any], where: str, feature: Any) -> list[Any]:
    """The labels that occur, sorted."""
    found = set(present)
    if not all(type(value) is int for value in found) and not all(isinstance(value, str) for value in found):
        raise DataError(f"{where} must be integers, text, lists of them, or floats; found {feature}")
    return sorted(found - {-1})


def _several(
    values: Mapping[str, list[Any]], names: tuple[str, ...] | None, where: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Lists of labels as uint8 `[N, K]`."""
    present = (label for rows in values.values() for labels in rows if labels is not None for label in labels)
    known: Sequence[Any] = _known(present, where, "lists of other things") if names is None else range(len(names))
    position = {label: number for number, label in enumerate(known)}
    out = {}
    for part, rows in values.items():
        out[part] = np.zeros((len(rows), len(known)), dtype=np.uint8)
        for row, labels in enumerate(rows):
            if labels is None:
                out[part][row] = 255
            else:
                out[part][row, [position[label] for label in labels]] = 1
    return out, tuple(map(str, known)) if names is None else names


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


def _natural_size(table: Dataset, usual: int) -> int:
    """The side of the first image where it is small and square; what suits photographs otherwise."""
    try:
        width, height = dimensions(_bytes(next(iter(table[0].values()))))
    except (OSError, IndexError, ValueError):
        return usual  # an image that does not open is reported when all are decoded
    return width if width == height <= 64 else usual


class _Decoded:
    """The images of a split: pixels uint8 `[N, size, size, 3]`, keys, the rows that could not be decoded, and the range
    of those of more than 8 bits."""

    def __init__(self, table: Dataset, column: str, size: int, request: SourceRequest, part: str) -> None:
        self.pixels = np.zeros((len(table), size, size, 3), dtype=np.uint8)
        self.keys = np.zeros(len(table), dtype=np.uint64)
        self.failed: dict[int, Unreadable] = {}
        self.spans: dict[int, tuple[str, float, float]] = {}
        self._table, self._column, self._part = table, column, part
        self._size, self._request = size, request

    def decode(self, rows: Sequence[int], levels: Levels) -> None:
        """Decodes rows, in threads; without levels of their kind, those of more than 8 bits are looked at."""

        def one(row: int, cell: Any) -> None:
            try:
                data = _bytes(cell)
                self.keys[row] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
                pixels, span = decode_or_look(data, self._size, self._request.fit, levels)
                if pixels is not None:
                    self.pixels[row] = pixels
                if span is not None:
                    self.spans[row] = span
            except (OSError, ValueError) as error:
                self.failed[row] = Unreadable(f"{self._part}/{row}", plain_reason(error))

        with ThreadPoolExecutor(self._request.workers or os.cpu_count()) as pool:
            for start in range(0, len(rows), _CHUNK):
                # Pillow decodes outside the interpreter's lock; the results need no lock, since each has its own row.
                # A chunk at a time, so that the encoded images never are in memory together.
                part = list(rows[start : start + _CHUNK])
                list(pool.map(one, part, self._table[part][self._column]))

    def again(self, levels: Levels) -> None:
        """Decodes what was only looked at."""
        self.decode(sorted(self.spans), levels)


def _decoded(table: Dataset, column: str, size: int, request: SourceRequest, part: str) -> _Decoded:
    decoded = _Decoded(table, column, size, request, part)
    if request.shapes:
        # Nobody opens them: black images, and keys that are as different as theirs.
        decoded.pixels = np.broadcast_to(np.zeros((), np.uint8), decoded.pixels.shape)
        named = (f"{part}/{row}".encode() for row in range(len(table)))
        decoded.keys[:] = [int.from_bytes(hashlib.blake2b(n, digest_size=8).digest(), "little") for n in named]
        return decoded
    decoded.decode(range(len(table)), request.levels or {})
    return decoded
