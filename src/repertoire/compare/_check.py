"""Looking at a whole grid before anything runs: everything that is wrong with it, in one message."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from repertoire.compare._grid import Grid, Member
from repertoire.compare._jobs import explained, splits_of
from repertoire.compare._metric import METRICS, Metric
from repertoire.data import Splits
from repertoire.errors import ConfigError, DataError
from repertoire.recipe import TrainConfig
from repertoire.train import rehearse

__all__ = ["check"]


def check(grid: Grid, complaints: Mapping[str, str], metric: Metric) -> tuple[Splits, dict[str, TrainConfig]]:
    """Rehearses every member.

    Args:
        grid: its members, with the first seed and paths that are absolute.
        complaints: why some cannot even be configured, by label.
        metric: what they are compared by.

    Returns:
        The images of the baseline, and the resolved configurations by label.

    Raises:
        DataError, UnreadableImages: the images cannot be used.
        ConfigError: the metric is none of such targets; or some members cannot be run, and all of them are named.
    """
    reasons = dict(complaints)
    splits = splits_of(grid.shared if grid.baseline.label in reasons else grid.baseline.config)
    fitting = [name for name, one in METRICS.items() if splits.kind in one.kinds]
    if fitting and metric.name not in fitting:
        raise ConfigError(
            f"metric {metric.name!r} is for targets of kind {' or '.join(map(repr, metric.kinds))}, and those of "
            f"{grid.shared.data} are {splits.kind!r}: choose {' or '.join(fitting)}"
        )
    if not (splits.test.labels >= 0).any():
        raise DataError(f"no test image of {grid.shared.data} has a label, so there is no {metric.title} to compare")
    resolved = {}
    for member in grid.members:
        if member.label in reasons:
            continue
        try:
            resolved[member.label] = _rehearsed(member, splits)
        except Exception as error:  # whatever it is, it would stop the run as well
            reasons[member.label] = explained(error)
    if reasons:
        raise ConfigError(_listing(reasons, len(grid.members)))
    return splits, resolved


def _rehearsed(member: Member, reference: Splits) -> TrainConfig:
    splits = splits_of(member.config)
    same = len(splits.test) == len(reference.test) and np.array_equal(splits.test.keys, reference.test.keys)
    # Of numbers, those that are not known are NaN.
    if not same or not np.array_equal(splits.test.labels, reference.test.labels, equal_nan=True):
        raise ConfigError("it would be tested on other images than the baseline, which is no comparison")
    return rehearse(member.config, splits)


def _listing(reasons: Mapping[str, str], total: int) -> str:
    """Every member that cannot be run; those with the same reason in one line."""
    by_reason: dict[str, list[str]] = {}
    for label, reason in reasons.items():
        by_reason.setdefault(reason, []).append(label)
    if len(by_reason) == 1 and len(reasons) == total:
        return f"none of the {total} configurations can be run, and nothing was begun: {next(iter(by_reason))}"
    lines = [f"  {'; '.join(labels)}: {reason}" for reason, labels in by_reason.items()]
    count = f"{len(reasons)} of {total} configurations" if len(reasons) < total else f"all {total} configurations"
    return "\n".join([f"{count} cannot be run, and nothing was begun:", *lines])
