"""Features that need not fit into memory: blocks of rows, and the moments that one pass over them gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire.errors import DataError, ShapeError
from repertoire.ops import class_index

__all__ = [
    "ROWS",
    "ClassMoments",
    "Features",
    "Moments",
    "as_labels",
    "blocks",
    "class_moments",
    "labels_of",
    "moments",
    "sample",
    "whole",
]

ROWS = 4096
"""Rows that are looked at together: bounds the temporaries."""

Features = Tensor | np.ndarray | Sequence[Any] | Callable[[], Iterable[Any]]
"""A matrix (a tensor, an array, a memory map); a list of blocks of its rows; or a function that starts a pass over such
blocks, for features that are made or read as they are needed."""


def blocks(features: Features, rows: int = ROWS) -> Iterator[Tensor]:
    """The rows, a block at a time, in order; of a memory map no more than a block is ever read.

    Args:
        features: see `Features`.
        rows: most rows of a block.

    Returns:
        Tensors `[n, d]` of the features' dtype, n <= rows; on the CPU for arrays, else where the features are.

    Raises:
        ShapeError: no floating point matrix, blocks of different widths, or an iterator, which cannot be passed over
            twice. DataError: values that are not finite; the first rows that have one are named.
    """
    start, width = 0, None
    for whole in _pieces(features):
        if not isinstance(whole, Tensor | np.ndarray):
            raise ShapeError(f"features must be tensors or arrays [N, d], found {type(whole).__name__}")
        floating = whole.is_floating_point() if isinstance(whole, Tensor) else whole.dtype.kind == "f"
        if whole.ndim != 2 or not floating:
            raise ShapeError(f"features must be a floating point [N, d], found {whole.dtype} {list(whole.shape)}")
        if width is not None and whole.shape[1] != width:
            raise ShapeError(f"features must be of one width, found blocks of {width} and of {whole.shape[1]} columns")
        width = whole.shape[1]
        for first in range(0, len(whole), rows):
            part = whole[first : first + rows]
            # Copied: a memory map may be read-only, which torch warns of.
            block = torch.from_numpy(np.array(part)) if isinstance(part, np.ndarray) else part.detach()
            _check_finite(block, start)
            start += len(block)
            yield block


def _pieces(features: Features) -> Iterable[Any]:
    if isinstance(features, Tensor | np.ndarray):
        return (features,)
    if callable(features):
        return features()
    if isinstance(features, Iterator):
        raise ShapeError(
            "features must allow more than one pass, found an iterator, which is used up after the first; give a list "
            "of blocks, or the function that makes the iterator"
        )
    return features


def _check_finite(block: Tensor, start: int) -> None:
    # The sum is finite unless a value is not, or the sum overflows: a pass over the values only where it must be.
    if bool(block.double().sum().isfinite()) or bool(block.isfinite().all()):
        return
    bad = (~block.isfinite().all(1)).nonzero().squeeze(1) + start
    named = ", ".join(str(int(i)) for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
    raise DataError(
        f"features must be finite, found nan or infinity in {'rows' if len(bad) > 1 else 'row'} {named}; leave such "
        "rows out, or look for an overflow in what computed them"
    )


def sample(features: Features, most: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draws at most so many rows, without replacement, and gives their positions, ascending: `[n, d]` and int64 `[n]`.

    One pass to count the rows and one to gather them; a single look at the shape where the features are a matrix.
    """
    if isinstance(features, Tensor | np.ndarray) and features.ndim == 2:
        count = len(features)
    else:
        count = sum(len(block) for block in blocks(features))
    if count <= most:
        index = torch.arange(count)
    else:
        index = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values
    if isinstance(features, np.ndarray) and features.ndim == 2:
        return next(blocks(np.asarray(features[index.numpy()]), max(1, most))) if count else _none(features), index
    kept, start = [], 0
    for block in blocks(features):
        here = index[(index >= start) & (index < start + len(block))] - start
        kept.append(block[here.to(block.device)])
        start += len(block)
    return torch.cat(kept) if kept else _none(features), index


def whole(features: Features) -> Tensor:
    """Gathers all rows in memory, `[N, d]`, for what looks at pairs of them; a tensor is given as it is.

    Errors: those of `blocks`.
    """
    kept = list(blocks(features))
    if isinstance(features, Tensor) and features.ndim == 2 and features.is_floating_point():
        return features
    return torch.cat(kept) if kept else _none(features)


