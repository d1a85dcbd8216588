"""Tables of samples and targets: which column is what, and what the targets are."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from repertoire.data._names import part_of
from repertoire.errors import DataError, ascii_path, nearest, option

__all__ = ["Table", "Targets", "class_numbers", "read_table"]

Targets = Literal["auto", "classes", "labels", "number"]
"""What the targets of a table are: found out, one class a row, several labels, or numbers."""

_COLUMNS = {
    "path": (
        *("path", "file", "filename", "filepath", "image", "img", "imagepath", "imagefile", "imageid", "imagename"),
        *("photo", "picture", "images"),
    ),
    "label": (
        "label",
        "labels",
        "class",
        "classes",
        "classname",
        "category",
        "categories",
        "target",
        "y",
        "tag",
        "tags",
    ),
    "split": ("split", "part", "partition", "set", "subset"),
    "group": ("group", "groupid", "groups", "subject", "subjectid", "patient", "patientid", "site", "session"),
}
_EMPTY = frozenset({"", "nan", "na", "n/a", "null", "none", "?"})
_SEPARATORS = re.compile(r"[;|]")


@dataclass
class Table:
    """Content of a table, a row for each sample.

    Attributes:
        paths: as they are written.
        labels, classes: see `Samples`; int64 `[N]`, uint8 `[N, K]` or float32 `[N, k]`.
        parts: "train", "val", "test", "unlabelled", or "" where the table does not say.
        groups: number of the group of each row; None without such a column.
        notes: for a person.
    """

    paths: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    parts: list[str]
    groups: np.ndarray | None
    notes: list[str]


def read_table(
    path: Path, *, targets: Targets = "auto", classes: Sequence[str] | None = None, unlabelled: bool = False
) -> Table:
    """Reads a table: comma, semicolon or tab between the columns, names of the columns in the first line.

    One column is the path of each image (path, file, filename, image, ...). Where one is called label (class, category,
    target, ...), it holds a class; several labels with ";" or "|" between them; or a number, if any value has a
    fraction. Where none is, the other columns are the targets: labels if they hold 0 and 1 only, else numbers; a single
    one of text is the class. `split` and `group` may be there. What is empty is not known.

    Args:
        path: the file.
        targets: what the targets are, if it is not to be found out: "classes", "labels" or "number".
        classes: the names in order, where they are given from outside.
        unlabelled: whether a table without targets will do.

    Raises:
        DataError: it cannot be read, the columns are not clear, a value does not fit the others, a path comes twice
            with different targets, or a class is not one of `classes`.
    """
    where = ascii_path(str(path))
    header, rows = _rows(path, where)
    roles = _roles(where, header, unlabelled)
    if not rows:
        raise DataError(f"{where} has column names and no rows")
    columns = dict(zip(header, (list(column) for column in zip(*rows, strict=True)), strict=True))
    paths = columns[roles["path"]]
    notes: list[str] = []
    if "label" in roles:
        labels, names = _one_column(where, roles["label"], columns[roles["label"]], targets)
        if unused := [name for name in header if name not in roles.values()]:
            notes.append(f"Columns of {path.name} that were not used: {', '.join(map(ascii_path, unused))}.")
    elif others := {name: columns[name] for name in header if name not in roles.values()}:
        labels, names = _other_columns(where, others, targets)
    else:
        labels, names = np.full(len(rows), -1, dtype=np.int64), ()
    if classes is not None:
        labels, names = _reorder(where, labels, names, classes)
    parts = _parts(where, columns[roles["split"]]) if "split" in roles else [""] * len(paths)
    groups = None
    if "group" in roles:
        groups = _groups(columns[roles["group"]])
    keep, note = _once(where, paths, labels)
    if note:
        notes.append(note)
    return Table(
        [paths[i] for i in keep],
        labels[keep],
        names,
        [parts[i] for i in keep],
        None if groups is None else groups[keep],
        notes,
    )


def class_numbers(values: Sequence[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Names of classes as int64 numbers `[N]`, -1 for None; and the names, whole numbers in their order, or sorted."""
    found = {value for value in values if value is not None}
    names = sorted(found, key=int) if found and all(_is_whole(value) for value in found) else sorted(found)
    position = {name: number for number, name in enumerate(names)}
    return np.array([-1 if v is None else position[v] for v in values], dtype=np.int64), tuple(names)


