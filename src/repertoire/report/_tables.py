"""The confusion matrix as a grid of cells, or as its largest entries where there are too many classes to show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Cell", "Confusion", "Pair", "confusion_grid", "most_confused"]


@dataclass(frozen=True)
class Cell:
    """One entry: how many images, how strongly it is tinted (0 to 1), and whether it is on the diagonal."""

    count: int
    tint: float
    right: bool


@dataclass(frozen=True)
class Confusion:
    """The rows of the matrix, true classes down and predicted classes across."""

    classes: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Pair:
    """One kind of mistake: images of class `true` that were taken for class `predicted`."""

    true: str
    predicted: str
    count: int
    share: float
    """Of the test images of the true class."""


def confusion_grid(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Confusion:
    """The matrix, tinted by each entry's share of its row.

    Mistakes are tinted by the square root of their share, since the rare ones are what one looks for.
    """
    rows = []
    for i, row in enumerate(matrix):
        total = max(1, sum(row))
        cells = []
        for j, images in enumerate(row):
            share = images / total
            cells.append(Cell(images, round(share if i == j else math.sqrt(share), 3), i == j))
        rows.append(cells)
    return Confusion(classes, rows)


def most_confused(matrix: Sequence[Sequence[int]], classes: Sequence[str], most: int) -> list[Pair]:
    """The largest entries off the diagonal, largest first."""
    counts = np.array(matrix, dtype=np.int64)
    totals = counts.sum(1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = []
    for true, predicted in zip(*np.unravel_index(order, counts.shape), strict=True):
        images = int(counts[true, predicted])
        if images:
            pairs.append(Pair(classes[true], classes[predicted], images, images / int(totals[true])))
    return pairs
