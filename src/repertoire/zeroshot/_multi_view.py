"""Unlabelled rows of all classes, labelled together by what several descriptions say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from scipy.linalg import block_diag, eigh
from scipy.sparse import csr_matrix, diags

from repertoire.errors import ConfigError, ShapeError
from repertoire.ranges import AtLeast, Between, Positive, checked
from repertoire.registry import register
from repertoire.zeroshot._base import ZeroShotClassifier, unit_length
from repertoire.zeroshot._embedding_regression import ridge_map

__all__ = ["MultiViewPropagation", "multi_view_cca"]

_ROWS = 1024


@checked
def multi_view_cca(
    views: Sequence[Any], ridge: Annotated[float, Positive] = 1e-6
) -> tuple[np.ndarray, list[np.ndarray]]:
    r"""Canonical directions of several views of the same rows: where they agree the most.

    Hardoon, Szedmak and Shawe-Taylor, *Canonical Correlation Analysis: An Overview with Application to Learning
    Methods* (2004), in the form for several views: with C_{uv} the covariance of two views,

    .. math:: \sum_v C_{uv} w_v = \lambda\, C_{uu} w_u

    For two views, :math:`\lambda` is 1 plus the canonical correlation.

    Args:
        views: float `[N, d_v]` each, of the same N rows.
        ridge: added to the covariance of each view, as a share of its mean variance; positive.

    Returns:
        :math:`\lambda` `[K]`, falling, with K the sum of the widths; and of each view the directions `[d_v, K]`.

    Raises:
        ShapeError: views that are no matrices of as many rows. ConfigError: ridge is out of range.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import multi_view_cca
        >>> x = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 5.0], [4.0, 3.0]])
        >>> values, _ = multi_view_cca([x, x[:, :1] * 2])
        >>> round(float(values[0]), 3)
        2.0
    """
    views = [np.asarray(view, dtype=np.float64) for view in views]
    if not views or any(view.ndim != 2 or len(view) != len(views[0]) or not len(view) for view in views):
        raise ShapeError(f"views must be matrices of the same rows, found {[[*view.shape] for view in views]}")
    away = [view - view.mean(0) for view in views]
    own = [part.T @ part / len(part) for part in away]
    added = [(ridge * np.trace(c) / len(c) + 1e-12) * np.eye(len(c)) for c in own]
    whole = np.concatenate(away, 1)
    joint = whole.T @ whole / len(whole) + block_diag(*added)
    values, vectors = eigh(joint, block_diag(*(c + a for c, a in zip(own, added, strict=True))))
    cuts = np.cumsum([view.shape[1] for view in views])[:-1]
    return values[::-1], np.split(vectors[:, ::-1], cuts)


@register("zero-shot-classifiers", "multi-view-propagation", paper="tmv-zsl")
class MultiViewPropagation(ZeroShotClassifier):
    r"""Labels all rows that are asked together: descriptions and unlabelled rows in one space, joined by hypergraphs.

    Fu et al., *Transductive Multi-view Zero-Shot Learning* (2015). It is transductive: what is unlabelled is learned
    from, so that the answer for a row depends on the others that are asked with it. Each view of the descriptions (some
    of their columns) is predicted from the features by ridge regression, learned from seen classes, which fits unseen
    ones poorly: their rows lie elsewhere than their descriptions, though alike ones lie together. So

    1. `multi_view_cca` is fitted to the rows that are asked: their features, and each view as predicted. Rows and
       descriptions are projected, direction k times :math:`\lambda_k^p`.
    2. For each pair of views, each row and each description has a hyperedge of its nearest `neighbours` in the other
       view, which belong to it as far as their cosine says. Hypergraphs :math:`\Theta` are those of all pairs,
       averaged: :math:`\Theta = D_v^{-1/2} H^\top D_e^{-1} H D_v^{-1/2}`.
    3. Labels spread from the descriptions, :math:`F = (1 - \alpha) (I - \alpha \Theta)^{-1} Y`.

    The paper weighs views by how much each is believed, here all count alike; and a description, which has no features,
    takes the mean place of its views among them.

    Args:
        views: widths of the views, as the columns of the descriptions follow each other; () for one. A view that does
            not tell classes apart by itself puts them in one place, and helps little.
        ridge: penalty of the maps to the views, positive; 0.001 by default.
        components: directions of the features to keep at most, and of the common space; 1 or more.
        power: p, 0 or more; 4 as in the paper.
        neighbours: of each row in each view, 1 or more; fewer than there are rows of a class.
        spread: ridge of `multi_view_cca`, positive: more for few rows, among which many directions seem to agree.
        alpha: how far labels spread, in [0, 1).

    Attributes:
        coef_, intercept_: the maps to all views, `[a, d]` and `[a]`.

    Raises:
        ConfigError: an option out of range; widths that do not add up to that of the descriptions.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import MultiViewPropagation
        >>> generator = np.random.default_rng(0)
        >>> descriptions = np.concatenate([np.eye(4)[np.arange(16) // 4], np.eye(4)[np.arange(16) % 4]], 1)
        >>> y = np.repeat(np.arange(16), 10)
        >>> x = descriptions[y] @ generator.normal(size=(8, 12)) + 0.1 * generator.normal(size=(160, 12))
        >>> unseen = y % 5 == 0
        >>> model = MultiViewPropagation(views=(4, 4)).fit(x[~unseen], y[~unseen], descriptions)
        >>> found = model.predict(x[unseen], descriptions[::5])
        >>> bool((5 * found == y[unseen]).mean() > 0.9)
        True
    """

    transductive = True

    coef_: np.ndarray
    intercept_: np.ndarray

    @checked
    def __init__(
        self,
        views: tuple[int, ...] = (),
        ridge: Annotated[float, Positive] = 1e-3,
        components: Annotated[int, AtLeast(1)] = 64,
        power: Annotated[float, AtLeast(0)] = 4.0,
        neighbours: Annotated[int, AtLeast(1)] = 10,
        spread: Annotated[float, Positive] = 0.1,
        alpha: Annotated[float, Between(0, 1, "[)")] = 0.9,
    ) -> None:
        self.views = views
        self.ridge = ridge
        self.components = components
        self.power = power
        self.neighbours = neighbours
        self.spread = spread
        self.alpha = alpha

    def _fit(self, Z: np.ndarray, y: np.ndarray) -> None:
        width = self.descriptions_.shape[1]
        if self.views and (sum(self.views) != width or min(self.views) < 1):
            raise ConfigError(
                f"views must be widths that add up to the {width} columns of the descriptions, found {self.views}"
            )
        self.coef_, self.intercept_ = ridge_map(Z, self._described(self._seen_descriptions)[y], self.ridge)

    def _described(self, descriptions: np.ndarray) -> np.ndarray:
        """Descriptions with each view brought to unit length."""
        return np.concatenate([unit_length(part) for part in self._cut(descriptions)], 1)

    def _cut(self, rows: np.ndarray) -> list[np.ndarray]:
        return np.split(rows, np.cumsum(self.views)[:-1], axis=1) if self.views else [rows]

    def _scores(self, Z: np.ndarray, descriptions: np.ndarray, known: np.ndarray) -> np.ndarray:
        if not len(Z):
            return np.zeros((0, len(descriptions)))
        labels = self.propagate(self._places(Z, descriptions), len(descriptions))[: len(Z)]
        total = labels.sum(1, keepdims=True)
        return labels / np.where(total > 0, total, 1.0)

    def _places(self, Z: np.ndarray, descriptions: np.ndarray) -> list[np.ndarray]:
        """Rows, then descriptions, in the common space, of unit length; a matrix for each view, features first."""
        away = Z - Z.mean(0)
        _, _, directions = np.linalg.svd(away, full_matrices=False)
        rows = [away @ directions[: self.components].T, *self._cut(Z @ self.coef_.T + self.intercept_)]
        values, weights = multi_view_cca(rows, self.spread)
        count = min(self.components, len(values))
        scale = np.maximum(values[:count], 0.0) ** self.power
        placed = [(row - row.mean(0)) @ w[:, :count] * scale for row, w in zip(rows, weights, strict=True)]
        told = [
            (part - row.mean(0)) @ w[:, :count] * scale
            for part, row, w in zip(self._cut(self._described(descriptions)), rows[1:], weights[1:], strict=True)
        ]
        told = [np.mean(told, 0), *told]
        return [unit_length(np.concatenate(both)) for both in zip(placed, told, strict=True)]

    def propagate(self, places: Sequence[np.ndarray], classes: int) -> np.ndarray:
        """Spreads labels over the hypergraphs of all pairs of views.

        Args:
            places: of each view, unit rows `[N + C, K]` of the same rows, the classes last.
            classes: C.

        Returns:
            float64 `[N + C, C]`, what each row and each class has of each label.
        """
        edges = [self._hypergraph(first, second) for first in places for second in places]
        start = np.zeros((len(places[0]), classes))
        start[-classes:] = np.eye(classes)
        # Conjugate gradients on each label: what spreads is symmetric, with values from 0 to 1.
        labels, left = np.zeros_like(start), (1 - self.alpha) * start
        way, length = left, np.square(left).sum(0)
        for _ in range(1000):
            if length.max() < 1e-20:
                break
            moved = way - self.alpha * sum(edge.T @ (edge @ way) for edge in edges) / len(edges)
            step = length / np.maximum((way * moved).sum(0), 1e-300)
            labels, left = labels + step * way, left - step * moved
            before, length = length, np.square(left).sum(0)
            way = left + length / np.maximum(before, 1e-300) * way
        return labels

    def _hypergraph(self, first: np.ndarray, second: np.ndarray) -> csr_matrix:
        """Hyperedges of the rows of one view among those of another, normalised: labels spread by its square."""
        count = min(self.neighbours, len(second))
        rows, columns, values = [], [], []
        for start in range(0, len(first), _ROWS):
            alike = first[start : start + _ROWS] @ second.T
            own = np.arange(len(alike))
            near = np.argsort(-alike, 1, kind="stable")[:, :count]
            weight = np.maximum(alike[own[:, None], near], 0.0)
            weight[near == (own + start)[:, None]] = 0.0  # the row itself belongs to its hyperedge once
            rows.append(np.repeat(own + start, count + 1))
            columns.append(np.column_stack([near, own + start]).ravel())
            values.append(np.column_stack([weight, np.ones(len(own))]).ravel())
        shape = (len(first), len(second))
        joined = csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)
        edges, nodes = np.asarray(joined.sum(1)).ravel(), np.asarray(joined.sum(0)).ravel()
        result: csr_matrix = (diags(edges**-0.5) @ joined @ diags(nodes**-0.5)).tocsr()
        return result
