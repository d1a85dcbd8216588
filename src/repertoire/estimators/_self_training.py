"""A network and an estimator on its embedding, each of which learns from the other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.nn import functional as F

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.estimators._saved import FeatureEstimator
from repertoire.estimators._unlabelled import labelled_rows
from repertoire.estimators.boosted._base import require
from repertoire.registry import register

__all__ = ["HybridSelfTraining"]

INNER = "assigned."
"""Before the names of what belongs to the estimator on the embedding."""


@register("feature-estimators", "hybrid-self-training", paper="deep-low-density")
class HybridSelfTraining(ClassifierMixin, FeatureEstimator):
    """Deep low-density separation: a network and a boundary through sparse regions of its embedding, in turns.

    Burkhart and Shan, *Deep Low-Density Separation for Semi-Supervised Classification* (2020; arXiv 2205.11995). A
    small network learns to classify the labelled rows, centred and of a mean variance of 1;
    :class:`repertoire.estimators.LowDensitySeparation` labels all rows by their embedding, the output of the last
    hidden layer; the network learns afresh, from the labelled rows and the surest others; and so on. What the network
    says is never asked: it is there for its embedding.

    The estimator between is an option, so that methods on graphs (`assign="label-spreading"`), which came before, can
    be compared on the same terms. How the authors choose and weigh what the network learns from is not in the text that
    was at hand: here it is the surest share of each class, as labels of weight one. Their network reads survey
    answers; this one reads features.

    Args:
        assign: spec of the estimator that labels the embedding, one that learns from unlabelled rows. The default is
            for some 20 times as many unlabelled rows as labelled ones.
        rounds: how often the network learns from them, after it has learned from the labelled rows; 0 or more.
        keep: the share of the rows of each class that count as sure, above 0, up to 1.
        width: of the hidden layers, of which there are two; the second is the embedding.
        steps: of the optimiser, each time; 1 or more.
        batch_size: rows in a step.
        learning_rate: of Adam, positive; it falls to zero along a cosine.
        random_state: seed of weights and order.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        transduction_: the label that each row has in the end, `[N]`: the given one where there was one.
        n_features_in_: d.

    Raises:
        ValueError: when fitted: labels of fewer than two classes, values that are not finite. ConfigError: an option
            out of range, or an estimator that learns from labelled rows only.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import HybridSelfTraining
        >>> rows = np.random.default_rng(0).normal(size=(60, 4))
        >>> rows[:30] += 4
        >>> y = np.array([0] * 30 + [1] * 30)
        >>> model = HybridSelfTraining(rounds=1, steps=50, random_state=0)
        >>> seen = np.where(np.arange(60) % 30 < 2, y, -1)
        >>> float((model.fit(rows, seen).transduction_ == y).mean())
        1.0
    """

    learns_unlabelled = True

    classes_: np.ndarray
    transduction_: np.ndarray

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of little data, where the defaults do not do."""
        return {"rounds": 1, "steps": 40, "width": 8}

    def __init__(
        self,
        assign: str = "low-density:unlabelled=0.03",
        rounds: int = 3,
        keep: float = 0.5,
        width: int = 128,
        steps: int = 300,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        random_state: Any = None,
    ) -> None:
        self.assign = assign
        self.rounds = rounds
        self.keep = keep
        self.width = width
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fits to features float `[N, d]` with labels `[N]`, -1 or "" where there is none."""
        self._check_options()
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        self.classes_, index = labelled_rows(y)
        # One scale for all: a feature that hardly varies is not to count as much as one that does.
        self._mean = X.mean(0)
        self._scale = float(np.sqrt(X.var(0).mean())) or 1.0
        rows = self._scaled(X)
        generator = torch.Generator().manual_seed(int(check_random_state(self.random_state).randint(2**31)))
        known = index >= 0
        chosen, labels = known, index
        for turn in range(self.rounds + 1):
            self._learn(rows[torch.from_numpy(chosen)], torch.from_numpy(labels[chosen]), generator)
            embedding = self._embed(rows)
            assigner = self._assigner().fit(embedding, index)
            if turn < self.rounds:
                probabilities = assigner.predict_proba(embedding)
                labels = np.where(known, index, probabilities.argmax(1))
                chosen = known | self._surest(probabilities, ~known)
        self._assigned = assigner
        self.transduction_ = self.classes_[assigner.transduction_]
        return self

    def _learn(self, rows: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> None:
        """A network with fresh weights learns to classify rows; its hidden layers are kept."""
        sizes = [rows.shape[1], self.width, self.width, len(self.classes_)]
        weights = [
            (torch.randn(after, before, generator=generator) * (2 / before) ** 0.5).requires_grad_()
            for before, after in pairwise(sizes)
        ]
        biases = [torch.zeros(size, requires_grad=True) for size in sizes[1:]]
        optimizer = torch.optim.Adam([*weights, *biases], lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        size = min(self.batch_size, len(rows))
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(self.steps):
            if len(order) < size:
                order = torch.randperm(len(rows), generator=generator)
            batch, order = order[:size], order[size:]
            z = rows[batch]
            for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                z = F.linear(z if number == 0 else z.relu(), weight, bias)
            optimizer.zero_grad()
            F.cross_entropy(z, labels[batch]).backward()
            optimizer.step()
            schedule.step()
        (self._first, self._second), (self._first_bias, self._second_bias) = (
            [part.detach().numpy() for part in parts[:2]] for parts in (weights, biases)
        )

    def _embed(self, rows: torch.Tensor) -> np.ndarray:
        """What the second hidden layer says of rows, `[N, width]`."""
        for weight, bias in ((self._first, self._first_bias), (self._second, self._second_bias)):
            rows = F.linear(rows, torch.from_numpy(weight), torch.from_numpy(bias)).relu()
        return rows.numpy()

    def _scaled(self, X: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((X - self._mean) / self._scale).astype(np.float32))

    def _surest(self, probabilities: np.ndarray, free: np.ndarray) -> np.ndarray:
        """The surest share of the rows of each class among those that are free, bool `[N]`."""
        answers, ranked = probabilities.argmax(1), np.sort(probabilities, axis=1)
        margin = ranked[:, -1] - ranked[:, -2]
        chosen = np.zeros(len(probabilities), bool)
        for c in np.unique(answers[free]):
            rows = np.flatnonzero(free & (answers == c))
            count = int(np.ceil(self.keep * len(rows)))
            chosen[rows[np.argsort(-margin[rows], kind="stable")[:count]]] = True
        return chosen

    def _assigner(self) -> Any:
        made = registry.build("feature-estimators", self.assign)
        if not made.learns_unlabelled:
            able = [
                e.name for e in registry.entries("feature-estimators") if getattr(e.factory, "learns_unlabelled", 0)
            ]
            raise ConfigError(
                f"assign is {self.assign!r}, which learns from labelled rows only; expected one of "
                f"{', '.join(name for name in able if name != 'hybrid-self-training')}"
            )
        return made

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes for the embedding, `[N, K]`, in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return self._assigned.predict_proba(self._embed(self._scaled(X)))

    def predict(self, X: Any) -> np.ndarray:
        """The label of each row, `[N]`."""
        found = self.predict_proba(X).argmax(1)
        return self.classes_[found]

    def fitted_state(self) -> dict[str, Any]:
        own = super().fitted_state()
        inner = own.pop("_assigned").fitted_state()
        return {**own, **{f"{INNER}{name}": value for name, value in inner.items()}}

    def restore(self, state: Mapping[str, Any]) -> Self:
        inner = {name.removeprefix(INNER): value for name, value in state.items() if name.startswith(INNER)}
        self._assigned = self._assigner().restore(inner)
        return super().restore({name: value for name, value in state.items() if not name.startswith(INNER)})

    def _check_options(self) -> None:
        require(self, "rounds", self.rounds >= 0, "0 or more")
        require(self, "keep", 0 < self.keep <= 1, "a share, above 0 and up to 1")
        for name in ("width", "steps", "batch_size"):
            require(self, name, getattr(self, name) >= 1, "1 or more")
        require(self, "learning_rate", self.learning_rate > 0, "a positive number")
        self._assigner()
