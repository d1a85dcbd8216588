"""What boosted networks share: data in, scores of any number of stages out, as scikit-learn wants it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from repertoire.errors import ConfigError
from repertoire.estimators._saved import FeatureEstimator
from repertoire.estimators.boosted._objectives import Logistic, Objective, Softmax, Squared

__all__ = ["Boosted", "BoostedClassifier", "BoostedRegressor", "require"]


def require(estimator: BaseEstimator, name: str, condition: bool, expected: str) -> None:
    """Refuses an option that cannot be used.

    Raises:
        ConfigError: names it, and says what was expected.
    """
    if not condition:
        raise ConfigError(f"{name} is {getattr(estimator, name)!r}; expected {expected}")


class Boosted(FeatureEstimator):
    """An estimator that adds one piece of a network at a time.

    A subclass has `_check_options`, `_grow`, which sets `n_stages_`, and `_staged`. Scores are float64.
    """

    random_state: Any
    device: str
    n_stages_: int

    def to_module(self, stages: int | None = None) -> nn.Module:
        """The network as a module that takes raw features `[N, d]`, in float32 and eval mode.

        Args:
            stages: how many stages it has; the others are left out. All by default.
        """
        raise NotImplementedError

    def _check_options(self) -> None:
        raise NotImplementedError

    def _grow(self, x: Tensor, targets: Tensor, objective: Objective, generator: torch.Generator) -> None:
        """Fits to features `[N, d]` and targets `[N, K]`."""
        raise NotImplementedError

    def _staged(self, x: Tensor) -> Iterator[Tensor]:
        """Raw scores `[N, K]` of the constant alone, then after each stage; the tensor may be changed afterwards."""
        raise NotImplementedError

    def _fit(self, X: np.ndarray, targets: np.ndarray, objective: Objective) -> Self:
        self._check_options()
        generator = torch.Generator().manual_seed(int(check_random_state(self.random_state).randint(2**31 - 1)))
        self._grow(self._tensor(X), self._tensor(targets), objective, generator)
        return self

    def _tensor(self, values: np.ndarray) -> Tensor:
        # A copy, since arrays may be read-only, which tensors cannot be.
        return torch.from_numpy(np.array(values, dtype=np.float64)).to(self.device)

    def _scores(self, X: Any, stages: int | None) -> np.ndarray:
        """Raw scores `[N, K]` after some of the stages."""
        x = self._checked(X)
        last = self._count(stages)
        for number, scores in enumerate(self._staged(x)):
            if number == last:
                return scores.cpu().numpy()
        raise AssertionError("a stage is missing")

    def _checked(self, X: Any) -> Tensor:
        check_is_fitted(self)
        return self._tensor(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))

    def _count(self, stages: int | None) -> int:
        """Number of stages that are asked for.

        Raises:
            ConfigError: more than there are, or fewer than none.
        """
        if stages is None:
            return self.n_stages_
        if not 0 <= stages <= self.n_stages_:
            raise ConfigError(f"stages is {stages}; expected 0 to {self.n_stages_}, which is how many were fitted")
        return stages


class BoostedClassifier(ClassifierMixin, Boosted):
    """A boosted network that tells classes apart."""

    classes_: np.ndarray

    def fit(self, X: Any, y: Any) -> Self:
        """Fits to features float `[N, d]` with labels `[N]` of any kind."""
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("boosting needs samples of at least two classes; found 1 class")
        if len(self.classes_) == 2:
            return self._fit(X, index[:, None].astype(np.float64), Logistic())
        return self._fit(X, np.eye(len(self.classes_))[index], Softmax())

    def decision_function(self, X: Any, stages: int | None = None) -> np.ndarray:
        """Logits `[N, K]`, or `[N]` for two classes.

        Args:
            X: features `[N, d]`.
            stages: how many stages take part; those added last are switched off. All by default.
        """
        scores = self._scores(X, stages)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any, stages: int | None = None) -> np.ndarray:
        """Probabilities `[N, K]`, classes in the order of `classes_`; see `decision_function` for `stages`."""
        scores = torch.from_numpy(self._scores(X, stages))
        if len(self.classes_) == 2:
            return torch.cat([(-scores).sigmoid(), scores.sigmoid()], dim=1).numpy()
        return scores.softmax(1).numpy()

    def predict(self, X: Any, stages: int | None = None) -> np.ndarray:
        """The most probable label of each row, `[N]`; see `decision_function` for `stages`."""
        return self._labels(self._scores(X, stages))

    def staged_predict(self, X: Any) -> Iterator[np.ndarray]:
        """The labels after one stage, after two, and so on."""
        for number, scores in enumerate(self._staged(self._checked(X))):
            if number:
                yield self._labels(scores.cpu().numpy())

    def _labels(self, scores: np.ndarray) -> np.ndarray:
        index = (scores[:, 0] > 0).astype(int) if len(self.classes_) == 2 else scores.argmax(1)
        return self.classes_[index]


class BoostedRegressor(RegressorMixin, Boosted):
    """A boosted network that predicts a number."""

    def fit(self, X: Any, y: Any) -> Self:
        """Fits to features float `[N, d]` with numbers `[N]`."""
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), y_numeric=True)
        targets = np.asarray(y, dtype=np.float64)
        # In units of their own spread: penalties and learning rates then mean the same for any data.
        self._mean, spread = float(targets.mean()), float(targets.std())
        self._spread = spread if spread > 0 else 1.0
        return self._fit(X, ((targets - self._mean) / self._spread)[:, None], Squared())

    def predict(self, X: Any, stages: int | None = None) -> np.ndarray:
        """The number predicted for each row, `[N]`.

        Args:
            X: features `[N, d]`.
            stages: how many stages take part; those added last are switched off. All by default.
        """
        return self._numbers(self._scores(X, stages))

    def staged_predict(self, X: Any) -> Iterator[np.ndarray]:
        """The numbers after one stage, after two, and so on."""
        for number, scores in enumerate(self._staged(self._checked(X))):
            if number:
                yield self._numbers(scores.cpu().numpy())

    def _numbers(self, scores: np.ndarray) -> np.ndarray:
        return scores[:, 0] * self._spread + self._mean
