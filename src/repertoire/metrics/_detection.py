"""How well a score tells two kinds of samples apart, whatever the threshold."""

from __future__ import annotations

import math

import numpy as np

from repertoire.errors import ConfigError
from repertoire.metrics._arrays import Values, numbers, same_length, truths

__all__ = ["auroc", "average_precision", "fpr_at_tpr", "oscr"]


def auroc(scores: Values, positive: Values) -> float:
    r"""The area under the receiver operating characteristic: how often a positive scores above a negative.

    Hanley and McNeil, *The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC) Curve* (1982):

    .. math:: \frac{1}{|P| |N|} \sum_{i \in P} \sum_{j \in N} [s_i > s_j] + \tfrac{1}{2} [s_i = s_j]

    Takes N log N steps, and no matrix of pairs.

    Args:
        scores: numbers `[N]`, larger for positives; infinite ones are allowed.
        positive: true or false `[N]`.

    Returns:
        From 0 to 1, 0.5 for scores that say nothing; NaN where there are no positives or no negatives.

    Raises:
        ShapeError: shapes that do not fit, or a score that is NaN.

    Example:
        >>> from repertoire.metrics import auroc
        >>> auroc([0.9, 0.4, 0.4, 0.1], [True, True, False, False])
        0.875
    """
    scores, positive = _binary(scores, positive)
    return _wins(scores[positive], scores[~positive], positive.sum())


def average_precision(scores: Values, positive: Values) -> float:
    r"""The area under the curve of precision over recall, as a sum of steps.

    Davis and Goadrich, *The Relationship Between Precision-Recall and ROC Curves* (2006), on why not to interpolate
    between the points:

    .. math:: \sum_t (R_t - R_{t-1}) P_t

    over the distinct scores t from the largest down; samples of equal score are taken together.

    Args:
        scores: numbers `[N]`, larger for positives; infinite ones are allowed.
        positive: true or false `[N]`.

    Returns:
        From above 0 to 1; the share of positives for scores that are all equal; NaN where there are no positives.

    Raises:
        ShapeError: shapes that do not fit, or a score that is NaN.

    Example:
        >>> from repertoire.metrics import average_precision
        >>> round(average_precision([0.9, 0.8, 0.7, 0.1], [True, False, True, False]), 4)
        0.8333
    """
    scores, positive = _binary(scores, positive)
    if not positive.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))
    gained = np.diff(hits[last], prepend=0)
    return float((gained * hits[last] / (last + 1)).sum() / hits[-1])


def fpr_at_tpr(scores: Values, positive: Values, tpr: float = 0.95) -> float:
    """The share of negatives that pass a threshold which lets through a given share of the positives.

    Liang, Li and Srikant, *Enhancing the Reliability of Out-of-distribution Image Detection in Neural Networks* (ICLR
    2018): the false positive rate at 95 % true positive rate. The threshold is the largest score that at least this
    share of the positives reaches; a negative of exactly that score passes.

    Args:
        scores: numbers `[N]`, larger for positives; infinite ones are allowed.
        positive: true or false `[N]`.
        tpr: the share of the positives, above 0, at most 1; 0.95 by default.

    Returns:
        From 0 (best) to 1; NaN where there are no positives or no negatives.

    Raises:
        ShapeError: shapes that do not fit, or a score that is NaN.
        ConfigError: tpr out of range.

    Example:
        >>> from repertoire.metrics import fpr_at_tpr
        >>> fpr_at_tpr([0.9, 0.5, 0.6, 0.1], [True, True, False, False])
        0.5
    """
    scores, positive = _binary(scores, positive)
    if not 0 < tpr <= 1:
        raise ConfigError(f"tpr is {tpr}; expected a share above 0, at most 1")
    if positive.all() or not positive.any():
        return math.nan
    ranked = np.sort(scores[positive])[::-1]
    # Without the tolerance, 0.95 of 20 would be 19 and a bit.
    threshold = ranked[math.ceil(tpr * len(ranked) - 1e-9) - 1]
    return float((scores[~positive] >= threshold).mean())


def oscr(known: Values, correct: Values, unknown: Values) -> float:
    r"""The area under the open-set classification rate: known samples classified right, over unknown ones let through.

    Dhamija, Günther and Boult, *Reducing Network Agnostophobia* (NeurIPS 2018). At each threshold, the share of known
    samples that pass and are classified right is set against the share of unknown ones that pass; the area is

    .. math:: \frac{1}{|K| |U|} \sum_{i \in K} \sum_{j \in U} c_i \left( [s_i > s_j] + \tfrac{1}{2} [s_i = s_j] \right)

    with c the correct ones. It is at most the accuracy, and at most the AUROC of known against unknown.

    Args:
        known: numbers `[N]`, the scores of samples of known classes, larger for surer; infinite ones are allowed.
        correct: true or false `[N]`, whether they were given the right class.
        unknown: numbers `[M]`, the scores of samples of no known class.

    Returns:
        From 0 to 1; NaN where there are no known or no unknown samples.

    Raises:
        ShapeError: shapes that do not fit, or a score that is NaN.

    Example:
        >>> from repertoire.metrics import oscr
        >>> oscr([0.9, 0.8, 0.3], [True, False, True], [0.5, 0.1])
        0.5
    """
    known, correct, unknown = numbers("known", known), truths("correct", correct), numbers("unknown", unknown)
    same_length(known=known, correct=correct)
    return _wins(known[correct], unknown, len(known))


def _binary(scores: Values, positive: Values) -> tuple[np.ndarray, np.ndarray]:
    scores, positive = numbers("scores", scores), truths("positive", positive)
    same_length(scores=scores, positive=positive)
    return scores, positive


def _wins(ours: np.ndarray, others: np.ndarray, count: int) -> float:
    """In how many pairs ours is larger, of all pairs of `count` with others; a draw is half a win."""
    if not count or not len(others):
        return math.nan
    ranked = np.sort(others)
    wins = np.searchsorted(ranked, ours, "left").sum() + np.searchsorted(ranked, ours, "right").sum()
    return float(wins / (2.0 * count * len(others)))
