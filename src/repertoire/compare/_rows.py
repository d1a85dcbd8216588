"""A row of a comparison: a configuration, its runs, and how it differs from the baseline."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from repertoire.compare._metric import Metric
from repertoire.statistics import holm, interval, p_value, seeds_needed

__all__ = ["ALPHA", "Measurement", "Row", "Verdict", "make_rows", "measure"]

ALPHA = 0.05
"""A difference is real when its p value, adjusted for the number of comparisons, lies below."""

Verdict = Literal["baseline", "better", "worse", "unproven", "undecided", "equal", "untested"]


@dataclass(frozen=True)
class Measurement:
    """One run: the metric, training time in seconds, peak memory in bytes; or why there is none of it."""

    seed: int
    path: Path
    value: float | None = None
    seconds: float | None = None
    memory: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """A configuration, measured.

    Attributes:
        label: what it is called.
        settings: values of the fields that vary.
        found: values that a search found.
        runs: one measurement a seed.
        mean: of the metric over the seeds; None where no run is finished.
        interval: 95 % interval of the mean; None for fewer than two seeds.
        pairs: number of seeds that are finished here and for the baseline.
        difference: mean of the metric less that of the baseline, over the pairs.
        difference_interval: 95 % interval of that, by itself; None for fewer than two pairs.
        p: p value of the paired t test; None for fewer than two pairs.
        p_adjusted: the same, adjusted for the number of comparisons (Holm).
        seeds_needed: how many would tell the two apart, if the difference is what it seems; None where they are told
            apart already, or no reasonable number would do.
        seconds: mean training time.
        memory: mean peak memory in bytes.
        time_ratio, memory_ratio: to the baseline, over the pairs.
        verdict: "better" and "worse" hold after the correction; "unproven" is a difference whose own interval leaves
            out zero while the correction does not let it stand; "undecided" is one whose interval has zero in it;
            "equal" where every pair gave the same; "untested" for fewer than two pairs.
    """

    label: str
    settings: Mapping[str, Any]
    found: Mapping[str, Any]
    runs: tuple[Measurement, ...]
    mean: float | None
    interval: tuple[float, float] | None
    pairs: int = 0
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    p: float | None = None
    p_adjusted: float | None = None
    seeds_needed: int | None = None
    seconds: float | None = None
    memory: float | None = None
    time_ratio: float | None = None
    memory_ratio: float | None = None
    verdict: Verdict = "untested"

    @property
    def values(self) -> list[float]:
        """The metric of the runs that are finished, in the order of the seeds."""
        return [run.value for run in self.runs if run.value is not None]

    @property
    def failures(self) -> list[tuple[str, int, str]]:
        """Label, seed and reason of each run that failed."""
        return [(self.label, run.seed, run.reason) for run in self.runs if run.reason]


def measure(seed: int, path: Path, metric: Metric, reason: str = "") -> Measurement:
    """Reads what a run left behind. `reason` says why it has failed, if it has."""
    if reason:
        return Measurement(seed, path, reason=reason)
    try:
        metrics = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
        value = float(metrics[metric.name])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Measurement(seed, path, reason=f"its metrics cannot be read ({type(error).__name__}: {error})")
    if not math.isfinite(value):
        return Measurement(seed, path, reason=f"its {metric.title} is {value}")
    return Measurement(seed, path, value, info.get("seconds"), info.get("peak_memory"))


def make_rows(
    entries: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any], Sequence[Measurement]]],
    baseline: str,
    metric: Metric,
) -> tuple[Row, ...]:
    """The rows of label, settings, found settings and measurements of each configuration."""
    reference = {run.seed: run for label, _, _, runs in entries if label == baseline for run in runs}
    pairs = {label: _pairs(runs, reference) for label, _, _, runs in entries if label != baseline}
    differences = {label: [a.value - b.value for a, b in found] for label, found in pairs.items()}  # type: ignore[operator]
    tested = [label for label, values in differences.items() if len(values) > 1]
    p_values = [p_value(differences[label]) for label in tested]
    adjusted = dict(zip(tested, holm(p_values), strict=True))
    rows = []
    for label, settings, found, runs in entries:
        values = [run.value for run in runs if run.value is not None]
        known: dict[str, Any] = {
            "label": label,
            "settings": settings,
            "found": found,
            "runs": tuple(runs),
            "mean": statistics.fmean(values) if values else None,
            "interval": interval(values, bounds=metric.bounds) if len(values) > 1 else None,
            "seconds": _mean([run.seconds for run in runs]),
            "memory": _mean([run.memory for run in runs]),
        }
        if label == baseline:
            rows.append(Row(**known, verdict="baseline", pairs=len(values)))
            continue
        known |= _against(pairs[label], differences[label], adjusted.get(label), len(tested), metric)
        rows.append(Row(**known))
    return tuple(rows)


def _pairs(runs: Sequence[Measurement], reference: Mapping[int, Measurement]) -> list[tuple[Measurement, Measurement]]:
    """The runs and those of the baseline with the same seed, where both are finished."""
    both = [(run, reference[run.seed]) for run in runs if run.seed in reference]
    return [(run, other) for run, other in both if run.value is not None and other.value is not None]


def _against(
    pairs: Sequence[tuple[Measurement, Measurement]],
    differences: Sequence[float],
    adjusted: float | None,
    comparisons: int,
    metric: Metric,
) -> dict[str, Any]:
    if not pairs:
        return {}
    found: dict[str, Any] = {
        "pairs": len(pairs),
        "difference": statistics.fmean(differences),
        "time_ratio": _ratio([(a.seconds, b.seconds) for a, b in pairs]),
        "memory_ratio": _ratio([(a.memory, b.memory) for a, b in pairs]),
    }
    if adjusted is None:
        return found
    low, high = found["difference_interval"] = interval(differences, bounds=metric.difference_bounds)
    found |= {"p": p_value(differences), "p_adjusted": adjusted}
    if not any(differences):
        found["verdict"] = "equal"
    elif adjusted < ALPHA:
        found["verdict"] = "better" if (low > 0) == metric.higher_is_better else "worse"
    else:
        found["verdict"] = "unproven" if low > 0 or high < 0 else "undecided"
        found["seeds_needed"] = seeds_needed(differences, alpha=ALPHA / comparisons)
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _ratio(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    """Geometric mean of the ratios."""
    known = [(a, b) for a, b in pairs if a and b]
    return math.exp(statistics.fmean(math.log(a / b) for a, b in known)) if known else None
