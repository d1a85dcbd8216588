"""Images and targets from a table: a CSV file of paths and labels."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from repertoire.data._columns import Table, Targets, read_table
from repertoire.data._listed import Listed, splits_of, with_white
from repertoire.data._seen import Signature
from repertoire.data._source import SourceRequest
from repertoire.data._types import Splits
from repertoire.data._walk import walk
from repertoire.errors import ConfigError, DataError, ascii_path
from repertoire.registry import register

__all__ = ["listed_in", "table", "table_of"]

_USUAL = ("labels.csv", "labels.tsv", "metadata.csv")


@register("data", "table")
def table(
    request: SourceRequest,
    path: Path,
    targets: Targets = "auto",
    root: Path | None = None,
    white: float | None = None,
) -> Splits:
    """A CSV file of paths and labels: one class, several labels or numbers for each image.

    The first line names the columns: a path (path, file, filename, image, ...) and a label (label, class, category,
    target, ...); perhaps a split (train, val, test, unlabelled, or nothing) and a group (group, subject, patient, ...)
    that is to be on one side of the division. Commas, semicolons or tabs stand between the columns.

    - One class: text or whole numbers in the column of labels.
    - Several labels: a column of labels with ";" or "|" between them; or no such column, and one of 0 and 1 a label.
    - Numbers: a column of labels in which a value has a fraction; or no such column, and columns of numbers.

    What is empty is not known. Paths are relative to the file; their extension may be missing.

    Args:
        request: as for `folder`; with `unlabelled`, the table may have no targets.
        path: the file, `.csv` or `.tsv`.
        targets: "classes", "labels" or "number", where it is not to be found out. With "classes", columns of 0 and 1
            of which each row has a single 1 are one class.
        root: what the paths are relative to, if not the folder of the file.
        white: as for `folder`.

    Raises:
        DataError: the table cannot be read, a column is missing or unclear, values do not fit; as `make_splits`.
        UnreadableImages: some images cannot be used, unless `request.skip_unreadable`; all of them are named.

    Example:
        >>> table(SourceRequest(size=32), Path("data.csv")).classes  # doctest: +SKIP
        ('cat', 'dog')
    """
    if request.size is not None and request.size < 1:
        raise ConfigError(f"size must be at least 1 pixel, found {request.size}")
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {ascii_path(str(path))}")
    known = read_table(path, targets=targets, classes=request.classes, unlabelled=request.unlabelled)
    base = path.parent if root is None else Path(root)
    return splits_of(listed_in(base, known), with_white(request, white), path.resolve().parent.name + "/" + path.name)


def table_of(
    root: Path, files: Sequence[str], targets: Targets, classes: Sequence[str] | None
) -> tuple[Table | None, str | None]:
    """The table of labels in a folder, if it names images of it; or else what to say about it.

    Raises:
        DataError: the folder has no directories, and its table cannot be used.
    """
    if root.is_file():
        return read_table(root, targets=targets, classes=classes), None
    name = next((name for name in _USUAL if (root / name).is_file()), None)
    if name is None:
        return None, None
    try:
        found = read_table(root / name, targets=targets, classes=classes)
    except DataError as error:
        if not any("/" in file for file in files):
            raise
        return None, f"{name} was not used, and the directories are the classes: {error}."
    present = _Files(root, files)
    hits = sum(present.find(path) is not None for path in found.paths)
    if 2 * hits < len(found.paths):
        return None, f"{name} was not used: it names {hits} images that are here, and {len(found.paths) - hits} others."
    return found, None


def listed_in(
    root: Path,
    table: Table,
    files: Sequence[str] | None = None,
    signatures: Mapping[str, Signature] | None = None,
) -> Listed:
    """The images that a table names.

    Args:
        root: what the paths are relative to.
        table: see `read_table`.
        files: what lies below the root; looked up where it is needed if None.
        signatures: of these files.
    """
    present = _Files(root, files)
    names = [present.find(path) or os.path.normpath(path) for path in table.paths]
    return Listed(
        root,
        names,
        table.labels,
        table.classes,
        table.parts,
        groups=table.groups,
        signatures=signatures or {},
        notes=list(table.notes),
    )


class _Files:
    """Finds the files that a table means."""

    def __init__(self, root: Path, files: Sequence[str] | None) -> None:
        self._root = root
        self._files = None if files is None else set(files)
        self._stems: dict[str, list[str]] | None = None

    def find(self, path: str) -> str | None:
        """A file by its path, relative to the root or not; by its path without extension; or by its name, with
        extension or without, where it is the only one. None if there is none."""
        name = os.path.normpath(path.replace("\\", "/"))
        if (self._files is not None and name in self._files) or os.path.isfile(os.path.join(self._root, name)):
            return name
        last = name.rpartition("/")[2]
        if self._files is None and "." in last:
            return None  # what lies below the folder of a table may be much
        found = self._by_stem().get(name) or self._by_stem().get("/" + last, [])
        return found[0] if len(found) == 1 else None

    def _by_stem(self) -> dict[str, list[str]]:
        if self._stems is None:
            self._stems = defaultdict(list)
            for file in walk(self._root).files if self._files is None else sorted(self._files):
                folder, slash, name = file.rpartition("/")
                stem = name.rpartition(".")[0] or name
                self._stems[folder + slash + stem].append(file)
                for word in {stem, name}:
                    self._stems["/" + word].append(file)
        return self._stems
