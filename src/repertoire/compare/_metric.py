"""The metrics that configurations can be compared by, and how their values are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

from repertoire.errors import UnknownName

__all__ = ["METRICS", "Metric", "find_metric"]


@dataclass(frozen=True)
class Metric:
    """A number in a run's metrics.json.

    Attributes:
        name: its key.
        title: as it is called in a sentence.
        higher_is_better: whether more of it is better.
        share: whether it is a share, whose differences are written in percentage points.
        kinds: the kinds of targets whose runs are measured by it.
    """

    name: str
    title: str
    higher_is_better: bool = True
    share: bool = True
    kinds: tuple[str, ...] = ("classes", "votes")

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest mean that there can be."""
        return (0.0, 1.0) if self.share else (-math.inf, math.inf)

    @property
    def difference_bounds(self) -> tuple[float, float]:
        """The same for a difference of two means."""
        return (-1.0, 1.0) if self.share else (-math.inf, math.inf)

    def value(self, value: float | None) -> str:
        """A value; a dash where there is none.

        >>> find_metric("accuracy").value(0.9123), find_metric("nll").value(0.25)
        ('91.2%', '0.250')
        """
        if value is None:
            return "–"
        return f"{value:.1%}" if self.share else f"{value:.3f}"

    def span(self, low: float, high: float) -> str:
        """The ends of an interval of values."""
        return f"{self.value(low)} to {self.value(high)}"

    def difference(self, value: float, *, unit: bool = True, sign: bool = False) -> str:
        """A difference of two values.

        >>> find_metric("accuracy").difference(0.0123, sign=True), find_metric("accuracy").difference(0.01)
        ('+1.2 points', '1.0 point')
        """
        number = 100 * value if self.share else value
        digits = (1 if abs(number) >= 0.095 else 2) if self.share else 3
        text = f"{number:{'+' if sign else ''}.{digits}f}"
        if float(text) == 0:
            text = text.lstrip("+-")
        if not unit or not self.share:
            return text
        return f"{text} point{'' if text.lstrip('+-') == '1.0' else 's'}"

    def differences(self, low: float, high: float, *, sign: bool = False) -> str:
        """The ends of an interval of differences."""
        ends = [self.difference(end, unit=False, sign=sign) for end in (low, high) if math.isfinite(end)]
        return " to ".join(ends)


_SCORED = ("classes", "votes", "labels")

METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "test accuracy"),
        Metric("balanced_accuracy", "balanced test accuracy"),
        Metric("macro_f1", "macro F1", kinds=_SCORED),
        Metric("mean_average_precision", "mean average precision", kinds=("labels",)),
        Metric("mae", "mean absolute error", higher_is_better=False, share=False, kinds=("number",)),
        Metric("miou", "mean IoU", kinds=("maps",)),
        Metric("nll", "negative log-likelihood", higher_is_better=False, share=False, kinds=(*_SCORED, "maps")),
        Metric("ece", "calibration error", higher_is_better=False, share=False),
        Metric("val_accuracy", "validation accuracy"),
    )
}


def find_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UnknownName: there is none; suggests the nearest.
    """
    known = name.replace("-", "_")
    if known not in METRICS:
        raise UnknownName("metric", name, list(METRICS))
    return METRICS[known]