def _none(features: Features) -> Tensor:
    width = features.shape[1] if isinstance(features, Tensor | np.ndarray) and features.ndim == 2 else 0
    return torch.zeros(0, width)


def labels_of(labels: Tensor | np.ndarray | Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """Indices 0..K-1 of the labels in sorted order, int64 `[N]`, and the rows of each class, int64 `[K]`.

    Raises:
        ShapeError: no labels, or labels that are no vector of integers.
    """
    if labels is None:
        raise ShapeError("labels are needed: integers [N], the class of each row")
    index, counts = class_index(as_labels(labels))
    return index, counts[counts > 0]


def as_labels(labels: Tensor | np.ndarray | Sequence[int]) -> Tensor:
    """Labels as a tensor, of the values that they have, int64 `[N]`.

    Raises:
        ShapeError: labels that are no vector of integers.
    """
    given = labels if isinstance(labels, Tensor) else torch.from_numpy(np.asarray(labels))
    if given.ndim != 1 or given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise ShapeError(f"labels must be integers [N], found {given.dtype} {list(given.shape)}")
    return given.long()


class Moments:
    """Mean and scatter of rows, added to block by block in double precision.

    Chan, Golub and LeVeque, *Algorithms for Computing the Sample Variance* (1983): every block is centred by its own
    mean, so nothing cancels however far the rows are from the origin.

    Attributes:
        count: N.
        mean: float64 `[d]`.
        scatter: float64 `[d, d]`, the sum of the outer products of the centred rows.
    """

    def __init__(self, width: int, device: torch.device | None = None) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Adds rows float64 `[n, d]`, n > 0. They are centred in place."""
        here = rows.mean(0)
        rows -= here
        self.scatter.addmm_(rows.T, rows)
        offset = here - self.mean
        total = self.count + len(rows)
        self.scatter.addr_(offset, offset, alpha=self.count * len(rows) / total)
        self.mean += offset * (len(rows) / total)
        self.count = total


class ClassMoments(Moments):
    """The same, with the rows and the sum of each class.

    Attributes:
        counts: int64 `[K]`.
        sums: float64 `[K, d]`.
    """

    def __init__(self, width: int, counts: Tensor, device: torch.device | None = None) -> None:
        super().__init__(width, device)
        self.counts = counts.to(device)
        self.sums = torch.zeros(len(counts), width, dtype=torch.float64, device=device)

    @property
    def means(self) -> Tensor:
        """float64 `[K, d]`."""
        return self.sums / self.counts[:, None]

    @property
    def within(self) -> Tensor:
        """Scatter of the rows about the means of their classes, float64 `[d, d]`."""
        offsets = (self.means - self.mean) * self.counts[:, None].double().sqrt()
        return self.scatter - offsets.T @ offsets


def moments(features: Features, rows: int = ROWS) -> Moments | None:
    """The moments of all rows, in one pass; None where there is no row. Errors: those of `blocks`."""
    found = None
    for block in blocks(features, rows):
        if found is None:
            found = Moments(block.shape[1], block.device)
        found.add(block.to(torch.float64, copy=True))
    return found


def class_moments(features: Features, labels: Tensor | np.ndarray | None) -> tuple[ClassMoments | None, Tensor]:
    """The moments of all rows and of the classes, in one pass, and the index of each row's class.

    Raises:
        ShapeError: labels that do not fit, or features and labels of different lengths. And the errors of `blocks`.
    """
    found, start = None, 0
    first = next(iter(blocks(features)), None)  # a wrong shape is said first
    index, counts = labels_of(labels)
    if first is None:
        if len(index):
            raise ShapeError(f"features and labels must be of one length, found 0 features and {len(index)} labels")
        return None, index
    for block in blocks(features):
        if found is None:
            found = ClassMoments(block.shape[1], counts, block.device)
        here = index[start : start + len(block)].to(block.device)
        start += len(block)
        if len(here) < len(block):
            break
        rows = block.to(torch.float64, copy=True)
        found.sums.index_add_(0, here, rows)
        found.add(rows)
    if start != len(index):
        known = f"{len(features)}" if isinstance(features, Tensor | np.ndarray) else f"{start} or more"
        raise ShapeError(f"features and labels must be of one length, found {known} features and {len(index)} labels")
    return found, index
