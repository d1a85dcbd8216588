"""The decision: does a claim hold, given paired differences over seeds?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

__all__ = ["Verdict", "interval", "verdict"]

Verdict = Literal["holds", "does not hold", "inconclusive"]


def interval(differences: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    r"""Student's t interval of the mean of paired differences.

    .. math:: \bar d \pm t_{n-1,\,(1+c)/2}\; s / \sqrt n

    The differences are taken as independent draws, one a seed. Equal differences give an interval of width zero; one
    difference says nothing about its spread and gives the whole line.

    >>> [round(bound, 3) for bound in interval([0.01, 0.02, 0.03])]
    [-0.005, 0.045]

    Raises:
        ValueError: there are no differences, or the confidence is not between 0 and 1.
    """
    if not differences:
        raise ValueError("no differences were given; an interval needs at least one")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, found {confidence}")
    count = len(differences)
    if count == 1:
        return -math.inf, math.inf
    from scipy.special import stdtrit

    # A constant list must give exactly its value: the mean of three times 0.1 is not 0.1 in floating point.
    if min(differences) == max(differences):
        return differences[0], differences[0]
    mean = math.fsum(differences) / count
    variance = math.fsum((d - mean) ** 2 for d in differences) / (count - 1)
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * math.sqrt(variance / count)
    return mean - half, mean + half


def verdict(differences: Sequence[float], threshold: float) -> Verdict:
    """Whether the method beats the baseline by more than the threshold.

    "holds" if the whole interval lies above the threshold, "does not hold" if the whole interval lies below it, and
    "inconclusive" if the threshold is inside or on the edge: equal results decide nothing.

    Args:
        differences: one a seed, positive where the method is the better one.
        threshold: by how much it has to be better; negative for "no worse than ... by more than".

    >>> verdict([0.02, 0.03, 0.025], 0.0), verdict([-0.02, -0.03, -0.025], 0.0), verdict([0.02, -0.03, 0.01], 0.0)
    ('holds', 'does not hold', 'inconclusive')
    """
    low, high = interval(differences)
    if low > threshold:
        return "holds"
    if high < threshold:
        return "does not hold"
    return "inconclusive"
