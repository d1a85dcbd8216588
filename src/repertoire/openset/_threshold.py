"""Thresholds from validation samples, with what they guarantee."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from scipy.stats import beta

from repertoire.errors import ConfigError, ShapeError
from repertoire.ranges import AtLeast, Between, checked

__all__ = ["false_alarm_range", "threshold"]

FalseAlarms = Annotated[float, Between(0, 1, "()")]


@checked
def threshold(scores: Any, false_alarms: FalseAlarms = 0.05) -> float:
    r"""The score below which a sample counts as unknown, so that few known samples do.

    Split conformal prediction: Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World* (2005). The
    threshold t is the k-th smallest of the n validation scores, with :math:`k = \lfloor \alpha (n + 1) \rfloor`. For a
    new sample of a known class that is exchangeable with the validation samples, and whatever the scores are,

    .. math:: P(s < t) \le \alpha, \qquad P(s < t) \ge \alpha - \tfrac{1}{n + 1} \text{ where no two scores are equal.}

    The probability is over validation samples and new ones together: `false_alarm_range` says what to expect of one
    validation set. The validation samples must be other ones than those that the score was fitted to or chosen by.

    Args:
        scores: numbers `[n]` of validation samples of known classes, higher for what is known.
        false_alarms: alpha, the share of known samples that may be called unknown, above 0 and below 1.

    Raises:
        ShapeError: no numbers `[n]`, or a score that is NaN.
        ConfigError: alpha out of range, or fewer than 1 / alpha - 1 scores: nothing could then be promised.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import threshold
        >>> threshold(np.arange(99.0), false_alarms=0.05)
        4.0
    """
    found = np.asarray(scores, dtype=np.float64)
    if found.ndim != 1 or np.isnan(found).any():
        raise ShapeError(f"scores must be numbers [n], none of them NaN, found {list(found.shape)}")
    # Without the tolerance, 0.05 of 100 would be a little less than 5.
    rank = math.floor(false_alarms * (len(found) + 1) + 1e-9)
    if rank < 1:
        least = math.ceil(1 / false_alarms - 1 - 1e-9)
        raise ConfigError(
            f"{len(found)} validation samples are too few for {false_alarms:g} false alarms: it takes {least} or more"
        )
    return float(np.sort(found)[rank - 1])


@checked
def false_alarm_range(
    count: Annotated[int, AtLeast(1)], false_alarms: FalseAlarms = 0.05, confidence: FalseAlarms = 0.9
) -> tuple[float, float]:
    r"""Between which shares of false alarms one validation set of so many samples will lie.

    Given the validation set, the share of known samples below the threshold follows a beta distribution with parameters
    k and n + 1 - k, where no two scores are equal: see `threshold`.

    Args:
        count: n, validation samples.
        false_alarms: alpha, as in `threshold`.
        confidence: how often the share lies between the two numbers.

    Raises:
        ConfigError: something is out of range, or there are too few samples for a threshold.

    Example:
        >>> from repertoire.openset import false_alarm_range
        >>> [round(share, 3) for share in false_alarm_range(1000)]
        [0.039, 0.062]
    """
    rank = math.floor(false_alarms * (count + 1) + 1e-9)
    if rank < 1:
        raise ConfigError(f"{count} validation samples are too few for {false_alarms:g} false alarms")
    tail = (1 - confidence) / 2
    low, high = beta.ppf([tail, 1 - tail], rank, count + 1 - rank)
    return float(low), float(high)
