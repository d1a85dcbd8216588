"""Exact t-SNE and principal components of few points, beside the definitions and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from repertoire.report._tsne import principal_components, tsne


def divergence(x: np.ndarray, y: np.ndarray, perplexity: float) -> float:
    """What t-SNE minimises, row by row, with widths found by bisection."""
    count = len(x)
    p = np.zeros((count, count))
    for i in range(count):
        squared = ((x - x[i]) ** 2).sum(1)
        others = np.arange(count) != i
        low, high = 1e-12, 1e12
        for _ in range(200):
            beta = math.sqrt(low * high)
            shares = np.exp(-beta * (squared[others] - squared[others].min()))
            shares /= shares.sum()
            entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
            low, high = (beta, high) if entropy > math.log(perplexity) else (low, beta)
        p[i, others] = shares
    p = (p + p.T) / (2 * count)
    q = 1 / (1 + ((y[:, None] - y[None]) ** 2).sum(2))
    np.fill_diagonal(q, 0)
    q /= q.sum()
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def test_maps_are_as_good_as_those_of_scikit_learn() -> None:
    """In the mean: each has several minima, of which now one, now the other is found."""
    ours, theirs = [], []
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(size=(60, 12))
        x = principal_components(noise + 3 * np.eye(6, 12)[np.arange(60) % 6], 10)
        ours.append(divergence(x, tsne(x, perplexity=15.0), 15.0))
        found = TSNE(perplexity=15.0, init="pca", random_state=0, method="exact").fit_transform(x)
        theirs.append(divergence(x, found.astype(np.float64), 15.0))
    assert np.mean(ours) < 1.06 * np.mean(theirs)


@pytest.mark.parametrize(("count", "width"), [(7, 20), (20, 7), (2, 3)])
def test_principal_components_are_those_of_scikit_learn_up_to_their_sign(count: int, width: int) -> None:
    x = np.random.default_rng(0).normal(size=(count, width)) * np.arange(1, width + 1)
    kept = min(count - 1, width)
    theirs = PCA(kept, svd_solver="full").fit_transform(x)
    ours = principal_components(x, 50)
    assert ours.shape == (count, min(count, width))
    assert np.abs(ours[:, :kept]) == pytest.approx(np.abs(theirs), abs=1e-6)
    assert (ours.max(0) >= -ours.min(0) - 1e-9).all()


def test_equal_points_have_no_direction() -> None:
    assert np.abs(principal_components(np.ones((5, 3)), 2)).max() < 1e-6
    assert np.isfinite(tsne(np.zeros((40, 2)), perplexity=10.0)).all()
