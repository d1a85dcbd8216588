"""What a score is worth: how well it tells known samples from unknown ones, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from repertoire.errors import ConfigError
from repertoire.metrics import aurc, auroc, fpr_at_tpr, oscr, risk_coverage
from repertoire.ranges import AtLeast, checked

__all__ = ["COVERAGES", "Detection", "detection"]

COVERAGES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the samples at which a risk is given."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Detection:
    """How well a score tells samples of known classes from others.

    Attributes:
        auroc: how often a known sample scores above an unknown one, from 0 to 1.
        fpr95: share of unknown samples that pass where 95 % of the known ones do, from 0 (best) to 1.
        oscr: area under the share of known samples that pass and are classified right, over the share of unknown ones
            that pass; at most the accuracy.
        aurc: area under the risk-coverage curve of known and unknown samples together, where every answer for an
            unknown sample is an error, from 0 (best).
        intervals: of auroc, fpr95 and oscr, 95 %, by bootstrap of the known and the unknown samples.
        risk: share of errors among the answers, where the surest samples get one: for each of `COVERAGES`.
        known, unknown: how many samples there were.
    """

    auroc: float
    fpr95: float
    oscr: float
    aurc: float
    intervals: dict[str, Interval]
    risk: tuple[float, ...]
    known: int
    unknown: int


@checked
def detection(
    known: np.ndarray,
    correct: np.ndarray,
    unknown: np.ndarray,
    *,
    repetitions: Annotated[int, AtLeast(1)] = 200,
    seed: int = 0,
) -> Detection:
    """Measures how well a score tells samples of known classes from others.

    Args:
        known: scores `[N]` of samples of known classes, higher for what is known.
        correct: true or false `[N]`, whether they were given the right class.
        unknown: scores `[M]` of samples of no known class.
        repetitions: of the bootstrap, 1 or more.
        seed: of the bootstrap.

    Raises:
        ShapeError: shapes that do not fit, or a score that is NaN.
        ConfigError: there are no known or no unknown samples, so that there is nothing to tell apart.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import detection
        >>> found = detection(np.array([0.9, 0.8, 0.4]), np.array([True, True, False]), np.array([0.5, 0.1]))
        >>> round(found.auroc, 3), round(found.oscr, 3), found.risk[-1]
        (0.833, 0.667, 0.6)
    """
    known, correct, unknown = np.asarray(known, float), np.asarray(correct, bool), np.asarray(unknown, float)
    if not len(known) or not len(unknown):
        missing = "known" if not len(known) else "unknown"
        raise ConfigError(f"there are no {missing} samples, so there is nothing to tell apart")

    def measured(chosen: np.ndarray, right: np.ndarray, other: np.ndarray) -> list[float]:
        scores, truth = np.concatenate([chosen, other]), np.arange(len(chosen) + len(other)) < len(chosen)
        return [auroc(scores, truth), fpr_at_tpr(scores, truth), oscr(chosen, right, other)]

    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(repetitions):
        rows, others = (generator.integers(len(part), size=len(part)) for part in (known, unknown))
        drawn.append(measured(known[rows], correct[rows], unknown[others]))
    bounds = np.quantile(np.array(drawn), (0.025, 0.975), axis=0)
    names = ("auroc", "fpr95", "oscr")
    intervals = {name: (float(bounds[0, i]), float(bounds[1, i])) for i, name in enumerate(names)}
    scores, losses = np.concatenate([known, unknown]), np.append(~correct, np.ones(len(unknown))).astype(float)
    coverage, risk = risk_coverage(scores, losses)
    at = np.searchsorted(coverage, np.array(COVERAGES) - 1e-9)
    area, passing, classified = measured(known, correct, unknown)
    return Detection(
        area,
        passing,
        classified,
        aurc(scores, losses),
        intervals,
        tuple(risk[at].tolist()),
        known=len(known),
        unknown=len(unknown),
    )