def _rows(path: Path, where: str) -> tuple[list[str], list[list[str]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            lines = [line for line in csv.reader(file, delimiter=delimiter) if any(cell.strip() for cell in line)]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not text in UTF-8 ({error.reason} at byte {error.start}); save it as such"
        ) from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{where} cannot be read as a table: {error}") from None
    if not lines:
        raise DataError(f"{where} is empty; expected a first line with the names of columns, as in path,label")
    header = [cell.strip() for cell in lines[0]]
    if twice := {name for name in header if header.count(name) > 1}:
        raise DataError(f"{where} has several columns named {', '.join(map(ascii_path, sorted(twice)))}")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise DataError(
                f"{where}: row {number} has {len(line)} cells, and the first line {len(header)}; put text that holds "
                f"{delimiter!r} between double quotes"
            )
    return header, [[cell.strip() for cell in line] for line in lines[1:]]


def _roles(where: str, header: Sequence[str], unlabelled: bool) -> dict[str, str]:
    """The column of each role that has one."""
    plain = {re.sub(r"[^a-z0-9]", "", name.casefold()): name for name in header}
    roles = {
        role: plain[usual[0]]
        for role, known in _COLUMNS.items()
        if (usual := [name for name in known if name in plain])
    }
    if "path" not in roles:
        guess = next((name for name in header if nearest(name, _COLUMNS["path"])), None)
        hint = f"; is it {ascii_path(guess)}?" if guess else ""
        raise DataError(
            f"{where} has no column of paths{hint} Its first line must name the columns, one of them path (or file, "
            f"filename, image); found {', '.join(map(ascii_path, header[:8]))}"
        )
    if "label" not in roles and len(roles) == len(header) and not unlabelled:
        raise DataError(
            f"{where} has no column of labels beside {', '.join(map(ascii_path, header))}; methods without labels "
            f"({option('method', 'simclr')}, say) need none"
        )
    return roles


def _known(value: str) -> str | None:
    return None if value.casefold() in _EMPTY else value


def _is_whole(value: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", value) is not None


def _as_number(value: str | None) -> float:
    """NaN for what is not known."""
    return math.nan if value is None else float(value)


def _is_number(value: str | None) -> bool:
    try:
        return value is None or math.isfinite(float(value))
    except ValueError:
        return False


def _one_column(where: str, name: str, values: Sequence[str], targets: Targets) -> tuple[np.ndarray, tuple[str, ...]]:
    known = [_known(value) for value in values]
    present = [value for value in known if value is not None]
    if targets == "auto":
        if any(_SEPARATORS.search(value) for value in present):
            targets = "labels"
        elif present and all(map(_is_number, present)) and not all(map(_is_whole, present)):
            targets = "number"
        else:
            targets = "classes"
    if targets == "number":
        return _numbers(where, {name: list(values)})
    if targets == "classes":
        return class_numbers(known)
    sets = [None if v is None else {part.strip() for part in _SEPARATORS.split(v) if part.strip()} for v in known]
    _, names = class_numbers([label for labels in sets if labels is not None for label in sorted(labels)])
    position = {label: number for number, label in enumerate(names)}
    out = np.zeros((len(sets), len(names)), dtype=np.uint8)
    for row, labels in enumerate(sets):
        if labels is None:
            out[row] = 255
        else:
            out[row, [position[label] for label in labels]] = 1
    return out, names


def _other_columns(where: str, columns: dict[str, list[str]], targets: Targets) -> tuple[np.ndarray, tuple[str, ...]]:
    known = {name: [_known(value) for value in values] for name, values in columns.items()}
    present = {value for values in known.values() for value in values} - {None}
    binary = all(_is_number(value) and float(value) in (0.0, 1.0) for value in present if value is not None)
    if targets == "auto":
        if binary:
            targets = "labels"
        elif all(map(_is_number, present)):
            targets = "number"
        else:
            targets = "classes"
    if targets == "number":
        return _numbers(where, columns)
    if targets == "labels" and binary:
        table = np.array([[_as_number(value) for value in values] for values in known.values()]).T
        return np.where(np.isnan(table), 255, table).astype(np.uint8), tuple(columns)
    if len(columns) == 1:
        (name,) = columns
        return _one_column(where, name, columns[name], targets)
    if targets == "classes" and binary:
        table = np.array([[_as_number(value) for value in values] for values in known.values()]).T
        several = np.flatnonzero((np.nan_to_num(table) == 1).sum(1) != 1)
        if len(several):
            raise DataError(
                f"{where}: row {several[0] + 2} does not have a 1 in exactly one of the columns "
                f"{', '.join(map(ascii_path, columns))}, as classes would; leave targets to be found out"
            )
        return np.nan_to_num(table).argmax(1).astype(np.int64), tuple(columns)
    text = [name for name, values in known.items() if not all(map(_is_number, values))]
    raise DataError(
        f"{where} does not say which column holds the labels: call it label. Columns without a name that is known: "
        f"{', '.join(map(ascii_path, columns))}; those of text: {', '.join(map(ascii_path, text)) or 'none'}"
    )


def _numbers(where: str, columns: dict[str, list[str]]) -> tuple[np.ndarray, tuple[str, ...]]:
    for name, values in columns.items():
        wrong = [row for row, value in enumerate(values, start=2) if not _is_number(_known(value))]
        if wrong:
            raise DataError(
                f"{where}: row {wrong[0]} of column {ascii_path(name)} is {ascii_path(values[wrong[0] - 2])!r}, which "
                "is no finite number"
            )
    table = np.array(
        [[_as_number(_known(value)) for value in values] for values in columns.values()], dtype=np.float32
    ).T
    # A sample of which one number is missing has no target.
    return np.where(np.isnan(table).any(1, keepdims=True), np.float32(np.nan), table), tuple(columns)


def _reorder(
    where: str, labels: np.ndarray, names: tuple[str, ...], wanted: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    unknown = sorted(set(names) - set(wanted))
    if unknown:
        guesses = [(name, nearest(name, wanted)) for name in unknown]
        hints = [
            ascii_path(name) + (f" (did you mean {ascii_path(guess)}?)" if guess else "") for name, guess in guesses
        ]
        raise DataError(
            f"{where} has unknown classes: {', '.join(hints)}; known are {', '.join(map(ascii_path, wanted))}"
        )
    if labels.ndim == 1:
        place = np.array([*(list(wanted).index(name) for name in names), -1], dtype=np.int64)
        return place[labels], tuple(wanted)
    fill = 0 if labels.dtype == np.uint8 else np.float32(np.nan)
    out = np.full((len(labels), len(wanted)), fill, dtype=labels.dtype)
    out[:, [list(wanted).index(name) for name in names]] = labels
    return out, tuple(wanted)


def _parts(where: str, values: Sequence[str]) -> list[str]:
    found = {value: "" if _known(value) is None else part_of(value) for value in set(values)}
    if unknown := sorted(value for value, part in found.items() if part is None):
        raise DataError(
            f"{where}: the column of parts has {', '.join(map(ascii_path, unknown[:5]))}; expected train, val, test or "
            "unlabelled, or nothing"
        )
    return [found[value] or "" for value in values]


def _groups(values: Sequence[str]) -> np.ndarray:
    """A number for each group; a row without one is a group of its own."""
    known = [_known(value) for value in values]
    names = {name: number for number, name in enumerate(sorted({value for value in known if value is not None}))}
    return np.array(
        [len(names) + row if name is None else names[name] for row, name in enumerate(known)], dtype=np.int64
    )


def _once(where: str, paths: Sequence[str], labels: np.ndarray) -> tuple[list[int], str | None]:
    """The first row of each path, and what to say about the others."""
    first: dict[str, int] = {}
    for row, path in enumerate(paths):
        before = first.setdefault(path, row)
        if row != before and not np.array_equal(labels[row], labels[before], equal_nan=labels.dtype.kind == "f"):
            raise DataError(
                f"{where}: {ascii_path(path)} comes twice with different labels, in rows {before + 2} and {row + 2}; "
                "several labels of one image go into one row, with ; between them"
            )
    again = len(paths) - len(first)
    return list(first.values()), f"{again} rows of {Path(where).name} were there twice." if again else None
