"""Monte-Carlo dropout: how much the answer depends on any part of the features."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from scipy.special import softmax, xlogy

from repertoire.errors import ConfigError, ShapeError
from repertoire.openset._base import NoveltyScore, Values, check_head
from repertoire.ranges import AtLeast, Between
from repertoire.registry import register

__all__ = ["MonteCarloDropout"]


@register("novelty-scores", "mc-dropout")
class MonteCarloDropout(NoveltyScore):
    r"""How sure the last layer is on average where features are left out at random, or how far its answers agree.

    Gal and Ghahramani, *Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning* (ICML
    2016), with dropout before the last layer alone. With masks :math:`m_t` of the features, each feature kept with
    probability 1 - p, and H the entropy:

    .. math:: p_t = \mathrm{softmax}\Bigl(W \frac{m_t \odot z}{1 - p} + b\Bigr), \qquad
        s(x) = -H(\bar p) \quad\text{or}\quad s(x) = -\Bigl(H(\bar p) - \tfrac1T \sum_t H(p_t)\Bigr)

    where :math:`\bar p` is the mean of the T answers. The second is the mutual information of answer and mask: doubt
    that comes from not knowing, without that of classes that look alike. The masks are the same for all samples, so
    that a sample always has the same score, whatever it comes with. A network that was trained with dropout of its
    features is what the paper is about; of others, this asks how many features an answer rests on.

    Args:
        weight: W of the last layer, float `[K, d]`.
        bias: b of the last layer, float `[K]`; without, it is zero.
        rate: p, the share of features that is left out, above 0 and below 1.
        passes: T, 1 or more.
        by: "entropy" (default) or "information".
        seed: of the masks.

    Raises:
        ShapeError: weight and bias do not fit together.
        ConfigError: when fitted: there is one class only.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import MonteCarloDropout
        >>> score = MonteCarloDropout(np.repeat(np.eye(2), 8, axis=1)).fit(np.zeros((1, 16)))
        >>> sure, torn = np.repeat([[3.0, 0.0], [3.0, 3.0]], 8, axis=1)
        >>> bool(np.diff(score(np.stack([torn, sure])))[0] > 0.1)
        True
    """

    reads = frozenset({"features"})
    learns = False

    def __init__(
        self,
        weight: Values,
        bias: Values | None = None,
        rate: Annotated[float, Between(0, 1, "()")] = 0.5,
        passes: Annotated[int, AtLeast(1)] = 20,
        by: Literal["entropy", "information"] = "entropy",
        seed: int = 0,
    ) -> None:
        self.weight, self.bias = check_head(weight, bias)
        self.rate, self.passes, self.by, self.seed = rate, passes, by, seed

    def _fit(self, x: np.ndarray, f: None, y: None) -> None:
        if len(self.weight) < 2:
            raise ConfigError("mc-dropout needs 2 classes; of one, every answer is the same")

    def _score(self, x: np.ndarray, f: None) -> np.ndarray:
        if x.shape[1] != self.weight.shape[1]:
            raise ShapeError(f"features must be [N, {self.weight.shape[1]}], as wide as weight, found {list(x.shape)}")
        generator = np.random.default_rng(self.seed)
        mean, doubt = np.zeros((len(x), len(self.weight))), np.zeros(len(x))
        for _ in range(self.passes):
            mask = generator.random(x.shape[1]) >= self.rate
            p = softmax(x @ (self.weight * mask / (1 - self.rate)).T + self.bias, axis=1)
            mean += p / self.passes
            doubt += _entropy(p) / self.passes
        whole = _entropy(mean)
        return -whole if self.by == "entropy" else doubt - whole


def _entropy(p: np.ndarray) -> np.ndarray:
    return -np.asarray(xlogy(p, p)).sum(1)
