"""Of predicted classes and labels: accuracy among the first k, F1, mean average precision."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from repertoire.errors import ConfigError, ShapeError
from repertoire.metrics._arrays import Values, integers, numbers, same_length, truths
from repertoire.metrics._detection import average_precision

__all__ = ["f1", "mean_average_precision", "top_k_accuracy"]


def top_k_accuracy(scores: Values, labels: Values, k: int = 1) -> float:
    """The share of samples whose class is among the k that score highest.

    A class that shares its score with others comes after them: a classifier that scores all classes alike is right for
    none, unless k covers all of them.

    Args:
        scores: numbers `[N, K]`.
        labels: whole numbers `[N]` in 0..K-1.
        k: 1 or more; 1 by default.

    Returns:
        From 0 to 1; NaN without samples.

    Raises:
        ShapeError: shapes that do not fit, NaN, or a label that is no class.
        ConfigError: k below 1.

    Example:
        >>> from repertoire.metrics import top_k_accuracy
        >>> top_k_accuracy([[0.1, 0.5, 0.4], [0.8, 0.1, 0.1]], [2, 1], k=2)
        0.5
    """
    scores, labels = numbers("scores", scores, 2), integers("labels", labels)
    if len(scores) != len(labels):
        raise ShapeError(f"scores are {list(scores.shape)} and labels {list(labels.shape)}; expected as many rows")
    if k < 1:
        raise ConfigError(f"k is {k}; expected 1 or more")
    if not len(labels):
        return math.nan
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ShapeError(
            f"labels go from {labels.min()} to {labels.max()}; expected classes from 0 to {scores.shape[1] - 1}"
        )
    own = np.take_along_axis(scores, labels[:, None], 1)
    return float(((scores >= own).sum(1) <= k).mean())


def f1(predicted: Values, labels: Values, average: Literal["macro", "micro"] = "macro") -> float:
    r"""The harmonic mean of precision and recall, of classes or of labels of which several may be true.

    van Rijsbergen, *Information Retrieval* (1979). With hits TP, false alarms FP and misses FN:

    .. math:: F_1 = \frac{2 TP}{2 TP + FP + FN}

    Args:
        predicted: whole numbers `[N]`, the class of each sample; or true and false `[N, L]`, for each label.
        labels: of the same shape.
        average: "macro" (default) is the mean over the classes that were predicted or are there; "micro" counts over
            all of them together, which for single classes is the accuracy.

    Returns:
        From 0 to 1; NaN where nothing was predicted and nothing is there.

    Raises:
        ShapeError: shapes that do not fit.
        ConfigError: an unknown average.

    Example:
        >>> from repertoire.metrics import f1
        >>> round(f1([0, 0, 1], [0, 1, 1]), 4), f1([[1, 0], [1, 1]], [[1, 0], [0, 1]], "micro")
        (0.6667, 0.8)
    """
    if average not in ("macro", "micro"):
        raise ConfigError(f"average is {average!r}; expected 'macro' or 'micro'")
    if np.ndim(predicted) == 2:
        ours, true = truths("predicted", predicted, 2), truths("labels", labels, 2)
        same_length(predicted=ours, labels=true)
        hits, sizes = (ours & true).sum(0), ours.sum(0) + true.sum(0)
    else:
        guesses, classes = integers("predicted", predicted), integers("labels", labels)
        same_length(predicted=guesses, labels=classes)
        _, index = np.unique(np.concatenate([guesses, classes]), return_inverse=True)
        guess, own = index[: len(guesses)], index[len(guesses) :]
        sizes = np.bincount(index)
        hits = np.bincount(own[guess == own], minlength=len(sizes))
    there = sizes > 0
    if not there.any():
        return math.nan
    if average == "micro":
        return float(2 * hits.sum() / sizes.sum())
    return float((2 * hits[there] / sizes[there]).mean())


def mean_average_precision(scores: Values, truth: Values) -> float:
    """The mean over labels of the average precision of ranking the samples by the score of the label.

    Everingham et al., *The PASCAL Visual Object Classes (VOC) Challenge* (IJCV 2010), without interpolation; see
    :func:`repertoire.metrics.average_precision`.

    Args:
        scores: numbers `[N, L]`.
        truth: true or false `[N, L]`.

    Returns:
        From above 0 to 1, over the labels that are true somewhere; NaN where none is.

    Raises:
        ShapeError: shapes that do not fit, or a score that is NaN.

    Example:
        >>> from repertoire.metrics import mean_average_precision
        >>> mean_average_precision([[0.9, 0.2], [0.1, 0.7]], [[1, 1], [0, 0]])
        0.75
    """
    scores, truth = numbers("scores", scores, 2), truths("truth", truth, 2)
    same_length(scores=scores, truth=truth)
    there = np.flatnonzero(truth.any(0))
    return float(np.mean([average_precision(scores[:, k], truth[:, k]) for k in there])) if len(there) else math.nan
