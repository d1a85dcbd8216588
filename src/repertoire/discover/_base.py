"""What discoverers share: how one is called, what it refuses, and how groups are numbered."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError

__all__ = ["Classes", "Discoverer", "Found", "reduced"]

Classes = int | Literal["auto"]
"""A number of classes, known and new together, or "auto" where it is to be estimated."""


class Found(NamedTuple):
    """What a discoverer found.

    Attributes:
        groups: int64 `[N]`; 0 to C - 1 are the known classes, anything from C on is a new group.
        outlier_scores: float `[N]`, larger for rows that fit no group.
        classes: the number of classes.
        interval: the least and the largest number that was estimated; None where the number was given.
        probabilities: float `[N, K]`, of the known classes and then of the new groups by their number; None where there
            are none.
    """

    groups: Tensor
    outlier_scores: Tensor
    classes: int
    interval: tuple[int, int] | None = None
    probabilities: Tensor | None = None


class Discoverer(BaseEstimator):
    """Groups rows without a label: into the known classes, and into new ones.

    A subclass has the options `classes` and `random_state`, and `_discover`. What it draws comes from the generator
    that it is given, and nothing else may decide what it finds.

    Attributes:
        labels_: int64 `[N]`, the group of each row. A known class keeps its number, and a row with a label its label;
            new groups are numbered from C on, the largest first.
        n_classes_: the number of classes, known and new, that was given or estimated. Where nothing fell into a group,
            `labels_` has fewer.
        n_classes_interval_: the least and the largest estimate, over the parts of the rows or the starts that it was
            made from, or None where the number was given. It says how far estimates scatter, and promises no coverage.
        outlier_scores_: float64 `[N]`, larger for rows that fit no group well, in units of the discoverer's own.
        probabilities_: float32 `[N, K]` of each group, columns as `labels_` numbers them; None where the discoverer has
            none.
        n_features_in_: d.
    """

    patches: ClassVar[bool] = False
    """Whether rows may also be patches `[N, P, d]`."""

    classes: Classes
    random_state: int
    labels_: np.ndarray
    n_classes_: int
    n_classes_interval_: tuple[int, int] | None
    outlier_scores_: np.ndarray
    probabilities_: np.ndarray | None

    def fit(self, X: Any, y: Any) -> Self:
        """Groups the rows of X.

        Args:
            X: float `[N, d]`, finite; NumPy or torch, in any precision.
            y: whole numbers `[N]`: the known class of a row, 0 to C - 1 with each of them there, or -1.

        Raises:
            ShapeError: shapes or dtypes that do not fit, or values that are not finite.
            ConfigError: fewer than two known classes, no row without a label, or more or fewer classes than there can
                be.
        """
        x, labels = self._check(X, y)
        known = int(labels.max()) + 1
        generator = torch.Generator().manual_seed(self.random_state)
        found = self._discover(x, labels, known, generator)
        groups = torch.where(labels >= 0, labels, found.groups)
        numbers = _numbers(groups, known)
        self.labels_ = numbers[groups].numpy()
        self.n_classes_, self.n_classes_interval_ = found.classes, found.interval
        self.outlier_scores_ = found.outlier_scores.double().numpy()
        self.probabilities_ = None
        if found.probabilities is not None:
            width = found.probabilities.shape[1]
            # The columns of groups that nothing fell into come last.
            order = torch.full((width,), -1)
            order[: min(width, len(numbers))] = numbers[:width]
            order[order < 0] = torch.arange(int(order.max()) + 1, width)
            self.probabilities_ = found.probabilities.float()[:, order.argsort()].numpy()
        self.n_features_in_ = x.shape[-1]
        return self

    def fit_predict(self, X: Any, y: Any) -> np.ndarray:
        """The group of each row, int64 `[N]`; see `fit`."""
        return self.fit(X, y).labels_

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        """Finds groups among float32 rows `[N, d]` with labels int64 `[N]`, -1 where there is none."""
        raise NotImplementedError

    def _check(self, X: Any, y: Any) -> tuple[Tensor, Tensor]:
        x = torch.as_tensor(X)
        allowed = (2, 3) if self.patches else (2,)
        if x.ndim not in allowed or not x.is_floating_point():
            shape = "[N, d] or [N, P, d]" if self.patches else "[N, d]"
            raise ShapeError(f"X must be floating point {shape}, found {x.dtype} {list(x.shape)}")
        x = x.detach().cpu().float()
        if not bool(x.isfinite().all()):
            row = int((~x.isfinite().flatten(1).all(1)).nonzero()[0])
            raise ShapeError(f"X must be finite, and row {row} is not")
        labels = torch.as_tensor(y).detach().cpu()
        if labels.shape != x.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ShapeError(f"y must be whole numbers [{len(x)}], found {labels.dtype} {list(labels.shape)}")
        labels = labels.long()
        if len(labels) and int(labels.min()) < -1:
            raise ConfigError(f"y is a class from 0 on, or -1 for a row without one; found {int(labels.min())}")
        present = labels[labels >= 0].unique()
        if len(present) < 2:
            raise ConfigError(
                f"y must know two classes or more, and knows {len(present)}; to cluster rows without any, use "
                "repertoire.ops.kmeans"
            )
        if len(present) <= int(present[-1]):
            raise ConfigError(
                f"y numbers {len(present)} known classes up to {int(present[-1])}; number them from 0 without a gap"
            )
        free = int((labels < 0).sum())
        if not free:
            raise ConfigError(
                "y has a class for every row, and nothing is left to discover; give -1 where there is none"
            )
        if self.classes != "auto" and not len(present) <= self.classes <= len(present) + free:
            raise ConfigError(
                f"classes must lie in {len(present)}..{len(present) + free}, known and new together, or be auto; found "
                f"{self.classes}"
            )
        return x, labels


def _numbers(groups: Tensor, known: int) -> Tensor:
    """What each group is called: known classes as they are, new ones from there on, the largest first; -1 if empty."""
    sizes = torch.bincount(groups, minlength=known)
    numbers = torch.full((len(sizes),), -1)
    numbers[:known] = torch.arange(known)
    new = sizes[known:]
    order = new.argsort(descending=True, stable=True)
    order = order[new[order] > 0]
    numbers[known + order] = known + torch.arange(len(order))
    return numbers


def reduced(x: Tensor, components: int, *, unit: bool = False) -> Tensor:
    """Rows at their principal components, with a mean variance of 1; the sign of each is made definite.

    Args:
        x: float32 `[N, d]`.
        components: how many at most.
        unit: give rows their length in the end.
    """
    x = x.double()
    centred = x - x.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    count = min(components, x.shape[1], max(1, len(x) - 1))
    values, vectors = values[-count:].flip(0), vectors[:, -count:].flip(1)
    # Eigenvectors have no sign of their own: the largest entry of each is made positive.
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    rows = centred @ (vectors * largest.sign())
    rows = rows / (float(values.clamp_min(0).mean().sqrt()) or 1.0)
    if unit:
        rows = torch.nn.functional.normalize(rows)
    return rows.float()
