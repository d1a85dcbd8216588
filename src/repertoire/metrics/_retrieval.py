"""Whether the nearest embeddings are of the same class: in strips of queries, never a matrix of all pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.metrics._arrays import Values, integers

__all__ = ["Retrieval", "map_at_r", "r_precision", "recall_at_k", "retrieval", "retrieval_average_precision"]

Nearness = Literal["cosine", "dot", "euclidean"]

#: Similarities that are held at once: the fastest of 2^18 to 2^23.
_STRIP = 2**21


@dataclass(frozen=True)
class Retrieval:
    """Metrics of how well embeddings retrieve others of their class.

    Attributes:
        recall: by k, the share of queries with one of their class among the k nearest.
        r_precision: the share of the query's class among the R nearest, where R others are of that class.
        map_at_r: the same, weighted by how far to the front they are.
        queries: how many queries had another of their class to find; the means are over these, and NaN without any.
    """

    recall: dict[int, float]
    r_precision: float
    map_at_r: float
    queries: int


def retrieval(
    embeddings: Values,
    labels: Values,
    gallery: Values | None = None,
    gallery_labels: Values | None = None,
    *,
    k: Sequence[int] = (1,),
    nearness: Nearness = "cosine",
) -> Retrieval:
    r"""Recall@K, R-precision and MAP@R, in one pass.

    Musgrave, Belongie and Lim, *A Metric Learning Reality Check* (ECCV 2020). For a query with R others of its class:

    .. math::
        \mathrm{MAP@R} = \frac{1}{R} \sum_{i=1}^{R} P(i) \, [\text{the } i\text{-th nearest is of the class}]

    where P(i) is the share of the class among the i nearest. Of rows that are equally near, those of other classes come
    first: an embedding that has collapsed to a point retrieves nothing. Nearness is computed in float32.

    Args:
        embeddings: float `[N, d]`, the queries.
        labels: whole numbers `[N]`; rows below 0 are of no known class and are left out.
        gallery: float `[M, d]`, what is searched; None (default) searches the embeddings themselves, each query without
            itself.
        gallery_labels: whole numbers `[M]`, with a gallery.
        k: the K of Recall@K, each 1 or more; (1,) by default.
        nearness: "cosine" (default), "dot" or "euclidean".

    Returns:
        The means over the queries that have something to find.

    Raises:
        ShapeError: shapes that do not fit, or numbers that are not finite.
        ConfigError: a k below 1, or an unknown nearness.

    Example:
        >>> from repertoire.metrics import retrieval
        >>> retrieval([[0.0], [1.0], [3.0], [3.5]], [0, 0, 1, 1], k=(1, 2), nearness="euclidean")
        Retrieval(recall={1: 1.0, 2: 1.0}, r_precision=1.0, map_at_r=1.0, queries=4)
    """
    wanted = sorted({int(value) for value in k})
    if any(value < 1 for value in wanted):
        raise ConfigError(f"k is {list(k)}; expected numbers from 1 up")
    found = dict.fromkeys(wanted, 0)
    precision = average = 0.0
    queries = 0
    for keys, relevant in _strips(embeddings, labels, gallery, gallery_labels, nearness):
        most = min(max(*wanted, 0, int(relevant.max())), keys.shape[1])
        right = _is_right(keys.topk(most, dim=1).values)
        within = torch.arange(1, most + 1) <= relevant[:, None]
        hits = right.cumsum(1)
        first = torch.where(right.any(1), right.int().argmax(1), most)
        for value in wanted:
            found[value] += int((first < value).sum())
        precision += float(((right & within).sum(1) / relevant).sum())
        ranked = hits / torch.arange(1, most + 1)
        average += float(((ranked * (right & within)).sum(1).double() / relevant).sum())
        queries += len(keys)
    if not queries:
        return Retrieval(dict.fromkeys(wanted, math.nan), math.nan, math.nan, 0)
    return Retrieval({v: n / queries for v, n in found.items()}, precision / queries, average / queries, queries)


def recall_at_k(embeddings: Values, labels: Values, k: int = 1, *, nearness: Nearness = "cosine") -> float:
    """The share of embeddings with one of their class among their k nearest others.

    Jégou, Douze and Schmid, *Product Quantization for Nearest Neighbor Search* (2011), as Song et al., *Deep Metric
    Learning via Lifted Structured Feature Embedding* (CVPR 2016), use it. See :func:`repertoire.metrics.retrieval`.

    Example:
        >>> from repertoire.metrics import recall_at_k
        >>> recall_at_k([[0.0], [1.0], [1.5], [3.0]], [0, 0, 1, 1], nearness="euclidean")
        0.5
    """
    return retrieval(embeddings, labels, k=(k,), nearness=nearness).recall[k]


def r_precision(embeddings: Values, labels: Values, *, nearness: Nearness = "cosine") -> float:
    """The share of its class among an embedding's R nearest others, where R others are of its class.

    Musgrave, Belongie and Lim, *A Metric Learning Reality Check* (ECCV 2020). See
    :func:`repertoire.metrics.retrieval`.

    Example:
        >>> from repertoire.metrics import r_precision
        >>> r_precision([[0.0], [1.0], [1.5], [3.0]], [0, 0, 1, 1], nearness="euclidean")
        0.5
    """
    return retrieval(embeddings, labels, k=(), nearness=nearness).r_precision


def map_at_r(embeddings: Values, labels: Values, *, nearness: Nearness = "cosine") -> float:
    """The mean average precision among an embedding's R nearest others, where R others are of its class.

    Musgrave, Belongie and Lim, *A Metric Learning Reality Check* (ECCV 2020). See
    :func:`repertoire.metrics.retrieval`.

    Example:
        >>> from repertoire.metrics import map_at_r
        >>> map_at_r([[0.0], [1.0], [1.5], [3.0]], [0, 0, 1, 1], nearness="euclidean")
        0.5
    """
    return retrieval(embeddings, labels, k=(), nearness=nearness).map_at_r


def retrieval_average_precision(
    embeddings: Values,
    labels: Values,
    gallery: Values | None = None,
    gallery_labels: Values | None = None,
    *,
    nearness: Nearness = "cosine",
) -> float:
    """The mean over queries of the average precision of ranking all others by nearness.

    See :func:`repertoire.metrics.average_precision`: rows that are equally near are taken together. Sorts all others
    for each query; :func:`repertoire.metrics.retrieval` is faster where its measures will do.

    Args:
        embeddings: float `[N, d]`, the queries.
        labels: whole numbers `[N]`; rows below 0 are of no known class and are left out.
        gallery: float `[M, d]`, what is searched; None (default) searches the embeddings themselves, each query without
            itself.
        gallery_labels: whole numbers `[M]`, with a gallery.
        nearness: "cosine" (default), "dot" or "euclidean".

    Returns:
        The mean over the queries that have something to find; NaN without any.

    Raises:
        ShapeError: shapes that do not fit, or numbers that are not finite.
        ConfigError: an unknown nearness.

    Example:
        >>> from repertoire.metrics import retrieval_average_precision
        >>> retrieval_average_precision([[0.0], [1.0], [1.6], [3.0]], [0, 0, 1, 1], nearness="euclidean")
        0.75
    """
    total, queries = 0.0, 0
    for keys, relevant in _strips(embeddings, labels, gallery, gallery_labels, nearness):
        keys.numpy().sort(axis=1)  # half the time of torch's
        ranked = keys.flip(1)
        right, nearest = _is_right(ranked), ranked >> 1
        count = right.shape[1]
        last = torch.cat([nearest[:, 1:] != nearest[:, :-1], torch.ones(len(keys), 1, dtype=torch.bool)], dim=1)
        place = torch.arange(count).expand_as(ranked)
        # The end of the rows that are as near: the next place, from the back, that is one.
        end = torch.where(last, place, count - 1).flip(1).cummin(1).values.flip(1)
        precision = right.cumsum(1).gather(1, end).double() / (end + 1)
        # What is not in the gallery for this query (itself) has the lowest key, and is not right.
        total += float(((precision * right).sum(1) / relevant).sum())
        queries += len(keys)
    return total / queries if queries else math.nan


def _strips(
    embeddings: Values,
    labels: Values,
    gallery: Values | None,
    gallery_labels: Values | None,
    nearness: Nearness,
) -> Iterator[tuple[Tensor, Tensor]]:
    """For some queries at a time: a key of each row of the gallery, larger for nearer, and how many are of their class.

    A key is the nearness, in order, times two; plus one for a row of another class, which wins a draw.
    """
    if nearness not in ("cosine", "dot", "euclidean"):
        raise ConfigError(f"nearness is {nearness!r}; expected 'cosine', 'dot' or 'euclidean'")
    if (gallery is None) != (gallery_labels is None):
        raise ConfigError("gallery and gallery_labels come together; found one of them")
    queries, query_labels = _labelled("embeddings", embeddings, "labels", labels)
    alone = gallery is None or gallery_labels is None
    if gallery is None or gallery_labels is None:
        others, other_labels = queries, query_labels
    else:
        others, other_labels = _labelled("gallery", gallery, "gallery_labels", gallery_labels)
    if queries.shape[1] != others.shape[1]:
        raise ShapeError(f"embeddings have {queries.shape[1]} numbers and those of the gallery {others.shape[1]}")
    classes, counts = torch.unique(other_labels, return_counts=True)
    offset = None
    if nearness == "cosine":
        queries, others = F.normalize(queries), F.normalize(others)
    elif len(others) and nearness == "euclidean":
        # The order of distances is that of x y - y y / 2; without a common offset, which would cost digits.
        queries, others = queries - others[0], others - others[0]
        offset = others.square().sum(1) / 2
    # With a class that no query is of, so that there is one to point at.
    classes, counts = F.pad(classes, (0, 1), value=-1), F.pad(counts, (0, 1))
    place = torch.searchsorted(classes[:-1], query_labels)
    relevant = torch.where(classes[place] == query_labels, counts[place], 0) - int(alone)
    able = (relevant > 0).nonzero()[:, 0]
    for rows in able.split(max(1, _STRIP // max(1, len(others)))) if len(able) else ():
        similarity = queries[rows] @ others.T
        if offset is not None:
            similarity -= offset
        bits = similarity.add_(0.0).view(torch.int32)  # minus zero becomes zero
        # The bits of a float are in its order, those of a negative one in the opposite order.
        keys = (bits ^ (bits >> 31).bitwise_and_(0x7FFFFFFF)).long().bitwise_left_shift_(1)
        keys |= query_labels[rows, None] != other_labels
        if alone:
            keys[torch.arange(len(rows)), rows] = -(2**40) | 1
        yield keys, relevant[rows]


def _is_right(keys: Tensor) -> Tensor:
    return (keys & 1) == 0


def _labelled(name: str, embeddings: Values, labels_name: str, labels: Values) -> tuple[Tensor, Tensor]:
    rows = embeddings.detach().cpu() if isinstance(embeddings, Tensor) else torch.from_numpy(np.array(embeddings))
    own = torch.from_numpy(integers(labels_name, labels))
    if rows.dim() != 2 or rows.shape[0] != len(own) or rows.dtype == torch.bool or rows.is_complex():
        raise ShapeError(
            f"{name} are {rows.dtype} {list(rows.shape)}; expected numbers [{len(own)}, d], as {labels_name}"
        )
    rows = rows.float()
    if not rows.isfinite().all():
        raise ShapeError(f"{name} have {int((~rows.isfinite()).sum())} numbers that are not finite")
    return rows[own >= 0], own[own >= 0]
