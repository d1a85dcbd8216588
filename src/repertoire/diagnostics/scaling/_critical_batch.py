"""The critical batch size, from runs to the same loss at several batch sizes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from repertoire.diagnostics.scaling._power_law import Numbers, _array
from repertoire.errors import DataError, ShapeError

__all__ = ["CriticalBatch", "fit_critical_batch"]


class CriticalBatch(NamedTuple):
    """The trade of steps for samples on the way to one loss.

    Attributes:
        batch: the critical batch size, at which steps and samples are both twice what they have to be.
        interval: of it, with 95 % confidence.
        steps: the least number of steps, with batches without end.
        samples: the least number of samples, with batches of one.
    """

    batch: float
    interval: tuple[float, float]
    steps: float
    samples: float

    def steps_at(self, batch: float) -> float:
        """Steps that a batch size takes to the same loss.

        >>> CriticalBatch(100.0, (90.0, 110.0), 1000.0, 100_000.0).steps_at(100)
        2000.0
        """
        return self.steps * (1 + self.batch / batch)


def fit_critical_batch(batch: Numbers, steps: Numbers) -> CriticalBatch:
    r"""Fits how many steps a loss takes at each batch size, and where larger batches stop paying.

    McCandlish et al., *An Empirical Model of Large-Batch Training* (2018), and after it Kaplan et al., *Scaling Laws
    for Neural Language Models* (2020), and Su et al., *Unraveling the Mystery of Scaling Laws: Part I* (2024): the
    number of steps S and of samples E = BS that training takes to a loss obey

    .. math:: \Big(\frac{S}{S_{\min}} - 1\Big) \Big(\frac{E}{E_{\min}} - 1\Big) = 1
              , \qquad S = S_{\min} + \frac{E_{\min}}{B}, \qquad
              B_\mathrm{crit} = \frac{E_{\min}}{S_{\min}}

    which is fitted by relative errors; the interval is that of Fieller for a ratio.

    Args:
        batch: batch sizes `[P]`, positive, at least three different ones.
        steps: steps that each took to the loss.

    Returns:
        The critical batch size, and the least steps and samples. The size is infinite where steps fall like 1/B as far
        as was measured, and 0 where they do not fall.

    Raises:
        DataError: numbers that are not positive, or fewer than three batch sizes. ShapeError: different lengths.

    Example:
        >>> from repertoire.diagnostics import fit_critical_batch
        >>> round(fit_critical_batch([16, 64, 256, 1024], [7250, 2562.5, 1390.625, 1097.65625]).batch, 3)
        100.0
    """
    from scipy.special import stdtrit

    b, s = _array("batch", batch).ravel(), _array("steps", steps).ravel()
    if len(b) != len(s):
        raise ShapeError(f"there are {len(b)} batch sizes and {len(s)} numbers of steps")
    if len(np.unique(b)) < 3:
        raise DataError(f"two constants need at least three different batch sizes, found {len(np.unique(b))}")
    design = np.stack([np.ones(len(b)), 1 / b], 1) / s[:, None]
    scale = np.linalg.norm(design, axis=0)
    inverse = np.linalg.inv((design / scale).T @ (design / scale)) / np.outer(scale, scale)
    least = inverse @ design.sum(0)
    residual = float(np.square(1 - design @ least).sum())
    if least[0] <= 0:
        return CriticalBatch(math.inf, (0.0, math.inf), 0.0, float((s * b).mean()))
    if least[1] <= 0:
        return CriticalBatch(0.0, (0.0, math.inf), float(s.mean()), 0.0)
    covariance = inverse * residual / (len(b) - 2)
    bounds = _fieller(least[1], least[0], covariance, float(stdtrit(len(b) - 2, 0.975)))
    return CriticalBatch(float(least[1] / least[0]), bounds, float(least[0]), float(least[1]))


def _fieller(top: float, bottom: float, covariance: np.ndarray, quantile: float) -> tuple[float, float]:
    """Ratios r for which top - r * bottom is not told from zero, among those that are not negative."""
    q = quantile**2
    a = bottom**2 - q * covariance[0, 0]
    b = top * bottom - q * covariance[0, 1]
    c = top**2 - q * covariance[1, 1]
    if a <= 0:  # the least number of steps is not told from zero: no upper end
        return 0.0, math.inf
    root = math.sqrt(max(b * b - a * c, 0.0))
    return max(float((b - root) / a), 0.0), float((b + root) / a)
