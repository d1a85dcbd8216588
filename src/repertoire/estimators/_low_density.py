"""Low-density separation: a boundary through the gaps between unlabelled rows."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted, validate_data

from repertoire.estimators._saved import FeatureEstimator
from repertoire.estimators._unlabelled import labelled_rows
from repertoire.estimators.boosted._base import require
from repertoire.registry import register

__all__ = ["LowDensitySeparation"]

SHARPNESS = 3.0
"""s of exp(-s f^2), as in the paper: the loss of an unlabelled row is 0.05 at the margin."""


@register("feature-estimators", "low-density", paper="deep-low-density")
class LowDensitySeparation(ClassifierMixin, FeatureEstimator):
    r"""Support vector machine whose boundary runs where unlabelled rows are sparse.

    The transductive support vector machine of Chapelle and Zien, *Semi-Supervised Classification by Low Density
    Separation* (2005), trained by gradient descent; Burkhart and Shan, *Deep Low-Density Separation for
    Semi-Supervised Classification* (2020; arXiv 2205.11995) apply it to the features of a network, one class against
    all others. With f(x) = w x + b, labels y of -1 and 1, and U unlabelled rows:

    .. math::
        \min_{w, b}\; \tfrac{1}{2} \lVert w \rVert^2 + C \sum_{i\,\text{labelled}} \max(0, 1 - y_i f(x_i))^2
        + C^* \sum_{j\,\text{unlabelled}} e^{-3 f(x_j)^2}
        \quad\text{subject to}\quad \frac{1}{U} \sum_j f(x_j) = \bar y

    The constraint keeps the share of each class among the unlabelled rows near that among the labelled ones: without
    it, the cheapest boundary has all rows on one side. The objective has many minima, so :math:`C^*` grows from
    `start` times C in `steps` equal factors, each solution being where the next one begins; with labels only, the
    problem is that of a linear support vector machine. Solved by L-BFGS, one class after the other.

    With `rho`, rows are first placed so that their distances are those along the graph of nearest neighbours, in which
    a step of length d costs :math:`e^{\rho d} - 1`: a path through a crowd is short, a jump over a gap is long. Squared
    distances are :math:`\rho^{-2} \log^2(1 + \text{length})` (d in units of the mean distance to the nearest
    neighbours), and classical scaling turns them into coordinates, of which those below `delta` of the variance are
    dropped. New rows join the graph at their nearest neighbours.

    Args:
        C: weight of the labelled rows, in units of one over the total variance; positive. 1 by default.
        unlabelled: :math:`C^*` in the end, in units of C; 0 leaves the unlabelled rows out but for the constraint. 1 by
            default.
        start: :math:`C^*` before it grows, in units of `unlabelled`; above 0, up to 1.
        steps: by how many factors it grows, 1 or more.
        balance: whether the constraint holds.
        rho: how much longer a jump is than as many small steps; 0 (default) for the rows as they are.
        neighbours: of each row in the graph, 1 or more.
        delta: in [0, 1); the threshold at which coordinates of the graph are dropped.
        max_iter: iterations of L-BFGS at most for each value of :math:`C^*`.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        coef_, intercept_: w and b, `[K, d]` and `[K]`, or `[1, d]` and `[1]` for two classes; of the coordinates where
            `rho` is given.
        transduction_: the label that each row has in the end, `[N]`: the given one where there was one.
        n_features_in_: d.
        n_iter_: iterations of L-BFGS, of the class that took most.

    Raises:
        ValueError: when fitted: labels of fewer than two classes, values that are not finite. ConfigError: an option
            out of range.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import LowDensitySeparation
        >>> x = np.concatenate([np.linspace(-1, 1, 50), np.linspace(3, 5, 50)])[:, None]
        >>> y = np.full(100, -1)
        >>> y[[0, 50]] = 0, 1  # halfway between them is 1, where the crowd on the left ends; the gap is beyond it
        >>> [LowDensitySeparation(unlabelled=u, balance=u > 0).fit(x, y).predict([[1.2]]).tolist() for u in (0, 1)]
        [[1], [0]]
    """

    learns_unlabelled = True

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    transduction_: np.ndarray

    def __init__(
        self,
        C: float = 1.0,
        unlabelled: float = 1.0,
        start: float = 0.01,
        steps: int = 10,
        balance: bool = True,
        rho: float = 0.0,
        neighbours: int = 10,
        delta: float = 0.1,
        max_iter: int = 200,
    ) -> None:
        self.C = C
        self.unlabelled = unlabelled
        self.start = start
        self.steps = steps
        self.balance = balance
        self.rho = rho
        self.neighbours = neighbours
        self.delta = delta
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any) -> Self:
        """Fits to features float `[N, d]` with labels `[N]`, -1 or "" where there is none."""
        self._check_options()
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        self.classes_, index = labelled_rows(y)
        X = X.astype(np.float64)
        if self.rho:
            X = self._place(X)
        # Centred on what the constraint is about, which then fixes b alone and leaves w free.
        known = index >= 0
        self._centre = (X if known.all() else X[~known]).mean(0)
        X = X - self._centre
        variance = float(X.var(0).sum())
        weight = self.C / (variance if variance > 0 else 1.0)
        sides = range(1, 2) if len(self.classes_) == 2 else range(len(self.classes_))
        found = [self._separate(X[known], np.where(index[known] == c, 1.0, -1.0), X[~known], weight) for c in sides]
        self.coef_ = np.stack([w for w, _, _ in found])
        self.intercept_ = np.array([b for _, b, _ in found])
        self.n_iter_ = max(count for _, _, count in found)
        scores = _both_sides(X @ self.coef_.T + self.intercept_)
        self.transduction_ = self.classes_[np.where(known, index, scores.argmax(1))]
        return self

    def _separate(
        self, X: np.ndarray, y: np.ndarray, others: np.ndarray, weight: float
    ) -> tuple[np.ndarray, float, int]:
        """w and b of one class against the others, and the iterations that it took."""
        bound = self.balance and len(others) > 0
        width = X.shape[1]
        fixed = float(y.mean())

        def objective(values: np.ndarray, hidden: float) -> tuple[float, np.ndarray]:
            w, b = values[:width], fixed if bound else values[width]
            slack = np.maximum(0, 1 - y * (X @ w + b))
            f = others @ w + b
            # Beyond this the exponential is nothing, and its square would overflow.
            costs = hidden * np.exp(-SHARPNESS * np.minimum(np.abs(f), 1e3) ** 2)
            by_label, by_crowd = -2 * weight * y * slack, -2 * SHARPNESS * costs * f
            gradient = w + X.T @ by_label + others.T @ by_crowd
            value = 0.5 * w @ w + weight * (slack @ slack) + costs.sum()
            return value, gradient if bound else np.append(gradient, by_label.sum() + by_crowd.sum())

        last = self.unlabelled * weight
        growing = last * self.start ** (1 - np.arange(1, self.steps + 1) / self.steps)
        values, count = np.zeros(width + (not bound)), 0
        options = {"maxiter": self.max_iter, "maxcor": 20, "ftol": 1e-10, "gtol": 1e-7 * max(1.0, weight)}
        # Without unlabelled rows the first solution is the last.
        for hidden in growing if last and len(others) else [0.0]:
            found = minimize(objective, values, args=(hidden,), jac=True, method="L-BFGS-B", options=options)
            values, count = found.x, count + found.nit
        return values[:width], fixed if bound else float(values[width]), max(1, count)

    def decision_function(self, X: Any) -> np.ndarray:
        """f of each class `[N, K]`, or of the second one `[N]` for two classes; 1 and -1 are the margins."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False).astype(np.float64)
        if self.rho:
            X = self._join(X)
        f = (X - self._centre) @ self.coef_.T + self.intercept_
        return f[:, 0] if len(self.classes_) == 2 else f

    def predict_proba(self, X: Any) -> np.ndarray:
        """A softmax of f `[N, K]`, classes in the order of `classes_`; a ranking, and not calibrated."""
        f = self.decision_function(X)
        return softmax(_both_sides(f[:, None] if f.ndim == 1 else f), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The label of each row, `[N]`."""
        f = self.decision_function(X)
        return self.classes_[(f > 0).astype(int) if f.ndim == 1 else f.argmax(1)]

    # The graph.

    def _place(self, X: np.ndarray) -> np.ndarray:
        """Coordinates of rows whose distances are those along the graph, `[N, m]`."""
        count = min(self.neighbours, len(X) - 1)
        self._rows = X
        near, _ = self._nearest(X, count + 1)
        self._unit = float(near[:, 1:].mean()) or 1.0
        lengths = self._graph(count)
        squares = _squares(lengths, self.rho)
        self._mean_squares = squares.mean(0)
        inner = -0.5 * (squares - self._mean_squares - self._mean_squares[:, None] + squares.mean())
        values, vectors = np.linalg.eigh(inner)
        values, vectors = values[::-1], vectors[:, ::-1]
        positive = values > 1e-10 * max(values[0], 0)
        values, vectors = values[positive], vectors[:, positive]
        left = 1 - np.cumsum(values) / values.sum()
        small = (left < self.delta) & (values < self.delta * values[0])
        kept = max(1, int(small.argmax()) if small.any() else len(values))
        self._lengths = lengths
        self._basis = vectors[:, :kept] / np.sqrt(values[:kept])
        return vectors[:, :kept] * np.sqrt(values[:kept])

    def _graph(self, count: int) -> np.ndarray:
        """Lengths of the shortest paths between all rows, `[N, N]`."""
        distances, near = self._nearest(self._rows, count + 1)
        size = len(self._rows)
        # A step of length 0 would be no edge at all.
        costs = np.maximum(np.expm1(np.minimum(self.rho * distances / self._unit, 50)), 1e-12)
        rows = np.repeat(np.arange(size), count + 1)
        edges = csr_matrix((costs.ravel(), (rows, near.ravel())), shape=(size, size))
        lengths = shortest_path(edges, directed=False)
        apart = ~np.isfinite(lengths)
        if apart.any():  # parts of the graph that no path joins are as far apart as anything, and twice that
            lengths[apart] = 2 * lengths[~apart].max()
        np.fill_diagonal(lengths, 0)
        return lengths

    def _nearest(self, X: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        search = NearestNeighbors(n_neighbors=count).fit(self._rows)
        return search.kneighbors(X)

    def _join(self, X: np.ndarray) -> np.ndarray:
        """Coordinates of new rows, of which each joins the graph at its nearest neighbours."""
        count = min(self.neighbours, len(self._rows) - 1)
        distances, near = self._nearest(X, count)
        steps = np.expm1(np.minimum(self.rho * distances / self._unit, 50))
        placed = np.empty((len(X), self._basis.shape[1]))
        for i in range(len(X)):  # a row at a time: all at once would be N x neighbours x N
            lengths = (steps[i][:, None] + self._lengths[near[i]]).min(0)
            placed[i] = 0.5 * (self._mean_squares - _squares(lengths, self.rho)) @ self._basis
        return placed

    def _check_options(self) -> None:
        require(self, "C", self.C > 0, "a positive number")
        require(self, "unlabelled", self.unlabelled >= 0, "0 or more")
        require(self, "start", 0 < self.start <= 1, "above 0 and up to 1")
        require(self, "steps", self.steps >= 1, "1 or more")
        require(self, "rho", self.rho >= 0, "0 or more")
        require(self, "neighbours", self.neighbours >= 1, "1 or more")
        require(self, "delta", 0 <= self.delta < 1, "from 0 to below 1")
        require(self, "max_iter", self.max_iter >= 1, "1 or more")


def _both_sides(f: np.ndarray) -> np.ndarray:
    """Scores of all classes, of those of all or of the second of two."""
    return np.concatenate([-f, f], axis=1) if f.shape[1] == 1 else f


def _squares(lengths: np.ndarray, rho: float) -> np.ndarray:
    """Squared distances of lengths along the graph."""
    return np.square(np.log1p(lengths) / rho)
