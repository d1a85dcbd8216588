"""Discovery on the graph of nearest neighbours."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from scipy.sparse import coo_matrix, diags, eye
from scipy.sparse.linalg import eigsh
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from repertoire.discover._base import Found, reduced
from repertoire.discover._kmeans import OnCentres
from repertoire.ops import pinned_kmeans
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["SpectralDiscovery"]


@register("discoverers", "spectral")
class SpectralDiscovery(OnCentres):
    r"""Spectral clustering in which the labelled rows of a class hang together, and stay in their class.

    Ng, Jordan and Weiss, *On Spectral Clustering: Analysis and an Algorithm* (2001), with known classes, as Troisemaine
    et al., *A Practical Approach to Novel Class Discovery in Tabular Data* (2023) propose; how they come in is ours.
    The graph joins each row with its nearest neighbours, and with a node of its class where that is known. The leading
    eigenvectors of the normalised adjacency, with rows of unit length, are clustered by
    :func:`repertoire.ops.pinned_kmeans`.

    Args:
        neighbours: of each row; 1 or more.

    Attributes:
        labels_, n_classes_, n_classes_interval_, outlier_scores_, probabilities_: see
            :class:`repertoire.discover.Discoverer`. The outlier score is the mean distance to the nearest neighbours,
            as eigenvectors say little of a row that hangs on few others. There are no probabilities.

    Example:
        >>> import torch
        >>> from repertoire.discover import SpectralDiscovery
        >>> truth = torch.arange(5).repeat_interleave(20)
        >>> x = 6 * torch.eye(5)[truth] + torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> found = SpectralDiscovery(classes=5).fit_predict(x, torch.where(truth < 3, truth, -1))
        >>> sorted(set(found[60:].tolist()))
        [3, 4]
    """

    neighbours: Annotated[int, AtLeast(1)] = 10

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        classes, interval = self._counted(x, labels, generator)
        rows = F.normalize(reduced(x, self.components)).numpy()
        count = min(self.neighbours, len(rows) - 1)
        distances, near = NearestNeighbors(n_neighbors=count + 1).fit(rows).kneighbors(rows)
        vectors = _eigenvectors(near[:, 1:], labels.numpy(), known, classes)
        embedded = F.normalize(torch.from_numpy(vectors[: len(rows)].copy()).float())
        found = pinned_kmeans(embedded, classes, labels, starts=self.starts, generator=generator)
        return Found(found.assignment, torch.from_numpy(distances[:, 1:].mean(1)), classes, interval)


def _eigenvectors(near: np.ndarray, labels: np.ndarray, known: int, count: int) -> np.ndarray:
    """The leading eigenvectors of the graph of rows and, after them, of a node for each known class."""
    rows, neighbours = near.shape
    size = rows + known
    seen = np.flatnonzero(labels >= 0)
    starts = np.concatenate([np.repeat(np.arange(rows), neighbours), seen])
    ends = np.concatenate([near.ravel(), rows + labels[seen]])
    # A row is bound to its class as strongly as to all of its neighbours.
    weights = np.concatenate([np.ones(rows * neighbours), np.full(len(seen), float(neighbours))])
    graph = coo_matrix((weights, (starts, ends)), shape=(size, size)).tocsr()
    graph = (graph + graph.T) / 2
    scale = diags(1 / np.sqrt(np.maximum(np.asarray(graph.sum(1)).ravel(), 1e-12)))
    # Shifted, so that the eigenvalues are positive and the leading ones the largest.
    matrix = scale @ graph @ scale + eye(size)
    if count >= size - 1 or size < 200:
        values, vectors = np.linalg.eigh(matrix.toarray())
        vectors = vectors[:, ::-1][:, :count]
    else:
        values, vectors = eigsh(matrix, k=count, which="LA", v0=np.ones(size))
        vectors = vectors[:, np.argsort(-values)]
    return np.asarray(vectors)
