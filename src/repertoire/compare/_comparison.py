"""What came out of a comparison: a row for each configuration, differences to the baseline, sentences."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from repertoire.compare._metric import Metric
from repertoire.compare._search import Trial
from repertoire.compare._statistics import holm, interval, p_value, seeds_needed

__all__ = ["ALPHA", "Comparison", "Measurement", "Row", "Verdict", "make_rows", "measure"]

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


@dataclass(frozen=True)
class Comparison:
    """A comparison of configurations, as `compare` gives it.

    Attributes:
        path: its directory.
        data: what it is on.
        metric: what it is by.
        seeds: of the runs.
        baseline: label of the configuration that the others are measured against.
        table: a row for each configuration.
        trials: of a search, by label.
        space: what was searched, by field, as the command line takes it.
        shared: what all configurations have in common and was not left at its default.
    """

    path: Path
    data: str
    metric: Metric
    seeds: tuple[int, ...]
    baseline: str
    table: tuple[Row, ...]
    trials: Mapping[str, Sequence[Trial]] = field(default_factory=dict)
    space: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    @property
    def sentences(self) -> list[str]:
        """What the comparison says, a sentence for each configuration but the baseline, then what has to be known."""
        from repertoire.compare._sentences import sentences

        return sentences(self)

    @property
    def failures(self) -> list[tuple[str, int, str]]:
        """Label, seed and reason of each run that failed."""
        return [(row.label, run.seed, run.reason) for row in self.table for run in row.runs if run.reason]

    def row(self, label: str) -> Row:
        """The row of a configuration.

        Raises:
            KeyError: there is none of that label.
        """
        for row in self.table:
            if row.label == label:
                return row
        raise KeyError(label)

    def to_json(self) -> str:
        """Everything as JSON; what is unknown is null."""
        return json.dumps(self._content(), indent=2, ensure_ascii=False, allow_nan=False)

    def _content(self) -> dict[str, Any]:
        return {
            "format": 1,
            "data": self.data,
            "metric": self.metric.name,
            "higher_is_better": self.metric.higher_is_better,
            "seeds": list(self.seeds),
            "baseline": self.baseline,
            "shared": dict(self.shared),
            "configurations": [_plain(asdict(row)) for row in self.table],
            "search": dict(self.space),
            "trials": {label: [asdict(trial) for trial in trials] for label, trials in self.trials.items()},
            "failures": [dict(zip(("label", "seed", "reason"), failure, strict=True)) for failure in self.failures],
            "sentences": self.sentences,
        }


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
            "interval": interval(values) if len(values) > 1 else None,
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
    low, high = found["difference_interval"] = interval(differences)
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


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
