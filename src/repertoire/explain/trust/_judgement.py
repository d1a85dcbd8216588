"""Judgements of explainers, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from repertoire.statistics import interval

__all__ = ["RANDOM", "Judged", "Judgement", "rank"]

RANDOM = "random map"
"""The name of what every explainer has to beat."""

UNMOVED = 0.5
"""Rank correlation with the map of a random network from which on a map shows the image more than the model."""

_BOUNDS = dict.fromkeys(("insertion", "deletion", "energy", "pointing"), (0.0, 1.0))
"""What a mean lies between, where it is not -1 and 1."""


@dataclass(frozen=True)
class Judged:
    """Measurements of one explainer.

    Attributes:
        name: what it was called.
        values: a number for each image, `[N]`, of "faithfulness", "insertion", "deletion", "randomization" and
            "sensitivity", and where masks are known "energy" and "pointing".
        class_dependent: whether its maps depend on the class: false if the explainer says so, or if the maps of two
            classes were the same for every image.
        seconds: for the map of an image.
        intervals: 95% interval of each mean over images, by the names of `values`.
    """

    name: str
    values: Mapping[str, np.ndarray]
    class_dependent: bool
    seconds: float
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def mean(self, what: str) -> float | None:
        """The mean over the images; None if it was not measured."""
        return float(self.values[what].mean()) if what in self.values else None


@dataclass(frozen=True)
class Judgement:
    """Ranking of several explainers by faithfulness for one model, and how far each can be trusted.

    Attributes:
        rows: the explainers, the most faithful first.
        random: a random map, measured like them.
        best: the first, and all that cannot be told apart from it.
        margins: by how much the first is more faithful than each other, the random map included: mean, and the ends of
            an interval; the intervals hold for all pairs at once in 95% of samples.
        over_random: the same of each explainer and the random map.
        failed: explainers that do not fit the model, with the reason.
        images: size of the sample.
    """

    rows: tuple[Judged, ...]
    random: Judged
    best: tuple[str, ...]
    margins: Mapping[str, tuple[float, float, float]]
    over_random: Mapping[str, tuple[float, float, float]]
    failed: Mapping[str, str]
    images: int

    def sentence(self) -> str:
        """Says in a sentence or two which explainer to believe."""
        first, images = self.rows[0], f"for this model on these {self.images} images"
        gain, low, high = self.margins[RANDOM]
        ahead = f"{gain:.3f} (95% interval {low:.3f} to {high:.3f})"
        if RANDOM in self.best:
            who = "No explainer is" if len(self.rows) > 1 else f"{first.name} is not"
            best = f"the best, {first.name}," if len(self.rows) > 1 else "it"
            return (
                f"{who} measurably better than a random map {images}: {best} is ahead by {ahead}. Judge on more "
                "images, or do not rely on it."
            )
        equals = [name for name in self.best if name != first.name]
        if len(self.rows) == 1:
            return f"{first.name} is more faithful than a random map {images}, by {ahead}."
        if not equals:
            second = self.rows[1].name
            gain, low, high = self.margins[second]
            return (
                f"{first.name} is the most faithful {images}: ahead of the next, {second}, by {gain:.3f} "
                f"(95% interval {low:.3f} to {high:.3f})."
            )
        if len(equals) == len(self.rows) - 1:
            return (
                f"The explainers cannot be told apart {images}: {first.name} comes out first, and is more faithful "
                f"than a random map by {ahead}."
            )
        return (
            f"{first.name} comes out first {images}, but cannot be told apart from {_listed(equals)}. It is more "
            f"faithful than a random map by {ahead}."
        )

    def warnings(self) -> list[str]:
        """Warnings for whoever looks at the maps, a sentence each."""
        found = []
        blind = [row.name for row in self.rows if not row.class_dependent]
        if blind:
            found.append(
                f"{_listed(blind)} {_verb(blind, 'gives', 'give')} the same map whatever the class: it shows what "
                "stands out to the network, not why it chose this class."
            )
        stuck = [row.name for row in self.rows if row.intervals["randomization"][0] > UNMOVED]
        if stuck:
            found.append(
                f"{_listed(stuck)} {_verb(stuck, 'gives', 'give')} much the same map when the weights are random "
                f"(rank correlation above {UNMOVED}): it shows the image more than what the network learned."
            )
        weak = [row.name for row in self.rows if self.over_random[row.name][1] <= 0]
        if weak and RANDOM not in self.best:
            found.append(f"{_listed(weak)} {_verb(weak, 'is', 'are')} not measurably better than a random map.")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything but the values of single images, for JSON."""
        return {
            "images": self.images,
            "sentence": self.sentence(),
            "warnings": self.warnings(),
            "best": list(self.best),
            "explainers": [
                {
                    "name": row.name,
                    "class_dependent": row.class_dependent,
                    "seconds_per_image": row.seconds,
                    **{what: {"mean": row.mean(what), "interval": list(row.intervals[what])} for what in row.values},
                    "ahead_of_random": dict(zip(("mean", "low", "high"), self.over_random[row.name], strict=True)),
                }
                for row in self.rows
            ],
            "random": {what: {"mean": self.random.mean(what)} for what in self.random.values},
            "first_ahead_of": {
                name: dict(zip(("mean", "low", "high"), margin, strict=True)) for name, margin in self.margins.items()
            },
            "left_out": dict(self.failed),
        }


def rank(rows: Sequence[Judged], random: Judged, failed: Mapping[str, str]) -> Judgement:
    """Puts explainers in order, and says which of them differ.

    The interval of each difference is Student's, over the images, at 5% divided by the number of pairs (Bonferroni): so
    they hold together, also for the pair of the best and another, which the data themselves chose. A bootstrap would
    promise too much here: of a few images it knows too little of how far the spread itself may be off.
    """
    everyone = [*sorted(rows, key=lambda row: -float(row.values["faithfulness"].mean())), random]
    values = [row.values["faithfulness"].astype(np.float64) for row in everyone]
    pairs = len(everyone) * (len(everyone) - 1) // 2

    def margin(i: int, j: int) -> tuple[float, float, float]:
        gains = values[i] - values[j]
        # What is left of a difference that is always the same is rounding.
        if np.ptp(gains) <= 1e-12 * max(np.abs(values[i]).max(), np.abs(values[j]).max()):
            gains = np.full_like(gains, gains.mean())
        return (float(gains.mean()), *interval(gains.tolist(), 1 - 0.05 / pairs, bounds=(-2.0, 2.0)))

    last = len(everyone) - 1
    margins = {everyone[j].name: margin(0, j) for j in range(1, last + 1)}
    best = (everyone[0].name, *(name for name, (_, low, _) in margins.items() if low <= 0))
    return Judgement(
        rows=tuple(_with_intervals(row) for row in everyone[:last]),
        random=_with_intervals(random),
        best=best,
        margins=margins,
        over_random={everyone[i].name: margin(i, last) for i in range(last)},
        failed=dict(failed),
        images=len(values[0]),
    )


def _with_intervals(row: Judged) -> Judged:
    return replace(
        row,
        intervals={
            what: interval(values.astype(np.float64).tolist(), bounds=_BOUNDS.get(what, (-1.0, 1.0)))
            for what, values in row.values.items()
        },
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verb(names: Sequence[str], one: str, several: str) -> str:
    return one if len(names) == 1 else several
