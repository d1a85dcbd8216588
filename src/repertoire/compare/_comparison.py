"""What came out of a comparison: a row for each configuration, differences to the baseline, sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from repertoire.compare._metric import Metric
from repertoire.compare._rows import Row
from repertoire.compare._search import Trial
from repertoire.compare._sentences import sentences

__all__ = ["Comparison"]


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
        """Findings in sentences: one for each configuration but the baseline, then what has to be known."""
        return sentences(self.table, self.baseline, self.metric)

    @property
    def failures(self) -> list[tuple[str, int, str]]:
        """Label, seed and reason of each run that failed."""
        return [failure for row in self.table for failure in row.failures]

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


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
