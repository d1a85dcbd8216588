"""Scores of the logits alone: the largest probability, the largest logit and the energy."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from scipy.special import logsumexp

from repertoire.openset._base import NoveltyScore
from repertoire.ranges import Positive
from repertoire.registry import register

__all__ = ["Energy", "MaxLogit", "MaxSoftmax"]


@register("novelty-scores", "max-softmax")
class MaxSoftmax(NoveltyScore):
    r"""The largest probability: the usual confidence, which every other score is measured against.

    Hendrycks and Gimpel, *A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks*
    (ICLR 2017), given as its logarithm, so that what is nearly certain still differs:

    .. math:: s(x) = \log \max_c \mathrm{softmax}(f(x) / T)_c

    Args:
        temperature: T, above 0; 1 by default.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import MaxSoftmax
        >>> logits = np.array([[4.0, 0.0], [1.0, 1.0]])
        >>> np.exp(MaxSoftmax().fit(logits=logits)(logits=logits)).round(2).tolist()
        [0.98, 0.5]
    """

    reads = frozenset({"logits"})
    learns = False
    fewest = 2

    def __init__(self, temperature: Annotated[float, Positive] = 1.0) -> None:
        self.temperature = temperature

    def _score(self, x: None, f: np.ndarray) -> np.ndarray:
        scaled = f / self.temperature
        return np.asarray(scaled.max(1) - logsumexp(scaled, axis=1))


@register("novelty-scores", "max-logit")
class MaxLogit(NoveltyScore):
    r"""The largest logit: unlike a probability, it does not forget how much speaks for any class at all.

    Hendrycks et al., *Scaling Out-of-Distribution Detection for Real-World Settings* (ICML 2022):
    :math:`s(x) = \max_c f_c(x)`.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import MaxLogit
        >>> logits = np.array([[4.0, 0.0], [1.0, 1.0]])
        >>> MaxLogit().fit(logits=logits)(logits=logits)
        array([4., 1.])
    """

    reads = frozenset({"logits"})
    learns = False

    def _score(self, x: None, f: np.ndarray) -> np.ndarray:
        return np.asarray(f.max(1))


@register("novelty-scores", "energy")
class Energy(NoveltyScore):
    r"""The energy of the logits: how much speaks for all classes together.

    Liu et al., *Energy-based Out-of-distribution Detection* (NeurIPS 2020), with the sign turned, so that higher is
    known:

    .. math:: s(x) = T \log \sum_c \exp(f_c(x) / T)

    Args:
        temperature: T, above 0; 1 by default.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import Energy
        >>> logits = np.array([[4.0, 0.0], [1.0, 1.0]])
        >>> Energy().fit(logits=logits)(logits=logits).round(2).tolist()
        [4.02, 1.69]
    """

    reads = frozenset({"logits"})
    learns = False

    def __init__(self, temperature: Annotated[float, Positive] = 1.0) -> None:
        self.temperature = temperature

    def _score(self, x: None, f: np.ndarray) -> np.ndarray:
        return np.asarray(self.temperature * logsumexp(f / self.temperature, axis=1))
