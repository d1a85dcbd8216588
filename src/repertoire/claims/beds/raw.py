"""What inputs give as they come, without a network or its training: the least that a trained one must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from torch import Tensor

from repertoire.claims.beds.frozen import Rows, tensors_of

if TYPE_CHECKING:
    from repertoire.data import Splits

__all__ = ["raw_accuracy", "raw_accuracy_of_rows", "raw_numbers", "raw_patches", "raw_scores"]


def raw_accuracy_of_rows(rows: Rows, *, balanced: bool = False) -> float:
    """Test accuracy of the best of three rules that learn no features from the rows to learn from: the most frequent
    class, the nearest class mean, and the five nearest neighbours.

    Args:
        rows: with a class each; those to choose on are not used. Images count as rows of their pixels.
        balanced: the mean of the classes' accuracies, where a claim's metric is that.
    """
    x, y, test_x, test_y = rows.x.flatten(1), rows.y, rows.test_x.flatten(1), rows.test_y
    known = y.unique()
    means = torch.stack([x[y == c].mean(0) for c in known])
    near = KNeighborsClassifier(min(5, len(x))).fit(x.cpu().numpy(), y.cpu().numpy()).predict(test_x.cpu().numpy())
    answers = known[torch.cdist(test_x, means).argmin(1)], torch.from_numpy(near).to(y), y.mode().values
    return max(_accuracy(answer == test_y, test_y, balanced) for answer in answers)


def raw_scores(rows: Rows, count: int = 20) -> Tensor:
    """For each row of the test how many of its nearest neighbours have each of several labels, as shares `[N, labels]`.

    Args:
        rows: targets are float `[N, labels]`.
        count: number of neighbours.
    """
    model = KNeighborsRegressor(min(count, len(rows.x))).fit(rows.x.cpu().numpy(), rows.y.cpu().numpy())
    return torch.from_numpy(model.predict(rows.test_x.cpu().numpy())).to(rows.test_y)


_BESIDE = (7, 15, 19, 27)
"""Columns of the inputs of `patches` with the near infrared of the four pixels that have a side in common with the
middle one."""


def raw_numbers(rows: Rows, columns: Sequence[int] = ()) -> list[Tensor]:
    """What rules that learn no features predict for the test rows: the median of the numbers to learn from, the mean of
    those of the five nearest neighbours, and the mean of some columns.

    Args:
        rows: with a number each.
        columns: those that are in the unit of the numbers; none by default.
    """
    model = KNeighborsRegressor(min(5, len(rows.x))).fit(rows.x.cpu().numpy(), rows.y.cpu().numpy())
    near = torch.from_numpy(model.predict(rows.test_x.cpu().numpy())).to(rows.test_y)
    found = [rows.y.median().expand(len(near)), near]
    return [*found, rows.test_x[:, list(columns)].mean(1)] if columns else found


def raw_patches(rows: Rows) -> list[Tensor]:
    """The same of patches of ground, whose middle pixel is much like the mean of the four beside it."""
    return raw_numbers(rows, _BESIDE)


def raw_accuracy(splits: Splits, *, balanced: bool = False) -> float:
    """The same of samples: images by their pixels, in [0, 1]."""
    x, y = tensors_of(splits.train)
    test_x, test_y = tensors_of(splits.test)
    return raw_accuracy_of_rows(Rows(x, y, x[:0], y[:0], test_x, test_y), balanced=balanced)


def _accuracy(right: Tensor, labels: Tensor, balanced: bool) -> float:
    if not balanced:
        return float(right.double().mean())
    return float(torch.stack([right[labels == c].double().mean() for c in labels.unique()]).mean())
