"""A comparison in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

from repertoire.compare._metric import Metric
from repertoire.compare._rows import Row
from repertoire.errors import option
from repertoire.statistics import MOST_SEEDS

__all__ = ["sentences"]

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def sentences(rows: Sequence[Row], baseline: str, metric: Metric) -> list[str]:
    """A sentence for each configuration but the baseline, then what has to be known to read them.

    Args:
        rows: of the comparison, the baseline's included.
        baseline: its label.
        metric: what is compared.
    """
    others = [row for row in rows if row.label != baseline]
    tested = sum(row.p is not None for row in others)
    said = [_sentence(row, baseline, metric, tested) for row in others]
    if any(row.verdict == "untested" and row.pairs for row in others):
        said.append(
            f"A single seed says nothing about chance, so there is no interval: give {option('seeds', 3)}, or better "
            "5, to learn whether a difference is more than that."
        )
    if any(row.verdict in ("better", "worse") for row in others) and tested > 1:
        said.append(
            f"Each interval is a 95 % interval by itself; what is said to be better or worse stands after correction "
            f"for {_number(tested)} comparisons (Holm)."
        )
    for row in rows:
        said += [f"{label} failed with seed {seed}: {reason.rstrip('.')}." for label, seed, reason in row.failures]
    return said


def _sentence(row: Row, baseline: str, metric: Metric, tested: int) -> str:
    if row.difference is None:
        failed = sum(bool(run.reason) for run in row.runs)
        if failed == len(row.runs):
            return f"{row.label} cannot be compared: every run failed."
        return f"{row.label} cannot be compared with {baseline}: no seed is finished for both."
    better = (row.difference > 0) == metric.higher_is_better
    size = metric.difference(abs(row.difference))
    if row.verdict == "untested":
        if row.difference == 0:
            return f"{row.label} and {baseline} gave the same {metric.title} with the one seed that both have."
        how = "better" if better else "worse"
        return f"{row.label} was {size} {how} than {baseline} with the one seed that both have{_cost(row)}."
    assert row.difference_interval is not None
    if row.verdict == "equal":
        return f"{row.label} and {baseline} gave the same {metric.title} with every seed{_cost(row)}."
    # Written so that the sentence's verb gives the sign.
    low, high = row.difference_interval if row.difference > 0 else tuple(-end for end in row.difference_interval[::-1])
    span = metric.differences(low, high)
    if row.verdict in ("better", "worse"):
        verb = "beats" if row.verdict == "better" else "loses to"
        return f"{row.label} {verb} {baseline} by {size} ({span}){_cost(row)}."
    if low == high:
        return (
            f"{row.label} was {size} {'better' if better else 'worse'} than {baseline} with every one of "
            f"{_number(row.pairs)} seeds; {_needed(row)}{_cost(row, '. It took')}."
        ).replace("would, if the difference is what it seems", "would show that it is no chance")
    if row.verdict == "unproven":
        how = "better" if better else "worse"
        return (
            f"{row.label} looks {how} than {baseline} by {size} ({span}), but among {_number(tested)} comparisons one "
            f"may look so by chance (adjusted p = {row.p_adjusted:.2f}); {_needed(row)}{_cost(row, '. It took')}."
        )
    signed = metric.difference(row.difference, sign=True)
    around = metric.differences(*row.difference_interval, sign=True)
    return (
        f"{_number(row.pairs).capitalize()} seeds cannot tell {row.label} and {baseline} apart ({signed}, {around}); "
        f"{_needed(row)}{_cost(row, '. The first took')}."
    )


def _needed(row: Row) -> str:
    if row.seeds_needed is None:
        return f"more than {MOST_SEEDS:,} would be needed, if the difference is what it seems"
    return f"about {row.seeds_needed} would, if the difference is what it seems"


def _cost(row: Row, verb: str = "") -> str:
    """What it cost, in times of the baseline; what differs by less than a twentieth is the same."""
    parts = []
    if row.time_ratio is not None:
        parts.append("the same time" if 0.95 < row.time_ratio < 1.05 else f"{_times(row.time_ratio)} the time")
    if row.memory_ratio is not None and not 0.9 < row.memory_ratio < 1.1:
        parts.append(f"{_times(row.memory_ratio)} the memory")
    if not parts:
        return ""
    return f"{verb} {' and '.join(parts)}" if verb else f" for {' and '.join(parts)}"


def _times(ratio: float) -> str:
    return f"{ratio:.0f} times" if ratio >= 9.95 else f"{ratio:.1f} times" if ratio >= 0.095 else f"{ratio:.2g} times"


def _number(count: int) -> str:
    return _WORDS[count] if count < len(_WORDS) else f"{count:,}"
