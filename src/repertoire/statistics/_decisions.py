"""Whether a claim holds, decided at a few planned looks at the seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from repertoire.statistics._intervals import clustered_interval, interval

__all__ = [
    "ALPHA",
    "KINDS",
    "LOOKS",
    "NOMINAL",
    "VERDICTS",
    "Decision",
    "Kind",
    "Verdict",
    "contrasts",
    "decide",
    "smallest_effect",
]

Kind = Literal["better", "equivalent", "trend", "ordering", "identity", "optimum"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Verdict = Literal["holds", "does not hold", "undecided", "no answer"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

LOOKS = (5, 10, 20)
"""After how many seeds a decision may be taken."""

ALPHA = 0.05
"""Level of a decision, all looks together."""

NOMINAL = 0.0194
"""Level at each of three looks that gives `ALPHA` over all of them, as in Pocock, *Group Sequential Methods* (1977).

His 0.0221 is for looks at equal distances and a known variance. With *t* tests at 5, 10 and 20 seeds it gives 0.056
under normal noise; this gives 0.050, which `tests/statistics` simulates."""


@dataclass(frozen=True)
class Decision:
    """Verdict of the seeds so far.

    Attributes:
        verdict: "holds", "does not hold" or "undecided".
        reason: why, in a few words that may follow the verdict; "" where there is nothing to add.
        mean: of the contrast that decides, the least favourable one where there are several.
        interval: of that mean, at the confidence of a look; None for a single seed.
        p: one-sided p value of "holds", of all looks together; 1 where no test is made.
        smallest: the smallest effect, beyond the threshold, that so many seeds with this spread would have found in
            80 % of cases; None for a single seed.
    """

    verdict: Verdict
    reason: str
    mean: float
    interval: tuple[float, float] | None
    p: float
    smallest: float | None


def contrasts(kind: Kind, rows: Sequence[Sequence[float]], points: Sequence[float] = ()) -> list[list[float]]:
    """The differences, one a seed, that a kind of claim is decided by.

    Args:
        kind: "better" and "equivalent": the row of a seed is the method and the baseline, and there is one contrast,
            their difference. "trend": the slope of the row over `points`. "ordering": each arm less the one before it,
            and all must be positive. "optimum": the best arm that is not at an end, less each of the two ends; the best
            is chosen on the other seeds, so that choosing it is no advantage. "identity": the row itself, an error.
        rows: of each seed, the values of the arms.
        points: where the arms of a trend stand.

    Returns:
        A list for each contrast, with a value for each seed.

    Raises:
        ValueError: rows of different or unsuitable lengths.

    Example:
        >>> contrasts("ordering", [[1.0, 2.0, 4.0], [1.0, 3.0, 4.0]])
        [[1.0, 2.0], [2.0, 1.0]]
        >>> contrasts("trend", [[1.0, 2.0, 3.0]], points=[0, 1, 2])
        [[1.0]]
    """
    width = len(rows[0])
    least = {"better": 2, "equivalent": 2, "trend": 3, "ordering": 2, "identity": 1, "optimum": 3}[kind]
    if any(len(row) != width for row in rows) or width < least:
        raise ValueError(f"a claim of kind {kind!r} needs at least {least} values a seed, the same number for each")
    if kind in ("better", "equivalent"):
        return [[row[0] - row[1] for row in rows]]
    if kind == "identity":
        return [[row[0] for row in rows]]
    if kind == "ordering":
        return [[row[k + 1] - row[k] for row in rows] for k in range(width - 1)]
    if kind == "trend":
        if len(points) != width:
            raise ValueError(f"a trend of {width} arms needs {width} points, found {len(points)}")
        centre = math.fsum(points) / width
        weight = math.fsum((x - centre) ** 2 for x in points)
        return [[math.fsum((x - centre) * y for x, y in zip(points, row, strict=True)) / weight for row in rows]]
    totals = [math.fsum(row[k] for row in rows) for k in range(width)]
    first, last = [], []
    for row in rows:
        # With a single seed there are no others to choose on.
        others = [total - value for total, value in zip(totals, row, strict=True)] if len(rows) > 1 else row
        best = max(range(1, width - 1), key=lambda k: others[k])
        first.append(row[best] - row[0])
        last.append(row[best] - row[-1])
    return [first, last]


def decide(
    found: Sequence[Sequence[float]],
    threshold: float = 0.0,
    *,
    kind: Kind = "better",
    strict: bool = True,
    overlap: float = 0.0,
    exact: bool = False,
    level: float = NOMINAL,
    clusters: Sequence[Sequence[float]] = (),
) -> Decision:
    r"""Decides a claim from its contrasts, as far as the seeds so far can.

    The two-sided interval of each contrast is taken at 1 - `level`. A claim *holds* where all intervals lie above the
    threshold, and *does not hold* where one lies below it. An *equivalence* holds where the interval lies within the
    margin: two one-sided tests, each at `level`, hence the interval at 1 - 2 `level`. An *identity* holds where no
    error exceeds the tolerance.

    With several contrasts all must hold, which no single one can bring about by chance (an intersection-union test);
    that one of them fails is found at `level` divided by their number.

    Args:
        found: of :func:`contrasts`, a list for each with a value for each seed; larger is better.
        threshold: what must be exceeded; the margin of an equivalence; the tolerance of an identity.
        kind: of the claim.
        strict: "more than the threshold"; "at least" if false. It matters where the spread is zero.
        overlap: see :func:`repertoire.statistics.interval`.
        exact: nothing was left to chance, so that a single value decides.
        level: of the interval.
        clusters: the difference of each unit (an image) in each seed (a network), where the unit is what varies: the
            interval is then that of :func:`repertoire.statistics.clustered_interval`.

    Example:
        >>> decide([[0.001, -0.002, 0.001, 0.0, 0.002]], 0.01, kind="equivalent").verdict
        'holds'
        >>> decide([[16.0] * 5], 16.0, strict=False, exact=True).verdict
        'holds'
        >>> decide([[0.0, 0.02, -0.01, 0.01, 0.03]]).verdict
        'undecided'
    """
    if kind == "identity":
        worst = max(found[0])
        good = worst <= threshold
        reason = "" if good else "the largest error is {}, {} are allowed".format(*_told_apart(worst, threshold))
        return Decision("holds" if good else "does not hold", reason, worst, None, 1.0, None)
    count = len(found[0])
    confidence = 1 - level * (2 if kind == "equivalent" else 1)
    spans = [_span(values, confidence, overlap, exact) for values in found]
    if clusters:
        spans = [clustered_interval(clusters, confidence)]
    means = [math.fsum(values) / count if min(values) != max(values) else values[0] for values in found]
    smallest = max((_smallest(values, level, overlap) for values in found), default=0.0) if count > 1 else None
    if kind == "equivalent":
        (low, high), mean = spans[0], means[0]
        verdict, reason = _equivalence(low, high, threshold)
        p = max(_one_sided(found[0], -threshold, overlap), _one_sided([-v for v in found[0]], -threshold, overlap))
        return Decision(verdict, reason, mean, _finite(spans[0]), _over_looks(p, level, exact), smallest)
    at = min(range(len(found)), key=lambda k: spans[k][0])
    if all(_above(span, threshold, strict, exact) for span in spans):
        verdict, reason = "holds", ""
    else:
        # Bonferroni: any of the contrasts may fail by chance.
        strictly = [_span(v, 1 - level / len(found), overlap, exact) for v in found] if len(found) > 1 else spans
        failed = [k for k, span in enumerate(strictly) if _below(span, threshold, strict, exact)]
        verdict, reason = ("does not hold", "") if failed else ("undecided", "")
        if failed:
            at = min(failed, key=lambda k: strictly[k][1])
            reason = _how(strictly[at], threshold)
    p = max(_one_sided(values, threshold, overlap) for values in found)
    if clusters:
        p = _from_span(spans[0], means[0], threshold, confidence)
    return Decision(verdict, reason, means[at], _finite(spans[at]), _over_looks(p, level, exact), smallest)


def smallest_effect(values: Sequence[float], count: int, *, level: float = NOMINAL, overlap: float = 0.0) -> float:
    """The smallest mean, beyond the threshold, that `count` seeds with this spread would tell in 80 % of cases.

    Args:
        values: at least two, whose spread is taken to be that of the seeds to come.
        count: number of seeds.
        level: two-sided level of the decision.
        overlap: see :func:`repertoire.statistics.interval`.

    Example:
        >>> round(smallest_effect([0.01, -0.01, 0.02, 0.0, 0.01], 20), 4)
        0.0087
    """
    from scipy.special import stdtrit

    critical = float(stdtrit(count - 1, 1 - level / 2)) + float(stdtrit(count - 1, 0.8))
    return critical * statistics.stdev(values) * math.sqrt(1 / count + overlap)


def _told_apart(value: float, limit: float) -> tuple[str, str]:
    """Two numbers with three digits, or as many more as it takes to see that they differ."""
    shown = ((f"{value:.{digits}g}", f"{limit:.{digits}g}") for digits in range(3, 18))
    return next((pair for pair in shown if pair[0] != pair[1]), (str(value), str(limit)))


def _smallest(values: Sequence[float], level: float, overlap: float) -> float:
    return smallest_effect(values, len(values), level=level, overlap=overlap)


def _span(values: Sequence[float], confidence: float, overlap: float, exact: bool) -> tuple[float, float]:
    if exact:
        return min(values), max(values)
    return interval(values, confidence, overlap=overlap)


def _finite(span: tuple[float, float]) -> tuple[float, float] | None:
    return span if math.isfinite(span[0]) else None


def _above(span: tuple[float, float], threshold: float, strict: bool, exact: bool) -> bool:
    if span[0] == threshold and (exact or not strict):
        return not strict
    return span[0] > threshold


def _below(span: tuple[float, float], threshold: float, strict: bool, exact: bool) -> bool:
    if span[1] == threshold and exact:
        return strict
    return span[1] < threshold


def _equivalence(low: float, high: float, margin: float) -> tuple[Verdict, str]:
    if -margin < low and high < margin:
        return "holds", ""
    if low > margin or high < -margin:
        return "does not hold", "the difference is larger than the margin"
    return "undecided", ""


def _how(span: tuple[float, float], threshold: float) -> str:
    low, high = span
    if high < threshold < 0:
        return "worse by more than is allowed"
    if high < 0:
        return "the effect is reversed"
    if low > 0:
        return "the effect is there and smaller than claimed"
    return "no effect of the claimed size" if threshold > 0 else "the effect is absent"


def _one_sided(values: Sequence[float], threshold: float, overlap: float) -> float:
    """P value of the mean being no larger than the threshold; sign test where there is no spread."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return 1.0
    if min(values) == max(values):
        return 2.0**-count if values[0] > threshold else 1.0
    from scipy.special import stdtr

    scale = statistics.stdev(values) * math.sqrt(1 / count + overlap)
    return float(stdtr(count - 1, (threshold - mean) / scale))


def _from_span(span: tuple[float, float], mean: float, threshold: float, confidence: float) -> float:
    """P value of the mean being no larger than the threshold, from an interval that is nearly that of a normal mean."""
    from scipy.special import ndtr, ndtri

    width = span[1] - span[0]
    if width == 0:
        return 0.0 if mean > threshold else 1.0
    return float(ndtr((threshold - mean) / (width / (2 * ndtri((1 + confidence) / 2)))))


def _over_looks(p: float, level: float, exact: bool) -> float:
    """A p value that is `level` / 2 at the edge of a look becomes ALPHA / 2, the level of all looks together."""
    return 1.0 if exact else min(1.0, p * max(1.0, ALPHA / level))
