"""Seen classes held out as if they were unseen, to choose on without a row of a class that is unseen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from repertoire.errors import ShapeError

__all__ = ["HeldOut", "held_out"]


@dataclass(frozen=True)
class HeldOut:
    """A division of rows of seen classes.

    Attributes:
        fitted: rows to learn from, of the classes that stay seen.
        seen: other rows of these classes.
        unseen: all rows of the classes that are held out.
        classes: the classes held out.
    """

    fitted: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray
    classes: np.ndarray


def held_out(y: np.ndarray, folds: int = 3, random_state: int = 0) -> Iterator[HeldOut]:
    """Divides seen classes into folds, each of which is held out in turn; of the others, every fifth row is.

    Args:
        y: the class of each row, int `[N]`.
        folds: how often; each class is held out once.
        random_state: seed of which classes are held out together, and of which rows.

    Raises:
        ShapeError: there are so few classes that two would not stay seen in every fold.
    """
    classes = np.unique(y)
    if len(classes) - -(-len(classes) // folds) < 2 or len(classes) < folds:
        raise ShapeError(
            f"to choose between seen and unseen classes, {folds} folds of seen classes are held out in turn, and "
            f"there are {len(classes)} classes: give rows of {2 * folds} or more"
        )
    generator = np.random.default_rng(random_state)
    order = generator.permutation(classes)
    shuffled = generator.permutation(len(y))
    for fold in range(folds):
        away = np.sort(order[fold::folds])
        unseen = np.isin(y, away)
        later = np.zeros(len(y), dtype=bool)
        for label in np.setdiff1d(classes, away):
            rows = shuffled[y[shuffled] == label]
            # One row at least stays to learn from, and one is kept back where there are two.
            later[rows[: max(len(rows) // 5, min(1, len(rows) - 1))]] = True
        yield HeldOut(np.flatnonzero(~unseen & ~later), np.flatnonzero(later), np.flatnonzero(unseen), away)
