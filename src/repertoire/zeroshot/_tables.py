"""Tables about classes that a user writes: what they are like, and how far they are from each other."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, shortest_path

from repertoire.errors import DataError, ascii_path, nearest

__all__ = ["ClassDistances", "ClassTable", "read_attributes", "read_class_distances"]


@dataclass(frozen=True)
class ClassTable:
    """Classes and what they are like.

    Attributes:
        classes: their names, `[C]`.
        attributes: the names of the attributes, `[a]`.
        values: float64 `[C, a]`.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class ClassDistances:
    """How far classes are from each other.

    Attributes:
        answers: the classes that may be named, `[A]`.
        classes: those that distances are known to, `[L]`.
        values: float64 `[A, L]`; None of a tree, in which only the distances that are asked for are computed.
        inner: of a tree, which of the answers have others below them, bool `[A]`; False elsewhere.
        source: the file, for messages.
        edges: of a tree, sparse `[A, A]`; None elsewhere.
    """

    answers: tuple[str, ...]
    classes: tuple[str, ...]
    values: np.ndarray | None
    inner: np.ndarray
    source: str = ""
    edges: Any = None

    def to(self, known: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
        """The answers, and their distances to the classes that a model knows, float64 `[A, len(known)]`.

        A class of a tree that has others below it is an answer only if the model knows it.

        Raises:
            DataError: a class that the model knows is not in the table.
        """
        places = {name: place for place, name in enumerate(self.classes)}
        for name in known:
            if name not in places:
                near = nearest(name, self.classes)
                hint = f"; did you mean {near!r} there?" if near else ""
                raise DataError(f"{self.source} has no class {name!r}, which the run was trained on{hint}")
        kept = np.flatnonzero(~self.inner | np.isin(self.answers, list(known)))
        columns = np.array([places[name] for name in known], dtype=np.int64)
        if self.values is not None:
            values = self.values[np.ix_(kept, columns)]
        else:
            values = shortest_path(self.edges, directed=False, indices=columns)[:, kept].T
        return tuple(self.answers[i] for i in kept), values


def read_attributes(path: str | os.PathLike[str]) -> ClassTable:
    """Reads what classes are like from a CSV: a first row of names, then a row for each class.

        class,striped,hooves,weight
        zebra,1,1,0.4
        tiger,1,0,0.2

    Args:
        path: of the file. The first column names the class, every other is a number.

    Raises:
        DataError: it cannot be read, has no such form, or names a class twice.

    Example:
        >>> import tempfile, pathlib
        >>> from repertoire.zeroshot import read_attributes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "attributes.csv")
        ...     _ = file.write_text("class,striped,hooves\\nzebra,1,1\\ntiger,1,0\\n")
        ...     read_attributes(file).values
        array([[1., 1.],
               [1., 0.]])
    """
    header, rows, shown = _read(path)
    if len(header) < 2 or not rows:
        raise DataError(f"{shown} must have a column of classes, one for each attribute, and a row for each class")
    names = _distinct([row[0] for _, row in rows], shown, "class")
    return ClassTable(names, _distinct(header[1:], shown, "attribute"), _numbers(rows, header, shown))


def read_class_distances(path: str | os.PathLike[str]) -> ClassDistances:
    """Reads how far classes are from each other from a CSV: a tree, or a table of distances.

    A tree has the columns `class` and `parent`, and `length` where edges have other lengths than 1; the parent of the
    root is empty. The distance of two classes is the length of the way between them.

        class,parent
        animal,
        dog,animal
        cat,animal

    A table of distances names classes in its first row, and an answer in each other row with its distances to them.

        class,cat,dog
        cat,0,2
        dog,2,0
        wolf,2.5,0.5

    Args:
        path: of the file.

    Raises:
        DataError: it cannot be read, has neither form, names a class twice, has distances below 0, or is no one tree.

    Example:
        >>> import tempfile, pathlib
        >>> from repertoire.zeroshot import read_class_distances
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "tree.csv")
        ...     _ = file.write_text("class,parent\\nanimal,\\ndog,animal\\ncat,animal\\n")
        ...     read_class_distances(file).to(["dog"])
        (('dog', 'cat'), array([[0.],
               [2.]]))
    """
    header, rows, shown = _read(path)
    columns = [name.lower() for name in header]
    if "class" in columns and "parent" in columns:
        return _tree(columns, rows, shown)
    if len(header) < 2 or not rows:
        raise DataError(f"{shown} must have the columns class and parent, or be a table of distances between classes")
    answers = _distinct([row[0] for _, row in rows], shown, "class")
    values = _numbers(rows, header, shown)
    if (values < 0).any():
        row = int(np.flatnonzero((values < 0).any(1))[0])
        raise DataError(f"{shown} has a distance below 0 in the row of {answers[row]!r}")
    classes = _distinct(header[1:], shown, "class")
    return ClassDistances(answers, classes, values, np.zeros(len(answers), dtype=bool), shown)


def _tree(columns: list[str], rows: list[tuple[int, list[str]]], shown: str) -> ClassDistances:
    name, parent = columns.index("class"), columns.index("parent")
    length = columns.index("length") if "length" in columns else None
    names = _distinct([row[name] for _, row in rows], shown, "class")
    above = [row[parent] for _, row in rows]
    # A parent without a row of its own is a root.
    told = set(names)
    names += tuple(dict.fromkeys(each for each in above if each and each not in told))
    places = {each: place for place, each in enumerate(names)}
    child = [place for place, each in enumerate(above) if each]
    lengths = [1.0 if length is None else _number(rows[place][1][length], rows[place][0], shown) for place in child]
    if any(each <= 0 for each in lengths):
        raise DataError(f"{shown} has an edge of a length that is not above 0")
    parents = [places[above[place]] for place in child]
    if len(child) != len(names) - 1:
        below = {names[place] for place in child}
        roots = [each for each in names if each not in below]
        said = " and ".join(map(repr, roots[:2])) if roots else "no class"
        raise DataError(f"{shown} must be one tree, and has {len(roots)} roots: {said}; give them one parent")
    graph = coo_matrix((lengths, (child, parents)), shape=(len(names), len(names)))
    if connected_components(graph, directed=False, return_labels=False) > 1:
        raise DataError(f"{shown} must be one tree, and some classes are among their own parents")
    inner = np.isin(np.arange(len(names)), parents)
    return ClassDistances(names, names, None, inner, shown, graph.tocsr())


def _read(path: str | os.PathLike[str]) -> tuple[list[str], list[tuple[int, list[str]]], str]:
    """Header and rows with their line numbers, every cell stripped, every row as wide as the header."""
    shown = ascii_path(os.fspath(path))
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(file), 1)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{shown} cannot be read as CSV: {error}") from None
    lines = [(number, row) for number, row in lines if any(row)]
    if not lines:
        raise DataError(f"{shown} is empty")
    (_, header), *rows = lines
    for number, row in rows:
        if len(row) != len(header):
            raise DataError(f"{shown}, line {number}: {len(row)} cells, and the first row has {len(header)}")
    return header, rows, shown


def _distinct(names: Sequence[str], shown: str, what: str) -> tuple[str, ...]:
    if "" in names:
        raise DataError(f"{shown} has a {what} without a name")
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise DataError(f"{shown} names the {what} {twice!r} twice")
    return tuple(names)


def _numbers(rows: list[tuple[int, list[str]]], header: list[str], shown: str) -> np.ndarray:
    return np.array(
        [
            [_number(cell, number, shown, column) for column, cell in zip(header[1:], row[1:], strict=True)]
            for number, row in rows
        ],
        dtype=np.float64,
    )


def _number(cell: str, line: int, shown: str, column: str = "length") -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{shown}, line {line}: {column} is {cell!r}; expected a number")
    return value
