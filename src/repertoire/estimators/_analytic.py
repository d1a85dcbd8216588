"""Ridge regression on a fixed random layer, learned in pieces and equal to that of everything at once."""

from __future__ import annotations

import functools

import numpy as np
import torch
from sklearn.preprocessing import normalize

from repertoire.estimators._incremental import Incremental, grown
from repertoire.ops import RidgeRecursion
from repertoire.registry import register

__all__ = ["Analytic"]

_ROWS = 2048
"""Rows that are expanded at once."""


@functools.lru_cache(maxsize=2)
def _layer(seed: int, width: int, expansion: int) -> np.ndarray:
    """The random layer. It is a function of the seed and not kept with what was fitted; the generator is NumPy's old
    one, whose numbers are promised to stay what they are."""
    return np.random.RandomState(seed).standard_normal((width, expansion))


@register("feature-estimators", "analytic", paper="g-acil")
class Analytic(Incremental):
    r"""Ridge regression on random features, which forgets nothing: learned in pieces, it is what it would be at once.

    Zhuang et al., *G-ACIL: Analytic Learning for Exemplar-Free Generalized Class Incremental Learning* (2024). A fixed
    random layer P and a rectifier expand the features, and a linear map W to one-hot classes is learned by
    :class:`repertoire.ops.RidgeRecursion`:

    .. math::
        h = \max(0, \sqrt{d}\, \bar z P), \qquad
        W = \arg\min_W \sum_i \lVert y_i - W^\top h_i \rVert^2 + \lambda \lVert W \rVert^2

    Whatever order and pieces the samples come in, mixed or class by class, W is the same but for rounding, and none is
    kept. A new class is a new column of zeros. The paper writes a piece in two parts, of classes that were exposed
    and of those that were not; with one-hot targets the update is the same formula for both.

    Args:
        expansion: width of the random layer, 0 or more; 0 for the features themselves. What is kept is a matrix of
            `expansion` x `expansion` numbers: 32 MB at 2000, the default.
        ridge: lambda, positive; 100 by default, which suits a few hundred samples of each class. More is better for
            fewer samples and a wider layer.
        normalize: scale each feature vector to unit length (z-bar) first; a zero vector stays zero. The paper does not;
            with it the same lambda does for any network.
        random_state: seed of the layer.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        inverse_: R, float64 `[E, E]`.
        weight_: W, float64 `[K, E]`.
        stages_: how many stages there have been.
        n_features_in_: d.

    Raises:
        ValueError: when fitted: values that are not finite, labels that are no classes. ConfigError: an option out of
            range.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import Analytic
        >>> x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) // 20
        >>> whole = Analytic(expansion=50).fit(x, y)
        >>> pieces = Analytic(expansion=50)
        >>> for c in range(3):
        ...     _ = pieces.partial_fit(x[y == c], y[y == c])
        >>> bool(np.abs(pieces.weight_ - whole.weight_).max() < 1e-10)
        True
    """

    inverse_: np.ndarray
    weight_: np.ndarray

    def __init__(
        self, expansion: int = 2000, ridge: float = 100.0, normalize: bool = True, random_state: int = 0
    ) -> None:
        self.expansion = expansion
        self.ridge = ridge
        self.normalize = normalize
        self.random_state = random_state

    @classmethod
    def example_options(cls) -> dict[str, int]:
        """A layer that is narrow enough for a few rows."""
        return {"expansion": 100}

    def _check_options(self) -> None:
        self._require("expansion", self.expansion >= 0, "0 or more")
        self._require("ridge", 0 < self.ridge < np.inf, "a positive number")

    def _begin(self, width: int) -> None:
        size = self.expansion or width
        self.inverse_, self.weight_ = np.eye(size) / self.ridge, np.zeros((0, size))

    def _make_room(self, place: np.ndarray, count: int) -> None:
        self.weight_ = grown(self.weight_, place, count)

    def _learn(self, X: np.ndarray, index: np.ndarray) -> None:
        known = RidgeRecursion(len(self.inverse_), self.ridge, outputs=len(self.weight_))
        known.inverse, known.weight = torch.from_numpy(self.inverse_), torch.from_numpy(self.weight_.T.copy())
        targets = torch.zeros(len(X), len(self.weight_), dtype=torch.float64)
        targets[torch.arange(len(X)), torch.from_numpy(index)] = 1.0
        for start in range(0, len(X), _ROWS):
            rows = slice(start, start + _ROWS)
            known.update(torch.from_numpy(self._expanded(X[rows])), targets[rows])
        self.inverse_, self.weight_ = known.inverse.numpy(), known.weight.T.contiguous().numpy()

    def _expanded(self, X: np.ndarray) -> np.ndarray:
        z = normalize(X) if self.normalize else X
        if not self.expansion:
            return z
        # Entries of the layer have a variance of 1 over the width, for features whose entries have a variance of 1.
        scale = 1.0 if self.normalize else X.shape[1] ** -0.5
        return np.maximum(z @ _layer(self.random_state, X.shape[1], self.expansion) * scale, 0.0)

    def _logits(self, X: np.ndarray) -> np.ndarray:
        found = [np.zeros((0, len(self.weight_)))]
        for start in range(0, len(X), _ROWS):
            found.append(self._expanded(X[start : start + _ROWS]) @ self.weight_.T)
        return np.concatenate(found)
