"""What paired differences over seeds say: their interval, whether a claim holds, how many seeds would tell.

Free of torch: whoever shows stored evidence does not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

__all__ = ["MOST_SEEDS", "Verdict", "holm", "interval", "p_value", "seeds_needed", "verdict"]

Verdict = Literal["holds", "does not hold", "inconclusive"]

MOST_SEEDS = 1000
"""Where `seeds_needed` stops counting: such a difference is not worth telling apart."""


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


def p_value(differences: Sequence[float]) -> float:
    r"""Two-sided p value of Student's paired t test of a mean difference of zero.

    .. math:: p = 2\, T_{n-1}\left(-\frac{|\bar d|}{s / \sqrt n}\right)

    Equal differences, which are common where a metric is a share of a few hundred images, have no spread to reckon
    with. They are left to the sign test, which gives 2^(1 - n), or 1 where all of them are zero. One difference says
    nothing: 1.

    >>> round(p_value([0.01, 0.02, 0.03]), 4)
    0.0742

    Raises:
        ValueError: there are no differences.
    """
    if not differences:
        raise ValueError("no differences were given; a test needs at least one")
    if len(differences) == 1:
        return 1.0
    if min(differences) == max(differences):
        return _sign_test(len(differences)) if differences[0] else 1.0
    from scipy.special import stdtr

    mean, spread = _moments(differences)
    return 2 * float(stdtr(len(differences) - 1, -abs(mean) / (spread / math.sqrt(len(differences)))))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number: below 0.05 means that all such findings together are right in 95 % of cases.

    Holm, *A Simple Sequentially Rejective Multiple Test Procedure* (1979): the smallest of m is multiplied by m, the
    next by m - 1, and so on, none ends below a smaller one, and none above 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = floor
    return adjusted


def seeds_needed(differences: Sequence[float], *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """How many seeds would tell the difference from zero, were it and its spread what they seem to be.

    The smallest n at which the paired t test at level `alpha` finds the mean difference in a share `power` of cases.
    For equal differences, the n that the sign test takes.

    Args:
        differences: one a seed, at least two of them.
        alpha: level of the test; that of all comparisons together, divided by their number.
        power: share of cases in which the difference is to be found.

    Returns:
        The number, from 2 to `MOST_SEEDS`; None where more would be needed, or no number would do because the mean
        difference is zero.

    Raises:
        ValueError: fewer than two differences: there is no spread to reckon with.

    >>> seeds_needed([0.01, -0.01, 0.02, 0.015, -0.005])
    39
    """
    if len(differences) < 2:
        raise ValueError(f"{len(differences)} difference(s) have no spread; at least two are needed")
    mean, spread = _moments(differences)
    if min(differences) == max(differences):
        return math.floor(2 - math.log2(alpha)) if differences[0] else None
    if mean == 0:
        return None
    # More seeds always tell more, so halving finds the first number that is enough.
    low, high = 1, MOST_SEEDS + 1
    while high - low > 1:
        middle = (low + high) // 2
        if _power(abs(mean) / spread, middle, alpha) >= power:
            high = middle
        else:
            low = middle
    return high if high <= MOST_SEEDS else None


def _sign_test(count: int) -> float:
    """P value of so many differences that all have the same sign."""
    return 2.0 ** (1 - count)


def _power(effect: float, count: int, alpha: float) -> float:
    """Share of samples of that size in which the test finds a mean of so many standard deviations, on its own side.

    The mean over the spreads that a sample may have, at evenly spaced quantiles. SciPy's noncentral t distribution
    gives nonsense for large effects, which few seeds often seem to have.
    """
    import numpy as np
    from scipy.special import gammaincinv, ndtr, stdtrit

    free = count - 1
    quantiles = (np.arange(1000) + 0.5) / 1000
    spreads = np.sqrt(2 * gammaincinv(free / 2, quantiles) / free)
    return float(ndtr(effect * math.sqrt(count) - stdtrit(free, 1 - alpha / 2) * spreads).mean())


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
