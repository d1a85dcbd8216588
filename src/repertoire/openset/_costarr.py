"""COSTARR: features and what the last layer makes of them, compared with those of the class."""

from __future__ import annotations

from typing import Literal

import numpy as np

from repertoire.errors import ConfigError, ShapeError
from repertoire.openset._base import NoveltyScore, Values, check_head
from repertoire.registry import register

__all__ = ["COSTARR"]

_ENOUGH = 5
"""Correctly classified samples of a class whose mean says something of it."""


@register("novelty-scores", "costarr", paper="costarr")
class COSTARR(NoveltyScore):
    r"""Likeness to the class in the features, before and after the class's weights fade some of them, times the logit.

    Rabinowitz et al., *COSTARR: Consolidated Open Set Technique with Attenuation for Robust Recognition* (ICCV 2025).
    With c the class of the largest logit and :math:`w_c` its row of the last layer's weight:

    .. math:: s(x) = \frac{1 + \cos(g(x), \bar g_c)}{2} \, \hat f_c(x), \qquad g(x) = [z; z \odot w_c]

    where :math:`\bar g_c` is the mean of g over the training samples of class c that are classified correctly, and
    :math:`\hat f_c` the largest logit, scaled so that the smallest and the largest of all logits of these samples are 0
    and 1, and cut off there. Neither the paper beyond its abstract nor the authors' release could be read: the formula
    is that of another implementation, whose authors report that its scores are exactly those of the release.

    Args:
        weight: float `[K, d]` of the last layer.
        bias: float `[K]` of the last layer; checked, and not looked at otherwise.
        parts: "both", or one half of g alone: "features" or "products".
        alike: whether both halves are brought to unit length first. As the formula stands, the one with larger numbers
            decides, and where weights are small, as those of a linear layer on many features are, that is the features.
        combine: "product" (default) or "sum" of likeness and logit.

    Raises:
        ShapeError: weight and bias do not fit together.
        ConfigError: when fitted: all logits are the same.

    A class with fewer than 5 samples that are classified correctly has the mean over all its samples; one without any
    sample has no likeness to anything, a cosine of 0. Where no sample is classified correctly, all count.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import COSTARR
        >>> weight, x = np.eye(2, 3), np.array([[4.0, 0.0, 0.1], [3.0, 0.1, 0.0], [0.0, 4.0, 0.1], [0.1, 3.0, 0.0]])
        >>> score = COSTARR(weight).fit(x, x @ weight.T, np.array([0, 0, 1, 1]))
        >>> new = np.array([[3.5, 0.0, 0.0], [3.5, 3.4, 5.0]])
        >>> score(new, new @ weight.T).round(2).tolist()
        [0.87, 0.72]
    """

    def __init__(
        self,
        weight: Values,
        bias: Values | None = None,
        parts: Literal["both", "features", "products"] = "both",
        combine: Literal["product", "sum"] = "product",
        alike: bool = False,
    ) -> None:
        self.weight, self.bias = check_head(weight, bias)
        self.parts, self.combine, self.alike = parts, combine, alike

    def _looks(self, x: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """g of each sample for a class, `[N, d]` or `[N, 2d]`."""
        if x.shape[1] != self.weight.shape[1]:
            raise ShapeError(f"features must be [N, {self.weight.shape[1]}], as wide as weight, found {list(x.shape)}")
        halves = {"features": x, "products": x * self.weight[classes]}
        if self.alike:
            lengths = {name: np.linalg.norm(half, axis=1, keepdims=True) for name, half in halves.items()}
            halves = {name: half / np.where(lengths[name] > 0, lengths[name], 1.0) for name, half in halves.items()}
        return np.hstack(list(halves.values())) if self.parts == "both" else halves[self.parts]

    def _fit(self, x: np.ndarray, f: np.ndarray, y: np.ndarray) -> None:
        if f.shape[1] != len(self.weight):
            raise ShapeError(f"logits must be [N, {len(self.weight)}], a row of weight each, found {list(f.shape)}")
        right = f.argmax(1) == y
        used = right | (np.bincount(y[right], minlength=len(self.weight)) < _ENOUGH)[y]
        g = self._looks(x, y)
        self.means_ = np.zeros((len(self.weight), g.shape[1]))
        np.add.at(self.means_, y[used], g[used])
        self.means_ /= np.bincount(y[used], minlength=len(self.weight)).clip(min=1)[:, None]
        known = f[right] if right.any() else f
        self.lowest_, self.range_ = float(known.min()), float(np.ptp(known))
        if not self.range_ > 0:
            raise ConfigError("all logits are the same, so nothing says which is large; fit to more samples")

    def _score(self, x: np.ndarray, f: np.ndarray) -> np.ndarray:
        classes = f.argmax(1)
        g, mean = self._looks(x, classes), self.means_[classes]
        lengths = np.linalg.norm(g, axis=1) * np.linalg.norm(mean, axis=1)
        cosine = (g * mean).sum(1) / np.where(lengths > 0, lengths, 1.0)
        logit = ((f.max(1) - self.lowest_) / self.range_).clip(0.0, 1.0)
        likeness = (1 + cosine) / 2
        return np.asarray(likeness + logit if self.combine == "sum" else likeness * logit)
