"""The contract of zero-shot classifiers: classes are given by their descriptions, some of them without a sample."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.estimators import FeatureEstimator

__all__ = ["ZeroShotClassifier", "unit_length"]


class ZeroShotClassifier(FeatureEstimator):
    """A classifier on features that is told of classes by descriptions: numbers that say what each of them is like.

    `fit` learns from rows of some classes, the seen ones, how descriptions and features belong together; `predict`
    chooses among all classes that it is given descriptions of. A class is a row of the descriptions. Features are
    centred and divided by one number, the root of their mean squared length, so that strengths of penalties do not
    depend on their unit.

    A subclass says `_fit(Z, y)` and `_scores(Z, descriptions, known)`, where `Z` are such features, `y` are positions
    in `seen_`, and `known` says of each description which position in `seen_` its class has, -1 where it was not seen.

    Attributes:
        transductive: whether the answer for a row depends on the other rows that are asked with it.
        calibrated: whether it weighs seen against unseen classes by itself, so that no gamma need be chosen.
        seen_: the classes that `fit` had rows of, as rows of its descriptions, sorted.
        descriptions_: those that `fit` was given, float64 `[C, a]`.
        n_features_in_: d.
    """

    transductive: ClassVar[bool] = False
    calibrated: ClassVar[bool] = False

    seen_: np.ndarray
    descriptions_: np.ndarray
    n_features_in_: int

    def fit(self, X: Any, y: Any, descriptions: Any) -> Self:
        """Learns from the rows of the seen classes.

        Args:
            X: features, float `[N, d]`.
            y: int `[N]`, the class of each row: a row of the descriptions.
            descriptions: float `[C, a]`, of the seen classes, and of others as far as they are known by now.

        Raises:
            ShapeError: shapes or dtypes that do not fit, numbers that are not finite, a label without a description,
                rows of fewer than two classes.
        """
        X, self.descriptions_ = _matrix("X", X), _matrix("descriptions", descriptions)
        y = np.asarray(y)
        if y.ndim != 1 or y.dtype.kind not in "iu" or len(y) != len(X):
            raise ShapeError(f"y must be whole numbers [{len(X)}], one for each row of X, found {y.dtype} {[*y.shape]}")
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(self.descriptions_):
            wrong = next(label for label in y.tolist() if not 0 <= label < len(self.descriptions_))
            raise ShapeError(f"label {wrong} has no description: there are {len(self.descriptions_)} descriptions")
        self.seen_, index = np.unique(y.astype(np.int64), return_inverse=True)
        if len(self.seen_) < 2:
            raise ShapeError(f"a zero-shot classifier learns from rows of two classes or more, found {len(self.seen_)}")
        self.n_features_in_ = X.shape[1]
        self._centre = X.mean(0)
        length = float(np.sqrt(np.square(X - self._centre).sum(1).mean()))
        self._length = length if length > 0 else 1.0
        self._fit((X - self._centre) / self._length, index)
        return self

    def decision_function(self, X: Any, descriptions: Any = None) -> np.ndarray:
        """Scores of the classes, float64 `[N, C]`: the highest one is the answer.

        Args:
            X: features, float `[N, d]`.
            descriptions: float `[C, a]`, of the classes to choose among; those of `fit` if None. A class counts as
                seen if its description is that of a class that `fit` had rows of.

        Raises:
            ShapeError: shapes that do not fit those of `fit`, numbers that are not finite.
            sklearn.exceptions.NotFittedError: before `fit`.
        """
        check_is_fitted(self, "descriptions_")
        X = _matrix("X", X, self.n_features_in_)
        if descriptions is None:
            chosen, known = self.descriptions_, np.full(len(self.descriptions_), -1)
            known[self.seen_] = np.arange(len(self.seen_))
        else:
            chosen = _matrix("descriptions", descriptions, self.descriptions_.shape[1])
            known = self._recognised(chosen)
        return self._scores((X - self._centre) / self._length, chosen, known)

    def predict(self, X: Any, descriptions: Any = None, gamma: float = 0.0) -> np.ndarray:
        """The class of each row, int64 `[N]`: a row of the descriptions.

        Args:
            X: features, float `[N, d]`.
            descriptions: float `[C, a]`, of the classes to choose among; those of `fit` if None.
            gamma: taken from the scores of seen classes, as in `calibrated_stacking`; 0 by default.
        """
        scores = self.decision_function(X, descriptions)
        if gamma:
            scores = scores - gamma * self.is_seen(descriptions)
        return scores.argmax(1)

    def is_seen(self, descriptions: Any = None) -> np.ndarray:
        """Which of the described classes `fit` had rows of, bool `[C]`.

        Args:
            descriptions: float `[C, a]`; those of `fit` if None.
        """
        check_is_fitted(self, "descriptions_")
        if descriptions is None:
            return np.isin(np.arange(len(self.descriptions_)), self.seen_)
        return self._recognised(_matrix("descriptions", descriptions, self.descriptions_.shape[1])) >= 0

    def _recognised(self, descriptions: np.ndarray) -> np.ndarray:
        """The position in `seen_` of each described class, -1 where it was not seen; each position is given once."""
        places: dict[bytes, list[int]] = {}
        for place, row in enumerate(self.descriptions_[self.seen_]):
            places.setdefault((row + 0.0).tobytes(), []).append(place)
        found = [places.get((row + 0.0).tobytes()) for row in descriptions]
        return np.array([each.pop(0) if each else -1 for each in found], dtype=np.int64)

    @abstractmethod
    def _fit(self, Z: np.ndarray, y: np.ndarray) -> None:
        """Learns from scaled features `[N, d]` of classes `y`, positions in `seen_`."""

    @abstractmethod
    def _scores(self, Z: np.ndarray, descriptions: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Scores `[N, C]` of described classes for scaled features."""

    @property
    def _seen_descriptions(self) -> np.ndarray:
        return self.descriptions_[self.seen_]


def unit_length(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their length; one of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def _matrix(name: str, values: Any, width: int | None = None) -> np.ndarray:
    """Float64 `[N, width]`, a copy.

    Raises:
        ShapeError: it is no finite matrix of that width, or has no row.
    """
    if isinstance(values, Tensor):  # on any device, also such that NumPy has no type for
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    found = np.asarray(values)
    wanted = "?" if width is None else width
    if found.ndim != 2 or found.dtype.kind not in "fiub" or (width is not None and found.shape[1] != width):
        raise ShapeError(f"{name} must be numbers [N, {wanted}], found {found.dtype} {[*found.shape]}")
    if not found.size and (name == "descriptions" or width is None):
        raise ShapeError(f"{name} must have a row and a column, found {[*found.shape]}")
    found = found.astype(np.float64)
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
        raise ShapeError(f"{name} must be finite, and row {row} is not")
    return found
