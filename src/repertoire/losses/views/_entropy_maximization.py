"""Effective entropy maximisation: features that fill their range evenly, and say different things."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._added import AddedTerm
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import full_precision
from repertoire.losses.views._vicreg import covariance_penalty
from repertoire.ops import unit_rows
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["EntropyMaximization", "Space", "entropy_maximization_loss"]

Space = Literal["cube", "sphere"]

_SMALLEST = 1e-7
"""Added to a gap before the logarithm is taken of it; embeddings that coincide have none."""


@checked
def entropy_maximization_loss(
    embeddings: Tensor, *, covariance_weight: Annotated[float, AtLeast(0)] = 1.0, space: Space = "cube"
) -> Tensor:
    r"""Negative entropy of each feature, and the covariances of pairs of features.

    Chakraborty et al., *Improving Pre-Trained Self-Supervised Embeddings Through Effective Entropy Maximization*
    (2024). The entropy of all features together cannot be estimated from a batch; those of single features and the
    covariances of pairs can, and they are maximal together when features are uniform and uncorrelated. With u the
    features squashed into the unit interval, in ascending order over the batch, and :math:`m = \sqrt N` rounded, the
    entropy of a feature is estimated from gaps:

    .. math:: \hat H_j = \frac{1}{N - m} \sum_{i=1}^{N-m} \log\left(\frac{N + 1}{m}
        \left(u^j_{(i + m)} - u^j_{(i)}\right)\right)
    .. math:: -\frac1d \sum_j \hat H_j + \frac{\lambda}{d} \sum_{j \ne k} \operatorname{Cov}(u^j, u^k)^2

    Args:
        embeddings: float `[N, d]`.
        covariance_weight: lambda, 0 or more.
        space: how features are squashed: "cube", by the sigmoid; or "sphere", for losses on the unit sphere, by the
            distribution function of the Gaussian that a feature of an even spread over the sphere of radius root d
            follows.

    Returns:
        A scalar, which may be negative; float32 for half-precision embeddings; zero, with a zero gradient, for fewer
        than two rows.

    Raises:
        ShapeError: embeddings that are no floating point matrix.
        ConfigError: an unknown space.
        ConfigError: the weight is negative.

    Example:
        >>> import torch
        >>> from repertoire.losses import entropy_maximization_loss
        >>> even = torch.linspace(0.01, 0.99, 99)[:, None].logit()  # uniform after the sigmoid: the entropy is 0
        >>> entropy_maximization_loss(even).round(decimals=4)
        tensor(-0.)
        >>> entropy_maximization_loss(even / 10)  # crowded in the middle
        tensor(1.8999)
    """
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise ShapeError(
            f"embeddings must be a floating point [N, d], found {embeddings.dtype} {list(embeddings.shape)}"
        )
    with full_precision(embeddings) as (x,):
        rows, width = x.shape
        if rows < 2:
            return 0.0 * x.sum()
        squashed = torch.sigmoid(x) if space == "cube" else torch.special.ndtr(unit_rows(x) * math.sqrt(width))
        apart = round(math.sqrt(rows))
        ordered = squashed.sort(0).values
        gaps = (ordered[apart:] - ordered[:-apart]) * ((rows + 1) / apart)
        return covariance_weight * covariance_penalty(squashed) - (gaps + _SMALLEST).log().mean()


@register("losses", "entropy-maximization", paper="e2mc")
class EntropyMaximization(AddedTerm, ViewsLoss, function=entropy_maximization_loss, base="vicreg"):
    """Module form of `entropy_maximization_loss`."""
