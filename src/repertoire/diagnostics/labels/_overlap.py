"""Overlap of classes: the share of a sample's neighbours that are of another class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, as_labels, labels_of, sample, whole
from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import pair_topk

__all__ = ["ClassOverlap", "class_overlap", "neighbour_votes"]


@dataclass(frozen=True)
class ClassOverlap:
    """Spread of the neighbours of each class over the classes.

    Attributes:
        shares: float64 `[K, K]`; row k: of the neighbours of class k, the share of each class. Rows sum to one.
        purity: the mean of the diagonal: 1 where no class touches another.
        accuracy: share of the samples whose commonest class among the neighbours is their own: leave-one-out kNN. Of
            classes that are equally common one is drawn: a sample whose own is one of m counts 1/m.
        samples: how many samples were looked at.
    """

    shares: Tensor
    purity: float
    accuracy: float
    samples: int

    def pairs(self, most: int = 10) -> list[tuple[int, int, float]]:
        """The pairs of classes that overlap most, each once: both classes, and the mean share of either way."""
        both = (self.shares + self.shares.T) / 2
        upper = both.triu(1)
        values, places = upper.flatten().sort(descending=True, stable=True)
        found = zip(values[:most].tolist(), places[:most].tolist(), strict=True)
        return [(place // len(both), place % len(both), value) for value, place in found if value > 0]


@torch.no_grad()
def neighbour_votes(
    features: Features, labels: Tensor | np.ndarray, classes: int, *, queries: Features | None = None,
    neighbours: int = 20, temperature: float = 0.07,
) -> Tensor:  # fmt: skip
    r"""Class probabilities by the vote of the nearest rows by cosine; each row's own label has no say in its vote.

    The weights are :math:`\exp(s / \tau)`, as in Wu et al., *Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination* (2018). Neighbours are searched tile by tile: memory O((N + M)(d + K)).

    Args:
        features: float `[N, d]`, in memory or not: see :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        labels: integers `[N]` in 0..K-1.
        classes: K.
        queries: float `[M, d]`, rows to vote on; the features themselves if None, each without itself.
        neighbours: k; all there are if fewer.
        temperature: tau, positive.

    Returns:
        float64 `[M, K]`, rows that sum to one; uniform for a row without neighbours.

    Raises:
        ShapeError: shapes that do not fit, or a label that is no class. DataError: features that are not finite.
        ConfigError: options out of range.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import neighbour_votes
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> neighbour_votes(x, torch.tensor([0, 0, 1, 1]), 2, neighbours=1)[0]
        tensor([1., 0.], dtype=torch.float64)
    """
    features, labels = whole(features), as_labels(labels)
    queries = None if queries is None else whole(queries)
    if len(features) != len(labels):
        raise ShapeError(f"features and labels must be of one length, found {len(features)} and {len(labels)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ShapeError(f"labels must lie in 0..{classes - 1}, found {int(labels.min())} to {int(labels.max())}")
    if neighbours < 1 or not temperature > 0:
        raise ConfigError(f"neighbours and temperature must be positive, found {neighbours} and {temperature}")
    alone = queries is None
    count = min(neighbours, len(features) - alone)
    rows = len(features) if queries is None else len(queries)
    if count < 1 or not rows:
        return torch.full((rows, classes), 1 / max(1, classes), dtype=torch.float64)
    if queries is None:
        found = pair_topk(features, None, count, similarity="cosine", exclude_self=True)
    else:
        found = pair_topk(queries, features, count, similarity="cosine")
    # Relative to the largest, so that no weight overflows and one is never zero.
    values = found.values.double()
    weights = ((values - values[:, :1]) / temperature).exp()
    votes = torch.zeros(rows, classes, dtype=torch.float64, device=weights.device)
    votes.scatter_add_(1, labels.to(weights.device).long()[found.indices], weights)
    return votes / votes.sum(1, keepdim=True)


@torch.no_grad()
def class_overlap(
    features: Features, labels: Tensor | np.ndarray, *, neighbours: int = 10, most: int = 20_000, seed: int = 0
) -> ClassOverlap:
    """Measures the overlap of classes by the labels of the nearest other samples of each class, by cosine.

    Args:
        features: float `[N, d]`, in memory or not: see :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        labels: integers `[N]`, of any value; classes are numbered in sorted order.
        neighbours: of a sample.
        most: of more samples, so many are drawn: time grows with the square of their number, memory does not.
        seed: of the draw.

    Raises:
        ShapeError: shapes that do not fit, features and labels of different lengths. DataError: features that are not
            finite.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import class_overlap
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> class_overlap(x, torch.tensor([3, 3, 7, 7]), neighbours=1).purity
        1.0
    """
    rows, chosen = sample(features, most, seed)
    index, counts = labels_of(labels)
    if len(chosen) and (len(index) <= int(chosen[-1]) or (len(chosen) < most and len(index) != len(chosen))):
        raise ShapeError(f"features and labels must be of one length, found {len(index)} labels for other features")
    own, classes = index[chosen.to(index.device)].to(rows.device), len(counts)
    count = min(neighbours, len(rows) - 1)
    if count < 1:
        return ClassOverlap(torch.eye(classes, dtype=torch.float64), 1.0, 1.0, len(rows))
    near = own[pair_topk(rows, None, count, similarity="cosine", exclude_self=True).indices]
    table = torch.bincount((own[:, None] * classes + near).flatten(), minlength=classes**2).view(classes, classes)
    seen = table.sum(1) > 0
    shares = torch.eye(classes, dtype=torch.float64)
    shares[seen.cpu()] = (table[seen].double() / table[seen].sum(1, keepdim=True)).cpu()
    votes = torch.zeros(len(rows), classes, device=rows.device).scatter_add_(1, near, torch.ones_like(near).float())
    first = votes == votes.max(1, keepdim=True).values
    right = first.gather(1, own[:, None]).squeeze(1).double() / first.sum(1)
    return ClassOverlap(shares, float(shares.diagonal().mean()), float(right.mean()), len(rows))
