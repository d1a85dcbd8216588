"""Intervals of means, tests and their corrections, and how many seeds would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["MOST_SEEDS", "benjamini_hochberg", "clustered_interval", "holm", "interval", "p_value", "seeds_needed"]

MOST_SEEDS = 1000
"""Where `seeds_needed` stops counting: such a difference is not worth telling apart."""


def interval(
    values: Sequence[float],
    confidence: float = 0.95,
    *,
    overlap: float = 0.0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    r"""Student's t interval of a mean, of paired differences or of any other values, one a seed.

    .. math:: \bar d \pm t_{n-1,\,(1+c)/2}\; s \sqrt{\tfrac{1}{n} + r}

    Values that are equal give an interval of width zero; a single value says nothing about its spread and gives all
    that the bounds allow.

    Args:
        values: one a seed; independent draws, except as `overlap` says.
        confidence: between 0 and 1.
        overlap: r, number of test samples divided by that of training samples, where every seed divides one finite set
            into the two anew: training sets then overlap, and the spread over seeds is smaller than that over data
            sets. The correction is that of Nadeau and Bengio, *Inference for the Generalization Error* (2003).
        bounds: the least and the largest mean there can be: (0, 1) for a share, (-1, 1) for a difference of shares. The
            interval is cut to them, which costs no coverage: the mean cannot lie in what is cut off.

    Raises:
        ValueError: there are no values, or the confidence is not between 0 and 1, or the overlap is negative.

    Example:
        >>> [round(bound, 3) for bound in interval([0.01, 0.02, 0.03])]
        [-0.005, 0.045]
        >>> [round(bound, 3) for bound in interval([0.98, 0.90, 0.99], bounds=(0, 1))]
        [0.834, 1]
    """
    values = [float(value) for value in values]
    if not values:
        raise ValueError("no values were given; an interval needs at least one")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, found {confidence}")
    if not overlap >= 0:
        raise ValueError(f"overlap must be 0 or more, found {overlap}")
    count = len(values)
    if count == 1:
        return bounds
    # A constant list must give exactly its value: the mean of three times 0.1 is not 0.1 in floating point.
    if min(values) == max(values):
        return values[0], values[0]
    from scipy.special import stdtrit

    mean, spread = _moments(values)
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * spread * math.sqrt(1 / count + overlap)
    return max(mean - half, bounds[0]), min(mean + half, bounds[1])


def clustered_interval(
    clusters: Sequence[Sequence[float]], confidence: float = 0.95, *, draws: int = 4000, seed: int = 0
) -> tuple[float, float]:
    r"""Bootstrap interval of a mean over values that come in clusters: images within networks, say.

    Each draw takes as many clusters as there are, with replacement, and within each as many of its values. The mean is
    that of the clusters' means, so that a large cluster counts as much as a small one.

    Args:
        clusters: the values of each cluster, any numbers of them.
        confidence: between 0 and 1.
        draws: number of bootstrap samples.
        seed: of the draws.

    Raises:
        ValueError: no clusters, or one without values.

    Example:
        >>> low, high = clustered_interval([[0.1, 0.2, 0.3], [0.2, 0.3, 0.4]])
        >>> 0.1 < low < 0.25 < high < 0.4
        True
    """
    import numpy as np

    if not clusters or any(len(cluster) == 0 for cluster in clusters):
        raise ValueError("every cluster needs at least one value, and there must be a cluster")
    random = np.random.default_rng(seed)
    # A draw's mean of a resampled cluster, for each draw and each place in it: of a cluster of its own choice.
    chosen = random.integers(len(clusters), size=(draws, len(clusters)))
    means = np.empty(chosen.shape)
    for i, cluster in enumerate(clusters):
        rows = np.asarray(cluster, dtype=np.float64)
        places = chosen == i
        # How often each value is drawn, rather than the values themselves: one product for all draws.
        counts = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=int(places.sum()))
        means[places] = counts @ rows / len(rows)
    low, high = np.quantile(means.mean(1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def p_value(differences: Sequence[float], *, overlap: float = 0.0) -> float:
    r"""Two-sided p value of Student's paired t test of a mean difference of zero.

    .. math:: p = 2\, T_{n-1}\left(-\frac{|\bar d|}{s \sqrt{1/n + r}}\right)

    Equal differences, which are common where a metric is a share of a few hundred images, have no spread to reckon
    with. They are left to the sign test, which gives 2^(1 - n), or 1 where all of them are zero. One difference says
    nothing: 1. r is the `overlap` of :func:`repertoire.statistics.interval`.

    >>> round(p_value([0.01, 0.02, 0.03]), 4)
    0.0742

    Raises:
        ValueError: there are no differences.
    """
    differences = [float(difference) for difference in differences]
    if not differences:
        raise ValueError("no differences were given; a test needs at least one")
    if len(differences) == 1:
        return 1.0
    if min(differences) == max(differences):
        return _sign_test(len(differences)) if differences[0] else 1.0
    from scipy.special import stdtr

    mean, spread = _moments(differences)
    return 2 * float(stdtr(len(differences) - 1, -abs(mean) / (spread * math.sqrt(1 / len(differences) + overlap))))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number: below 0.05 means that all such findings together are right in 95 % of cases.

    Holm, *A Simple Sequentially Rejective Multiple Test Procedure* (1979): the smallest of m is multiplied by m, the
    next by m - 1, and so on, none ends below a smaller one, and none above 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    _check_p_values(p_values)
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = floor
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Q values: of all findings with one below 0.05, at most 5 % are expected to be false.

    Benjamini and Hochberg, *Controlling the False Discovery Rate* (1995): the k-th smallest of m p values is multiplied
    by m / k, and none ends above a larger one's.

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    _check_p_values(p_values)
    adjusted = [0.0] * len(p_values)
    ceiling = 1.0
    for rank, i in sorted(enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i]), 1), reverse=True):
        ceiling = min(ceiling, p_values[i] * len(p_values) / rank)
        adjusted[i] = ceiling
    return adjusted


def _check_p_values(p_values: Sequence[float]) -> None:
    """Refuses what is no p value: sorted among the others, nan would make all of them 1."""
    wrong = [value for value in p_values if not 0 <= value <= 1]
    if wrong:
        raise ValueError(f"p values must lie in [0, 1], found {wrong[0]}; leave out what was not tested")


def seeds_needed(differences: Sequence[float], *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Number of seeds that would tell the difference from zero, were it and its spread what they seem to be.

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
        raise ValueError(f"at least two differences are needed, or there is no spread; found {len(differences)}")
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
