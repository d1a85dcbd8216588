"""The distance to the nearest class mean, in the metric that all classes share."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from scipy.linalg import solve_triangular

from repertoire.errors import ConfigError
from repertoire.openset._base import NoveltyScore
from repertoire.ranges import Share
from repertoire.registry import register

__all__ = ["Mahalanobis"]


@register("novelty-scores", "mahalanobis")
class Mahalanobis(NoveltyScore):
    r"""The distance to the nearest class mean, measured by the covariance that the classes share.

    Lee et al., *A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks* (NeurIPS
    2018), without their disturbed inputs and on one layer:

    .. math:: s(x) = -\min_c (z - \mu_c)^\top \Sigma^{-1} (z - \mu_c)

    Args:
        shrinkage: how far the covariance is drawn towards a multiple of the identity, from 0 to 1; "auto" (default) for
            the amount of Ledoit and Wolf, *A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices*
            (2004). With 0, as in the paper, directions in which no class varies are not looked at.

    Raises:
        ConfigError: when fitted: no two samples of a class differ.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import Mahalanobis
        >>> x = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
        >>> score = Mahalanobis(shrinkage=0.0).fit(x, labels=np.zeros(4, int))
        >>> score(np.array([[1.0, 0.5], [3.0, 0.5], [1.0, 1.5]])).round(6).tolist()
        [-0.0, -4.0, -4.0]
    """

    reads = frozenset({"features", "labels"})

    def __init__(self, shrinkage: Literal["auto"] | Annotated[float, Share] = "auto") -> None:
        self.shrinkage = shrinkage

    def _fit(self, x: np.ndarray, f: None, y: np.ndarray) -> None:
        classes, index = np.unique(y, return_inverse=True)
        sums = np.zeros((len(classes), x.shape[1]))
        np.add.at(sums, index, x)
        means = sums / np.bincount(index)[:, None]
        centred = x - means[index]
        covariance = centred.T @ centred / len(x)
        size = float(np.trace(covariance)) / len(covariance)
        if not size > 0:
            raise ConfigError("no two samples of a class differ, so nothing says how far is far; fit to more samples")
        share = self.shrinkage
        if isinstance(share, str):
            from sklearn.covariance import ledoit_wolf_shrinkage

            share = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
        covariance = (1 - share) * covariance + share * size * np.eye(len(covariance))
        if share > 1e-6:
            root = np.linalg.cholesky(covariance)
            self.whitening_ = solve_triangular(root, np.eye(len(root)), lower=True).T
        else:
            values, vectors = np.linalg.eigh(covariance)
            varies = values > values[-1] * len(values) * np.finfo(float).eps
            self.whitening_ = vectors[:, varies] / np.sqrt(values[varies])
        self.means_ = means @ self.whitening_

    def _score(self, x: np.ndarray, f: None) -> np.ndarray:
        z = x @ self.whitening_
        squares = (z**2).sum(1)[:, None] - 2 * z @ self.means_.T + (self.means_**2).sum(1)
        return -squares.min(1).clip(min=0.0)
