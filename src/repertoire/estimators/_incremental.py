"""What estimators share that learn classes one after another: rows of new classes, and nothing of earlier stages."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from repertoire.errors import ConfigError
from repertoire.estimators._saved import FeatureEstimator

__all__ = ["Incremental", "grown"]


def grown(values: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """An array with `count` rows, of which those at `place` are the given ones and all others zero."""
    more = np.zeros((count, *values.shape[1:]), dtype=values.dtype)
    more[place] = values
    return more


class Incremental(ClassifierMixin, FeatureEstimator):
    """An estimator that is shown stage after stage, each by itself, and may meet new classes in any of them.

    A subclass has `_begin`, which forgets everything, `_make_room`, which makes room for classes and changes nothing of
    those that are there, `_learn` and `_logits`. Whatever it draws is a function of the seed and of how many stages
    there were, so that one that was saved goes on as if it had not been.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        stages_: how many stages there have been.
        announced_: how many classes there will ever be; 0 where nobody has said.
    """

    classes_: np.ndarray
    stages_: int
    announced_: int

    def fit(self, X: Any, y: Any) -> Self:
        """Fits to features float `[N, d]` with labels `[N]` of any kind, as a first stage."""
        return self._show(X, y, afresh=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Fits to a further stage, features float `[N, d]` with labels `[N]`, of known classes or of new ones.

        Args:
            X: features `[N, d]`.
            y: labels `[N]`.
            classes: all labels there will ever be, which scikit-learn's estimators ask for in the first call; no other
                label may come in this one. Classes without a sample are not predicted.
        """
        return self._show(X, y, afresh=not hasattr(self, "classes_"), classes=classes)

    def _show(self, X: Any, y: Any, *, afresh: bool, classes: Any = None) -> Self:
        self._check_options()
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), reset=afresh)
        check_classification_targets(y)
        if classes is not None and len(unknown := np.setdiff1d(y, classes)):
            raise ValueError(f"label {unknown.tolist()[0]!r} is not among the classes that were announced")
        found, index = np.unique(y, return_inverse=True)
        if afresh:
            self.classes_, self.stages_, self.announced_ = found[:0], 0, 0
            self._begin(X.shape[1])
        if classes is not None:
            self.announced_ = len(np.unique(classes))
        every = np.union1d(self.classes_, found)
        self._make_room(np.searchsorted(every, self.classes_), len(every))
        self.classes_ = every
        self._learn(X.astype(np.float64), np.searchsorted(every, found)[index])
        self.stages_ += 1
        return self

    def _check_options(self) -> None:
        """Raises `ConfigError` where an option is out of its range."""

    def _begin(self, width: int) -> None:
        """Forgets everything; features will have so many columns."""
        raise NotImplementedError

    def _make_room(self, place: np.ndarray, count: int) -> None:
        """Makes room for `count` classes, of which the known ones are at `place`."""
        raise NotImplementedError

    def _learn(self, X: np.ndarray, index: np.ndarray) -> None:
        """Learns from float64 features `[N, d]` with classes as positions `[N]` in `classes_`."""
        raise NotImplementedError

    def _logits(self, X: np.ndarray) -> np.ndarray:
        """Logits `[N, K]` of float64 features."""
        raise NotImplementedError

    def _require(self, name: str, condition: bool, expected: str) -> None:
        if not condition:
            raise ConfigError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    def logits(self, X: Any) -> np.ndarray:
        """What the probabilities are a softmax of, `[N, K]`, classes in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return self._logits(X.astype(np.float64))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities `[N, K]`, classes in the order of `classes_`."""
        return softmax(self.logits(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The label of each row, `[N]`."""
        best = self.logits(X).argmax(1)
        return self.classes_[best]
