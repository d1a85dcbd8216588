"""What decides between seen and unseen classes, and what is measured of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from sklearn.base import clone

from repertoire.errors import ShapeError
from repertoire.ranges import Between, Finite, checked
from repertoire.zeroshot._base import ZeroShotClassifier
from repertoire.zeroshot._held_out import held_out

__all__ = ["SeenUnseen", "ausuc", "calibrated_stacking", "choose_gamma", "seen_unseen"]


@checked
def calibrated_stacking(scores: Any, seen: Any, gamma: Annotated[float, Finite]) -> np.ndarray:
    r"""Takes a constant from the scores of seen classes, which would otherwise win nearly always.

    Chao et al., *An Empirical Study and Analysis of Generalized Zero-Shot Learning for Object Recognition in the Wild*
    (2016):

    .. math:: \hat y = \arg\max_c \; f_c(x) - \gamma \, \mathbb{1}[c \text{ is a seen class}]

    Args:
        scores: float `[N, C]`.
        seen: which classes there were rows of, bool `[C]`.
        gamma: what is taken from their scores, in the unit of the scores; see `choose_gamma`.

    Returns:
        The class of each row, int64 `[N]`; of equal scores the first.

    Raises:
        ShapeError: shapes that do not fit. ConfigError: gamma is not finite.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import calibrated_stacking
        >>> scores = np.array([[0.9, 0.5], [0.6, 0.5]])
        >>> calibrated_stacking(scores, [True, False], 0.0), calibrated_stacking(scores, [True, False], 0.2)
        (array([0, 0]), array([0, 1]))
    """
    scores, seen = _checked(scores, seen)
    return (scores - gamma * seen).argmax(1)


@dataclass(frozen=True)
class SeenUnseen:
    """Accuracies on rows of seen and of unseen classes, all classes being allowed, for every gamma that matters.

    Attributes:
        breaks: where an answer changes, float64 `[G - 1]`, rising.
        seen: accuracy on rows of seen classes below the first break point, between each two, and above the last,
            `[G]`, falling.
        unseen: likewise accuracy on rows of unseen classes, `[G]`, rising.
    """

    breaks: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray

    @property
    def area(self) -> float:
        """Area under the curve of seen over unseen accuracy."""
        return float(np.trapezoid(self.seen, self.unseen))

    @property
    def harmonic(self) -> np.ndarray:
        """Harmonic mean of both accuracies at each gamma, `[G]`; 0 where one of them is 0."""
        return _harmonic(self.seen, self.unseen)

    def at(self, gamma: float) -> tuple[float, float, float]:
        """Accuracy on seen classes, on unseen ones, and their harmonic mean, at a gamma that no row stands at."""
        place = int(np.searchsorted(self.breaks, gamma))
        return float(self.seen[place]), float(self.unseen[place]), float(self.harmonic[place])


def seen_unseen(scores: Any, labels: Any, seen: Any, *, per_class: bool = True) -> SeenUnseen:
    """Accuracies on seen and unseen classes as gamma of `calibrated_stacking` goes from one end to the other, exactly.

    Only where gamma passes the difference between the best seen and the best unseen score of a row does anything
    change, so that one sorting says it all: O(N C + N log N).

    Args:
        scores: float `[N, C]`.
        labels: int `[N]`, the true class of each row.
        seen: which classes there were rows of, bool `[C]`.
        per_class: the mean of the accuracies of the classes (default), as in the paper; or of all rows.

    Raises:
        ShapeError: shapes that do not fit, no row of a seen or none of an unseen class.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import seen_unseen
        >>> scores = np.array([[0.9, 0.5], [0.6, 0.5]])
        >>> curve = seen_unseen(scores, [0, 1], [True, False])
        >>> curve.breaks.round(3), curve.seen, curve.unseen, curve.area
        (array([0.1, 0.4]), array([1., 1., 0.]), array([0., 1., 1.]), 1.0)
    """
    scores, seen = _checked(scores, seen)
    labels = np.asarray(labels)
    if labels.shape != (len(scores),) or labels.dtype.kind not in "iu":
        raise ShapeError(f"labels must be whole numbers [{len(scores)}], found {labels.dtype} {[*labels.shape]}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(seen):
        raise ShapeError(f"labels must be classes from 0 to {len(seen) - 1}, found {labels.min()} to {labels.max()}")
    ours = seen[labels]
    if not ours.any() or ours.all():
        raise ShapeError("rows of seen and of unseen classes are needed, and only one of both was found")
    inside, outside = np.where(seen, scores, -np.inf), np.where(seen, -np.inf, scores)
    margin = inside.max(1) - outside.max(1)
    right_seen, right_unseen = inside.argmax(1) == labels, outside.argmax(1) == labels
    weight = _weights(labels, ours, per_class)
    # A row counts for the seen classes while gamma is below its margin, and for the unseen ones above it.
    breaks, place = np.unique(margin, return_inverse=True)
    lost = np.bincount(place, weight * (ours & right_seen), len(breaks))
    gained = np.bincount(place, weight * (~ours & right_unseen), len(breaks))
    falling = np.append(lost[::-1].cumsum()[::-1], 0.0)
    rising = np.append(0.0, gained.cumsum())
    return SeenUnseen(breaks, falling, rising)


def ausuc(scores: Any, labels: Any, seen: Any, *, per_class: bool = True) -> float:
    """Area under the curve of seen over unseen accuracy, from 0 to 1: grades a method whatever its bias towards seen
    classes.

    Chao et al., *An Empirical Study and Analysis of Generalized Zero-Shot Learning for Object Recognition in the Wild*
    (2016). Every gamma that changes an answer is looked at; where several rows change at the same one, the curve is a
    straight line between what is before and after.

    Args:
        scores: float `[N, C]`.
        labels: int `[N]`, the true class of each row.
        seen: which classes there were rows of, bool `[C]`.
        per_class: the mean of the accuracies of the classes (default), as in the paper; or of all rows.

    Raises:
        ShapeError: shapes that do not fit, no row of a seen or none of an unseen class.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import ausuc
        >>> ausuc(np.array([[0.9, 0.5], [0.6, 0.5]]), [0, 1], [True, False])
        1.0
    """
    return seen_unseen(scores, labels, seen, per_class=per_class).area


@checked
def choose_gamma(
    model: ZeroShotClassifier,
    X: Any,
    y: Any,
    descriptions: Any,
    *,
    folds: Annotated[int, Between(2, 100)] = 3,
    random_state: int = 0,
) -> float:
    """The gamma of `calibrated_stacking` with the best harmonic mean, chosen without a row of an unseen class.

    Seen classes are held out in turn as if they were unseen; the model is fitted to the others, whose rows are also
    held back in part, and what both score is put together.

    Args:
        model: what is to be fitted; stays as it is.
        X: features, float `[N, d]`.
        y: int `[N]`, the class of each row: a row of the descriptions.
        descriptions: float `[C, a]`; those of classes without a row are not looked at.
        folds: how many times classes are held out.
        random_state: seed of which are held out together.

    Returns:
        Gamma, in the unit of the model's scores; halfway between the two break points of the best value.

    Raises:
        ShapeError: shapes that do not fit, or too few classes to hold some out.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import ESZSL, choose_gamma
        >>> generator = np.random.default_rng(0)
        >>> descriptions = np.concatenate([np.eye(4)[np.arange(16) // 4], np.eye(4)[np.arange(16) % 4]], 1)
        >>> y = np.repeat(np.arange(16), 10)
        >>> x = descriptions[y] @ generator.normal(size=(8, 12)) + 0.5 * generator.normal(size=(160, 12))
        >>> gamma = choose_gamma(ESZSL(), x, y, descriptions)
        >>> bool(np.isfinite(gamma))
        True
    """
    X, y, descriptions = np.asarray(X), np.asarray(y), np.asarray(descriptions)
    curves, best = [], 0.0
    for part in held_out(y, folds, random_state):
        chosen = np.unique(y)
        fitted = clone(model).fit(X[part.fitted], np.searchsorted(chosen, y[part.fitted]), descriptions[chosen])
        rows = np.concatenate([part.seen, part.unseen])
        scores = fitted.decision_function(X[rows])
        curves.append(seen_unseen(scores, np.searchsorted(chosen, y[rows]), ~np.isin(chosen, part.classes)))
    breaks = np.unique(np.concatenate([curve.breaks for curve in curves]))
    tried = (breaks[1:] + breaks[:-1]) / 2
    if len(tried):
        both = [(np.searchsorted(curve.breaks, tried), curve) for curve in curves]
        seen = np.mean([curve.seen[place] for place, curve in both], 0)
        unseen = np.mean([curve.unseen[place] for place, curve in both], 0)
        best = float(tried[_harmonic(seen, unseen).argmax()])
    return best


def _harmonic(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    total = first + second
    return np.where(total > 0, 2 * first * second / np.where(total > 0, total, 1.0), 0.0)


def _weights(labels: np.ndarray, ours: np.ndarray, per_class: bool) -> np.ndarray:
    """Weight of each row, such that those of seen classes sum to 1, and those of unseen ones."""
    counts = np.bincount(labels)[labels] if per_class else np.ones(len(labels))
    weight = 1.0 / counts
    for group in (ours, ~ours):
        weight[group] /= weight[group].sum()
    return weight


def _checked(scores: Any, seen: Any) -> tuple[np.ndarray, np.ndarray]:
    scores, seen = np.asarray(scores), np.asarray(seen)
    if scores.ndim != 2 or scores.dtype.kind != "f" or not np.isfinite(scores).all():
        raise ShapeError(f"scores must be finite floats [N, C], found {scores.dtype} {[*scores.shape]}")
    if seen.shape != scores.shape[1:] or seen.dtype != bool:
        raise ShapeError(f"seen must be bool [{scores.shape[1]}], found {seen.dtype} {[*seen.shape]}")
    return scores.astype(np.float64), seen
