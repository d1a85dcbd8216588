"""Episodes: small classification tasks drawn from labelled images, and accuracy over many of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from repertoire.errors import ConfigError, DataError, ShapeError

__all__ = ["EpisodeScores", "episodes", "evaluate_episodes"]


@dataclass(frozen=True)
class EpisodeScores:
    """Accuracy over episodes.

    Attributes:
        mean: mean accuracy.
        interval: its 95 % confidence interval by Student's t over the episodes; nan for a single one.
        each: accuracy of every episode, float64 `[count]`.
    """

    mean: float
    interval: tuple[float, float]
    each: np.ndarray

    def __str__(self) -> str:
        return f"{self.mean:.2%} [{self.interval[0]:.2%}, {self.interval[1]:.2%}], {len(self.each)} episodes"


def episodes(
    labels: Any, ways: int = 5, shots: int = 1, queries: int = 15, count: int = 600, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draws episodes: each a few classes, with some labelled images and others to classify.

    Classes and images are drawn without replacement within an episode, and afresh for each. Only classes with
    `shots + queries` images or more are drawn.

    Args:
        labels: integers `[N]`; negative ones are no label, and not drawn.
        ways: classes in an episode, 2 or more.
        shots: labelled images of each class (the support set).
        queries: images of each class to classify.
        count: number of episodes.
        seed: the same seed gives the same episodes.

    Returns:
        An iterator over pairs of int64 positions in `labels`: support `[ways * shots]` and query `[ways * queries]`,
        class by class.

    Raises:
        ShapeError: labels that are no integers `[N]`.
        ConfigError: a number out of range.
        DataError: too few classes have enough images; the classes that lack some are named, with their counts.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import episodes
        >>> labels = np.repeat(np.arange(10), 20)
        >>> [(len(support), len(query)) for support, query in episodes(labels, ways=5, shots=2, queries=3, count=2)]
        [(10, 15), (10, 15)]
    """
    for name, value, least in (("ways", ways, 2), ("shots", shots, 1), ("queries", queries, 1), ("count", count, 1)):
        if value < least:
            raise ConfigError(f"{name} is {value}; expected {least} or more")
    labels = _numpy(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ShapeError(f"labels must be integers [N], found {labels.dtype} {list(labels.shape)}")
    members = _members(labels, ways, shots + queries)
    return _draw(members, ways, shots, queries, count, np.random.default_rng(seed))


def _members(labels: np.ndarray, ways: int, needed: int) -> list[np.ndarray]:
    """The positions of each class that has as many images as an episode needs."""
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    enough = counts >= needed
    if enough.sum() < ways:
        short = [f"{label} has {number}" for label, number in zip(classes[~enough], counts[~enough], strict=True)]
        listed = ", ".join(short[:20]) + (f", and {len(short) - 20} more" if len(short) > 20 else "")
        raise DataError(
            f"an episode needs {ways} classes of {needed} images (shots + queries); {enough.sum()} of {len(classes)} "
            f"classes have as many" + (f": class {listed}" if short else "") + "; lower ways, shots or queries"
        )
    return [np.flatnonzero(labels == label) for label in classes[enough]]


def _draw(
    members: list[np.ndarray], ways: int, shots: int, queries: int, count: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for _ in range(count):
        drawn = np.stack(
            [
                rng.choice(members[i], shots + queries, replace=False)
                for i in rng.choice(len(members), ways, replace=False)
            ]
        )
        yield drawn[:, :shots].ravel(), drawn[:, shots:].ravel()


def evaluate_episodes(
    features: Any,
    labels: Any,
    estimator: Any,
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    count: int = 600,
    seed: int = 0,
) -> EpisodeScores:
    """Few-shot accuracy of an estimator on frozen features.

    In each episode a fresh copy of the estimator is fitted to the support set and scored on the query set. The
    defaults are the usual 5-way 1-shot protocol with 15 queries a class. Two estimators given the same seed see the
    same episodes, so their `each` can be compared in pairs.

    Args:
        features: float `[N, d]`, array or tensor.
        labels: integers `[N]`; see :func:`episodes`.
        estimator: a scikit-learn classifier, such as `FrozenEmbeddingClassifier()`; left as it is.
        ways, shots, queries, count, seed: see :func:`episodes`.

    Raises:
        ShapeError: features or labels that do not fit.
        ConfigError: a number out of range.
        DataError: too few classes have enough images.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import NearestCentroid, evaluate_episodes
        >>> labels = np.repeat(np.arange(6), 20)
        >>> evaluate_episodes(np.eye(6)[labels], labels, NearestCentroid(), count=3).mean
        1.0
    """
    features, labels = _numpy(features), _numpy(labels)
    if features.ndim != 2 or len(features) != len(labels):
        raise ShapeError(f"features must be [{len(labels)}, d], one row for each label, found {list(features.shape)}")
    scores = [
        clone(estimator).fit(features[support], labels[support]).score(features[query], labels[query])
        for support, query in episodes(labels, ways, shots, queries, count, seed)
    ]
    each = np.array(scores, dtype=np.float64)
    return EpisodeScores(float(each.mean()), _interval(each), each)


def _interval(values: np.ndarray) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def _numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
