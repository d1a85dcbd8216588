"""How well clusters agree with classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from repertoire.metrics._arrays import Values, integers, same_length

__all__ = ["ClusteringAccuracy", "clustering_accuracy", "nmi"]


@dataclass(frozen=True)
class ClusteringAccuracy:
    """The accuracy of clusters, once each has been given a class.

    Attributes:
        all: the share of all samples whose cluster was given their class.
        old: the same over the samples of the classes that were known before; NaN without any.
        new: the same over all other samples; NaN without any.
        classes: the class of each cluster, by cluster; clusters without one of their own are not in it.
    """

    all: float
    old: float
    new: float
    classes: dict[int, int]


def clustering_accuracy(clusters: Values, labels: Values, old: Values = ()) -> ClusteringAccuracy:
    """The accuracy of clusters under the best assignment of classes to them, one to one.

    Kuhn, *The Hungarian Method for the Assignment Problem* (1955); with old and new classes as in Vaze et al.,
    *Generalized Category Discovery* (CVPR 2022): the assignment is made once, over all samples, and old and new classes
    are judged by that same one. Two assignments would let a cluster count twice.

    Args:
        clusters: whole numbers `[N]`, the cluster of each sample; any numbers, as many clusters as there are.
        labels: whole numbers `[N]`, the class of each sample.
        old: the classes that were known before; none by default.

    Returns:
        The accuracies; all NaN without samples. Clusters beyond the number of classes count as wrong.

    Raises:
        ShapeError: shapes that do not fit, or numbers that are not whole.

    Example:
        >>> from repertoire.metrics import clustering_accuracy
        >>> found = clustering_accuracy([7, 7, 3, 3, 3], [0, 0, 1, 1, 0], old=[0])
        >>> found.all, round(found.old, 3), found.new, found.classes
        (0.8, 0.667, 1.0, {3: 1, 7: 0})
    """
    from scipy.optimize import linear_sum_assignment

    clusters, labels = integers("clusters", clusters), integers("labels", labels)
    same_length(clusters=clusters, labels=labels)
    if not len(labels):
        return ClusteringAccuracy(math.nan, math.nan, math.nan, {})
    groups, classes, table = _table(clusters, labels)
    rows, columns = linear_sum_assignment(table, maximize=True)
    given = {int(groups[row]): int(classes[column]) for row, column in zip(rows, columns, strict=True)}
    hits = np.zeros(len(classes))
    hits[columns] = table[rows, columns]
    counts = table.sum(0)
    known = np.isin(classes, np.asarray(list(old) if not hasattr(old, "shape") else old))
    return ClusteringAccuracy(
        float(hits.sum() / counts.sum()),
        _share(hits[known], counts[known]),
        _share(hits[~known], counts[~known]),
        given,
    )


def nmi(clusters: Values, labels: Values) -> float:
    r"""The mutual information of clusters and classes, divided by the mean of their entropies.

    Strehl and Ghosh, *Cluster Ensembles* (JMLR 2002), with the arithmetic mean in place of the geometric one:

    .. math:: \frac{2 I(C; Y)}{H(C) + H(Y)}

    It grows with the number of clusters even where they are random: compare equal numbers of clusters.

    Args:
        clusters: whole numbers `[N]`.
        labels: whole numbers `[N]`.

    Returns:
        From 0 to 1; 1 where there is one cluster and one class, which agree; NaN without samples.

    Raises:
        ShapeError: shapes that do not fit, or numbers that are not whole.

    Example:
        >>> from repertoire.metrics import nmi
        >>> nmi([1, 1, 0, 0], [0, 0, 1, 1])
        1.0
    """
    clusters, labels = integers("clusters", clusters), integers("labels", labels)
    same_length(clusters=clusters, labels=labels)
    if not len(labels):
        return math.nan
    _, _, table = _table(clusters, labels)
    share = table / table.sum()
    rows, columns = share.sum(1), share.sum(0)
    both = _entropy(rows) + _entropy(columns)
    if both == 0:
        return 1.0
    there = share > 0
    information = (share[there] * np.log(share[there] / np.outer(rows, columns)[there])).sum()
    return float(np.clip(2 * information / both, 0, 1))


def _table(clusters: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups, row = np.unique(clusters, return_inverse=True)
    classes, column = np.unique(labels, return_inverse=True)
    table = np.bincount(row * len(classes) + column, minlength=len(groups) * len(classes))
    return groups, classes, table.reshape(len(groups), len(classes))


def _entropy(shares: np.ndarray) -> float:
    return float(-(shares * np.log(shares)).sum())


def _share(hits: np.ndarray, counts: np.ndarray) -> float:
    return float(hits.sum() / counts.sum()) if len(counts) else math.nan
