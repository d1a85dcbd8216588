"""A further, virtual logit: what of the features lies where the training samples do not vary."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from scipy.special import logsumexp

from repertoire.errors import ConfigError, ShapeError
from repertoire.openset._base import NoveltyScore, Values, check_head
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["VirtualLogit"]


@register("novelty-scores", "vim")
class VirtualLogit(NoveltyScore):
    r"""Virtual-logit matching: the energy, less the length of what of the features training samples do not use.

    Wang et al., *ViM: Out-Of-Distribution with Virtual-logit Matching* (CVPR 2022). With :math:`o = -W^+ b`, the point
    whose logits are smallest in the sense of least squares, and R the directions in which :math:`z - o` varies least
    over the training samples:

    .. math:: s(x) = \log \sum_c \exp(f_c(x)) - \alpha \lVert R^\top (z - o) \rVert_2

    where :math:`\alpha` makes the second term as large, on average over the training samples, as the largest logit. A
    constant added to all logits changes no probability, and yet this; where the largest logit is negative on average,
    as after training without a softmax, the paper's rule has no meaning, and the height of the largest logit above the
    mean of the sample's logits takes its place.

    Args:
        weight: W of the last layer, float `[K, d]`.
        bias: b of the last layer, float `[K]`; without, it is zero.
        dimensions: how many directions of most variance are left out of R, 1 to d - 1. By default 1,000 where there are
            more than 1,500 features and 512 otherwise, as in the paper, and at most half of those that samples span.

    Raises:
        ShapeError: weight and bias do not fit together.
        ConfigError: when fitted: too many dimensions, samples that vary in none of the others, or logits that are
            the same for all classes and not positive, so that nothing says how large a virtual one would be.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import VirtualLogit
        >>> weight, x = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[4.0, 0.5], [-4.0, 0.5]])
        >>> score = VirtualLogit(weight, dimensions=1).fit(x, x @ weight.T)
        >>> new = np.array([[4.0, 0.5], [0.5, 4.0]])
        >>> score(new, new @ weight.T).argmin().item()
        1
    """

    reads = frozenset({"features", "logits"})

    def __init__(
        self, weight: Values, bias: Values | None = None, dimensions: Annotated[int, AtLeast(1)] | None = None
    ) -> None:
        self.weight, self.bias = check_head(weight, bias)
        self.dimensions = dimensions

    def _fit(self, x: np.ndarray, f: np.ndarray, y: None) -> None:
        width = self.weight.shape[1]
        if x.shape[1] != width:
            raise ShapeError(f"features must be [N, {width}], as wide as weight, found {list(x.shape)}")
        # Found anew with every fit: the state holds all that scoring needs.
        self.origin_ = -np.linalg.pinv(self.weight) @ self.bias
        centred = x - self.origin_
        values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
        rank = int((values > values[-1] * width * np.finfo(float).eps).sum())
        preset = min(1000 if width > 1500 else 512, max(1, rank // 2))
        count = preset if self.dimensions is None else self.dimensions
        if count >= width:
            raise ConfigError(f"dimensions must be less than the {width} features, found {count}")
        self.residual_ = np.ascontiguousarray(vectors[:, : width - count])
        usual = np.linalg.norm(centred @ self.residual_, axis=1).mean()
        if not usual > 1e-9 * np.linalg.norm(centred, axis=1).mean():
            raise ConfigError(f"the samples vary in no more than {count} directions; give fewer dimensions")
        largest = f.max(1).mean()
        if not largest > 0:
            largest = (f.max(1) - f.mean(1)).mean()
        if not largest > 0:
            raise ConfigError("all classes have the same logits: nothing says how large a virtual one is")
        self.alpha_ = float(largest / usual)

    def _score(self, x: np.ndarray, f: np.ndarray) -> np.ndarray:
        residual = np.linalg.norm((x - self.origin_) @ self.residual_, axis=1)
        return np.asarray(logsumexp(f, axis=1) - self.alpha_ * residual)
