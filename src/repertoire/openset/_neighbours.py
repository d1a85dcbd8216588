"""The distance to the nearest samples of the training set."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from repertoire.openset._base import NoveltyScore
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["NearestNeighbours"]

_BLOCK = 1024
"""Samples that are compared with all of the training set at once, at most."""

_PAIRS = 2**24
"""Distances that are held at once: 128 MiB."""


@register("novelty-scores", "knn")
class NearestNeighbours(NoveltyScore):
    r"""The distance to the k-th nearest sample that was learned from; it needs neither classes nor logits.

    Sun et al., *Out-of-Distribution Detection with Deep Nearest Neighbors* (ICML 2022):
    :math:`s(x) = -\lVert z - z_{(k)} \rVert_2`, where :math:`z_{(k)}` is the k-th nearest training sample.

    Args:
        neighbours: k, 1 or more; the number of samples where there are fewer. The paper takes 50 of the 50,000 images
            of CIFAR-10 and 1,000 of those of ImageNet; the default, 10, is for a few thousand.
        normalize: whether features are scaled to unit length first, as in the paper; a zero vector stays zero.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import NearestNeighbours
        >>> score = NearestNeighbours(neighbours=2, normalize=False).fit(np.array([[0.0], [1.0], [5.0]]))
        >>> score(np.array([[0.0], [7.0]]))
        array([-1., -6.])
    """

    reads = frozenset({"features"})

    def __init__(self, neighbours: Annotated[int, AtLeast(1)] = 10, normalize: bool = True) -> None:
        self.neighbours, self.normalize = neighbours, normalize

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        if not self.normalize:
            return x
        lengths = np.linalg.norm(x, axis=1, keepdims=True)
        return np.asarray(x / np.where(lengths > 0, lengths, 1.0))

    def _fit(self, x: np.ndarray, f: None, y: None) -> None:
        self.samples_ = self._scaled(x).astype(np.float32)

    def _score(self, x: np.ndarray, f: None) -> np.ndarray:
        known = self.samples_.astype(np.float64)
        lengths = (known**2).sum(1)
        k = min(self.neighbours, len(known)) - 1
        found = [np.zeros(0)]
        block = max(1, min(_BLOCK, _PAIRS // len(known)))
        for start in range(0, len(x), block):
            z = self._scaled(x[start : start + block])
            squares = (z**2).sum(1)[:, None] - 2 * z @ known.T + lengths
            found.append(-np.sqrt(np.partition(squares, k, axis=1)[:, k].clip(min=0.0)))
        return np.concatenate(found)
