"""An expert for seen classes, one for unseen classes, and a gate that softens whichever is out of its depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, softmax

from repertoire import registry
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register
from repertoire.zeroshot._attribute_match import logistic
from repertoire.zeroshot._base import ZeroShotClassifier
from repertoire.zeroshot._held_out import held_out

__all__ = ["COSMO"]

_TINY = 1e-30


@register("zero-shot-classifiers", "cosmo", paper="cosmo")
class COSMO(ZeroShotClassifier):
    r"""Combines an expert for seen classes and one for unseen classes by a gate, for data in which both occur.

    Atzmon and Chechik, *Adaptive Confidence Smoothing for Generalized Zero-Shot Learning* (2019):

    .. math:: p(y \mid x) = p(y \mid x, S)\, p(S \mid x) + p(y \mid x, U)\, p(U \mid x)

    The seen expert is a logistic regression, the unseen expert a zero-shot classifier of one's choice whose softmax is
    over the unseen classes alone; the temperatures of both are fitted by likelihood. The gate is a logistic regression
    on the `confidences` highest probabilities of both experts, sorted. Classes held out of the seen ones stand in for
    unseen ones while gate and temperatures are learned, so that no unseen class is ever looked at. Each expert is
    smoothed towards the uniform distribution by the gate's doubt:

    .. math:: p'(y \mid x, S) = p(U \mid x) \tfrac{1}{|S|} + p(S \mid x)\, p(y \mid x, S)

    and likewise that of unseen classes. The unseen expert of the paper is LAGO, which needs attributes in groups.

    Args:
        expert: spec of the zero-shot classifier that is the unseen expert.
        gate: "soft" as in the paper; "hard" believes the likelier expert alone.
        smooth: whether experts are smoothed; False for the gate alone.
        confidences: how many probabilities of each expert the gate sees, from 1.
        ridge: penalty of the seen expert on half its squared weights, beside the mean loss over the rows; positive,
            0.0001 by default.
        max_iter: iterations of L-BFGS at most, for the seen expert.
        folds: in how many parts the seen classes are held out, from 2.
        random_state: seed of which classes are held out together.

    Attributes:
        gate_: weights of the gate, `[2 k + 1]`, the intercept last.
        temperatures_: what the scores of the seen and of the unseen expert are divided by.

    Raises:
        ConfigError: an option out of range. UnknownName: there is no such expert. ShapeError: when fitted, if there are
            too few seen classes to hold some out.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import COSMO
        >>> generator = np.random.default_rng(0)
        >>> descriptions = np.concatenate([np.eye(4)[np.arange(16) // 4], np.eye(4)[np.arange(16) % 4]], 1)
        >>> y = np.repeat(np.arange(16), 10)
        >>> x = descriptions[y] @ generator.normal(size=(8, 12)) + 0.1 * generator.normal(size=(160, 12))
        >>> seen = y % 5 > 0
        >>> model = COSMO().fit(x[seen], y[seen], descriptions)
        >>> p = model.predict_proba(x)
        >>> bool((abs(p.sum(1) - 1) < 1e-6).all()), bool((p.argmax(1) == y).mean() > 0.7)
        (True, True)
    """

    calibrated = True

    gate_: np.ndarray
    temperatures_: np.ndarray

    @checked
    def __init__(
        self,
        expert: str = "eszsl",
        gate: Literal["soft", "hard"] = "soft",
        smooth: bool = True,
        confidences: Annotated[int, AtLeast(1)] = 3,
        ridge: Annotated[float, Positive] = 1e-4,
        max_iter: Annotated[int, AtLeast(1)] = 100,
        folds: Annotated[int, AtLeast(2)] = 3,
        random_state: int = 0,
    ) -> None:
        self.expert = expert
        self.gate = gate
        self.smooth = smooth
        self.confidences = confidences
        self.ridge = ridge
        self.max_iter = max_iter
        self.folds = folds
        self.random_state = random_state

    def _fit(self, Z: np.ndarray, y: np.ndarray) -> None:
        described = self._seen_descriptions
        first, second, parts = [], [], []
        for part in held_out(y, self.folds, self.random_state):
            kept, labels = np.unique(y[part.fitted], return_inverse=True)
            rows = np.concatenate([part.seen, part.unseen])
            weights = self._seen_expert(Z[part.fitted], labels)
            other = self._build().fit(Z[part.fitted], labels, described[kept])
            first.append((_linear(Z[rows], weights), np.searchsorted(kept, y[rows])))
            away = np.flatnonzero(np.isin(np.arange(len(described)), part.classes))
            second.append((other.decision_function(Z[rows], described[away]), np.searchsorted(away, y[rows])))
            parts.append(np.arange(len(rows)) < len(part.seen))
        # Each temperature by the rows of the classes that its expert knows.
        self.temperatures_ = np.array(
            [
                _temperature([(scores[ours], y[ours]) for (scores, y), ours in zip(first, parts, strict=True)]),
                _temperature([(scores[~ours], y[~ours]) for (scores, y), ours in zip(second, parts, strict=True)]),
            ]
        )
        seen_side = np.concatenate([self._confidence(scores, 0) for scores, _ in first])
        unseen_side = np.concatenate([self._confidence(scores, 1) for scores, _ in second])
        ours = np.concatenate(parts)
        self.gate_ = _gate(np.concatenate([seen_side, unseen_side], 1), ours)
        self._weights = self._seen_expert(Z, y)
        self._other = self._build().fit(Z, y, described)

    def predict_proba(self, X: Any, descriptions: Any = None) -> np.ndarray:
        """Probabilities of the classes, float64 `[N, C]`.

        Args:
            X: features, float `[N, d]`.
            descriptions: float `[C, a]`, of the classes to choose among; those of `fit` if None.
        """
        return np.exp(self.decision_function(X, descriptions))

    def _scores(self, Z: np.ndarray, descriptions: np.ndarray, known: np.ndarray) -> np.ndarray:
        ours = known >= 0
        p = np.zeros((len(Z), len(known)))
        scores = _linear(Z, self._weights)[:, known[ours]]
        others = self._other.decision_function(Z, descriptions[~ours]) if not ours.all() else np.zeros((len(Z), 0))
        if ours.all() or not ours.any():
            # One world alone leaves the gate nothing to decide.
            which = 0 if ours.all() else 1
            return log_softmax((others if which else scores) / self.temperatures_[which], 1)
        sides = np.concatenate([self._confidence(scores, 0), self._confidence(others, 1)], 1)
        inside = expit(sides @ self.gate_[:-1] + self.gate_[-1])[:, None]
        if self.gate == "hard":
            inside = (inside >= 0.5).astype(np.float64)
        for group, values, temperature, belief in (
            (ours, scores, self.temperatures_[0], inside),
            (~ours, others, self.temperatures_[1], 1 - inside),
        ):
            share = softmax(values / temperature, 1)
            if self.smooth:
                share = belief * share + (1 - belief) / share.shape[1]
            p[:, group] = belief * share
        return np.log(np.maximum(p, _TINY))

    def _build(self) -> ZeroShotClassifier:
        built: ZeroShotClassifier = registry.build("zero-shot-classifiers", self.expert)
        return built

    def _seen_expert(self, Z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Weights of a softmax regression `[C, d + 1]`, the intercept last."""
        count, classes, rows = len(Z), int(y.max()) + 1, np.arange(len(Z))

        def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(classes, -1)
            log_p = log_softmax(_linear(Z, weights), 1)
            slope = np.exp(log_p)
            slope[rows, y] -= 1
            gradient = np.column_stack([slope.T @ Z / count + self.ridge * weights[:, :-1], slope.mean(0)])
            penalty = 0.5 * self.ridge * np.square(weights[:, :-1]).sum()
            return float(-log_p[rows, y].mean() + penalty), gradient.ravel()

        start, options = np.zeros(classes * (Z.shape[1] + 1)), {"maxiter": self.max_iter}
        found: np.ndarray = minimize(value, start, jac=True, method="L-BFGS-B", options=options).x
        return found.reshape(classes, -1)

    def _confidence(self, scores: np.ndarray, which: int) -> np.ndarray:
        """The highest probabilities of each row, sorted, `[N, confidences]`; filled up with zeros."""
        highest = -np.sort(-softmax(scores / self.temperatures_[which], 1), 1)[:, : self.confidences]
        return np.pad(highest, ((0, 0), (0, self.confidences - highest.shape[1])))

    def fitted_state(self) -> dict[str, Any]:
        """Everything that fitting left behind; what the unseen expert knows is under names of its own."""
        state = super().fitted_state()
        other = state.pop("_other")
        return state | {f"expert.{name}": value for name, value in other.fitted_state().items()}

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Becomes the fitted classifier that `fitted_state` was taken from; the options must be the same."""
        mine = {name: value for name, value in state.items() if not name.startswith("expert.")}
        others = {name.removeprefix("expert."): value for name, value in state.items() if name not in mine}
        self._other = self._build().restore(others)
        return super().restore(mine)


def _linear(Z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    scores: np.ndarray = Z @ weights[:, :-1].T + weights[:, -1]
    return scores


def _temperature(parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The temperature at which the true classes are the most likely."""
    spread = np.mean([scores.std() for scores, _ in parts]) or 1.0

    def loss(log: float) -> float:
        found = [-log_softmax(scores / (spread * np.exp(log)), 1)[np.arange(len(y)), y].sum() for scores, y in parts]
        return float(np.sum(found))

    return float(spread * np.exp(minimize_scalar(loss, bounds=(-6.0, 6.0), method="bounded").x))


def _gate(sides: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Logistic regression in which both worlds weigh alike, by repeating the rows of the smaller one."""
    count = max(int(ours.sum()), int((~ours).sum()))
    rows = np.concatenate([np.resize(np.flatnonzero(ours), count), np.resize(np.flatnonzero(~ours), count)])
    target = np.repeat([1.0, 0.0], count)[:, None]
    weights, intercepts = logistic(sides[rows], target, 1e-4, 500)
    return np.append(weights[0], intercepts)
