"""OpenMax: a class of its own for what lies in the tail of the distances to every class."""

from __future__ import annotations

import warnings
from typing import Annotated

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp

from repertoire.errors import ConfigError, RepertoireWarning
from repertoire.openset._base import NoveltyScore
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["OpenMax"]

_SHIFT = 1e4
"""What is added to the tail before a Weibull distribution is fitted, as the authors' library does."""
_STEEPEST = 1e9
_ENOUGH = 5
"""Correctly classified samples of a class whose distances have a tail worth fitting to."""


@register("novelty-scores", "openmax")
class OpenMax(NoveltyScore):
    r"""Probability of a further class, unknown, that takes what the largest logits lose far from their classes.

    Bendale and Boult, *Towards Open Set Deep Networks* (CVPR 2016). For each class, a Weibull distribution is fitted to
    the largest distances of its correctly classified samples to their mean logits :math:`\mu_c`. Its distribution
    function :math:`F_c` says how far in the tail a sample lies; of the a largest logits, the r-th passes a share on to
    the class unknown, 0:

    .. math:: f'_c = f_c (1 - w_c), \quad f'_0 = \sum_c f_c w_c, \quad w_c = \tfrac{a + 1 - r}{a} F_c(\lVert f - \mu_c
        \rVert_2)

    and :math:`w_c = 0` for all other classes. Given is how much speaks for any class against the unknown one,
    :math:`s(x) = \log \sum_c e^{f'_c} - f'_0`, which orders samples as the probability of class 0 does and goes on
    where that is 0 or 1. pytorch-ood fits the tail to all samples of a class that it is given, and of a sample's
    largest logits measures only distances to classes that some sample of the same call is taken for; here, no sample
    depends on others.

    A class with fewer than 5 samples that are classified correctly has no tail to speak of: fitted to two distances,
    the distribution calls all that is further away unknown. There, :math:`F_c` is the distance beyond r, in units of r
    and at most 1, where r is the largest distance of any correctly classified sample to the mean of its class; fitting
    warns of it. :math:`\mu_c` is then the mean of all samples of the class, where none is classified correctly. Of a
    class without samples nothing is near.

    Args:
        tail: how many of the largest distances the distribution is fitted to, 2 or more.
        revised: a, how many of the largest logits are revised, 1 or more; all where there are fewer.

    Attributes:
        few_: numbers of the classes that were too small for a tail.

    Raises:
        ConfigError: when fitted: no class has two samples that are classified correctly and differ.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import OpenMax
        >>> logits = np.repeat(np.arange(3.0, 8.0), 2)[:, None] * np.tile(np.eye(2), (5, 1))
        >>> score = OpenMax(tail=3).fit(logits=logits, labels=np.arange(10) % 2)
        >>> (score(logits=np.array([[6.0, 0.2], [20.0, 20.0]])) > 0).tolist()
        [True, False]
    """

    reads = frozenset({"logits", "labels"})

    def __init__(self, tail: Annotated[int, AtLeast(2)] = 20, revised: Annotated[int, AtLeast(1)] = 10) -> None:
        self.tail, self.revised = tail, revised

    @classmethod
    def example_options(cls) -> dict[str, int]:
        """Few samples have a short tail: what lies in it is taken for unknown."""
        return {"tail": 5}

    def _fit(self, x: None, f: np.ndarray, y: np.ndarray) -> None:
        classes = f.shape[1]
        right = f.argmax(1) == y
        self.means_ = np.zeros((classes, classes))
        # Of a class without samples nothing is near: its share is always passed on.
        self.lowest_ = np.full(classes, -np.inf)
        self.shape_, self.scale_ = np.full(classes, _STEEPEST), np.full(classes, _SHIFT)
        self.radius_ = 0.0
        few = []
        for c in range(classes):
            own = f[right & (y == c)]
            if len(own) < _ENOUGH and (y == c).any():
                few.append(c)
            if not len(own):
                own = f[y == c]
                self.means_[c] = own.mean(0) if len(own) else 0.0
                continue
            self.means_[c] = own.mean(0)
            distances = np.sort(np.linalg.norm(own - self.means_[c], axis=1))[-self.tail :]
            self.radius_ = max(self.radius_, float(distances[-1]))
            if len(own) >= _ENOUGH:
                self.lowest_[c] = distances[0]
                self.shape_[c], self.scale_[c] = _weibull(distances - distances[0] + _SHIFT)
        self.few_ = np.array(few, np.int64)
        if few and not self.radius_ > 0:
            raise ConfigError(
                "no class has two samples that are classified correctly and differ, and OpenMax looks at how far they "
                "are from each other"
            )
        if few:
            warnings.warn(
                f"OpenMax: {len(few)} of {classes} classes have fewer than {_ENOUGH} samples that are classified "
                "correctly; there, it goes by the distance in units of the largest one, in the place of a tail",
                RepertoireWarning,
                stacklevel=3,
            )

    def _score(self, x: None, f: np.ndarray) -> np.ndarray:
        squares = (f**2).sum(1)[:, None] - 2 * f @ self.means_.T + (self.means_**2).sum(1)
        distances = np.sqrt(squares.clip(min=0.0))
        shifted = distances - self.lowest_ + _SHIFT
        with np.errstate(divide="ignore"):
            power = self.shape_ * np.log(shifted.clip(min=0.0) / self.scale_)
        beyond = -np.expm1(-np.exp(power.clip(max=700.0)))
        if len(self.few_):
            beyond[:, self.few_] = (distances[:, self.few_] / self.radius_ - 1).clip(0.0, 1.0)
        count = min(self.revised, f.shape[1])
        ranked = np.zeros_like(f)
        top = np.argsort(-f, axis=1, kind="stable")[:, :count]
        np.put_along_axis(ranked, top, np.broadcast_to((count - np.arange(count)) / count, top.shape), axis=1)
        passed = beyond * ranked
        return np.asarray(logsumexp(f * (1 - passed), axis=1) - (f * passed).sum(1))


def _weibull(values: np.ndarray) -> tuple[float, float]:
    """The most likely shape and scale of a Weibull distribution that starts at 0."""
    logs = np.log(values)
    spread = logs - logs.max()
    if spread.min() > -1e-12:
        return _STEEPEST, float(values.max())

    def slope(log_shape: float) -> float:
        weights = np.exp(np.exp(log_shape) * spread)
        return float((weights * spread).sum() / weights.sum() - np.exp(-log_shape) - spread.mean())

    shape = float(np.exp(brentq(slope, -10.0, np.log(_STEEPEST), xtol=1e-12)))
    scale = np.exp(logs.max() + np.log(np.exp(shape * spread).mean()) / shape)
    return shape, float(scale)
