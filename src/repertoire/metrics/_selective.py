"""How much better a classifier does that may leave samples out."""

from __future__ import annotations

import math

import numpy as np

from repertoire.metrics._arrays import Values, numbers, same_length

__all__ = ["aurc", "risk_coverage"]


def risk_coverage(confidence: Values, loss: Values) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss on the samples that are kept, for each share of samples that a threshold can keep.

    El-Yaniv and Wiener, *On the Foundations of Noise-free Selective Classification* (JMLR 2010).

    Args:
        confidence: numbers `[N]`, larger for surer; infinite ones are allowed.
        loss: numbers `[N]`: 1 for an error and 0 for a right answer, or any other loss.

    Returns:
        coverage float64 `[T]`, increasing to 1, and risk float64 `[T]`: a point for each of the T distinct values of
        confidence, since a threshold keeps all samples of one value or none. Both empty without samples.

    Raises:
        ShapeError: shapes that do not fit, or NaN.

    Example:
        >>> from repertoire.metrics import risk_coverage
        >>> coverage, risk = risk_coverage([0.9, 0.8, 0.8, 0.1], [0, 0, 1, 1])
        >>> coverage.tolist(), risk.round(2).tolist()
        ([0.25, 0.75, 1.0], [0.0, 0.33, 0.5])
    """
    last, total = _cumulated(confidence, loss)
    kept = last + 1
    return kept / max(1, len(total)), total[last] / kept


def aurc(confidence: Values, loss: Values) -> float:
    r"""The area under the risk-coverage curve: the mean, over all numbers of samples kept, of the mean loss on them.

    Geifman, Uziel and El-Yaniv, *Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers* (ICLR 2019):

    .. math:: \frac{1}{N} \sum_{n=1}^{N} \frac{1}{n} \sum_{i=1}^{n} \ell_{(i)}

    with the losses from the surest sample on. Of samples of equal confidence, each order is as likely, and the value is
    the mean over all of them.

    Args:
        confidence: numbers `[N]`, larger for surer; infinite ones are allowed.
        loss: numbers `[N]`: 1 for an error and 0 for a right answer, or any other loss.

    Returns:
        From 0 (best) to the mean loss and beyond; the mean loss where all are equally sure; NaN without samples.

    Raises:
        ShapeError: shapes that do not fit, or NaN.

    Example:
        >>> from repertoire.metrics import aurc
        >>> aurc([0.9, 0.8, 0.7, 0.1], [0, 0, 0, 1])
        0.0625
    """
    last, total = _cumulated(confidence, loss)
    if not len(total):
        return math.nan
    kept = np.arange(1, len(total) + 1)
    # Within samples of one confidence, the expected sum grows evenly.
    expected = np.interp(kept, np.append(0, last + 1), np.append(0.0, total[last]))
    return float((expected / kept).mean())


def _cumulated(confidence: Values, loss: Values) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the losses from the surest sample on, and the last place of each distinct confidence."""
    confidence, loss = numbers("confidence", confidence), numbers("loss", loss)
    same_length(confidence=confidence, loss=loss)
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], [True] * (len(ranked) > 0)))
    return last, np.cumsum(loss[order])
