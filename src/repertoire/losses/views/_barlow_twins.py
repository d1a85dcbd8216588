"""Barlow Twins: the cross-correlation of two views should be the identity."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision, mean_over_pairs
from repertoire.ops import cross_square
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["BarlowTwins", "barlow_twins_loss"]

_EPS = 1e-5


@checked
def barlow_twins_loss(*views: Tensor, off_diagonal_weight: Annotated[float, AtLeast(0)] = 5e-3) -> Tensor:
    r"""Barlow Twins: each feature agrees with itself in the other view, and with no other feature.

    Zbontar et al., *Barlow Twins: Self-Supervised Learning via Redundancy Reduction* (2021). With the features of each
    view scaled to mean zero and variance one over the batch, and C their correlation across the two views:

    .. math:: \sum_j (1 - C_{jj})^2 + \lambda \sum_{j \ne k} C_{jk}^2, \qquad C_{jk} = \frac1N \sum_i z_i^j z_i'^k

    With more than two views, which the paper does not consider, it is the mean over their pairs. With fewer rows than
    features no matrix of features is made.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        off_diagonal_weight: lambda, 0 or more; 0.005 in the paper.

    Returns:
        A scalar, 0 or more; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.
        ConfigError: the weight is negative.

    Example:
        >>> import torch
        >>> from repertoire.losses import barlow_twins_loss
        >>> x = torch.tensor([[100.0, 100.0], [-100.0, -100.0]])  # two features that say the same
        >>> barlow_twins_loss(x, x, off_diagonal_weight=0.5)
        tensor(1.)
    """
    check_views(views)
    with full_precision(*views) as z:
        if not len(z[0]):
            return torch.stack([view.sum() for view in z]).sum()

        def loss(x: Tensor, y: Tensor) -> Tensor:
            diagonal = (x * y).mean(0)
            others = cross_square(x, y) / len(x) ** 2 - diagonal.square().sum()
            return (1 - diagonal).square().sum() + off_diagonal_weight * others

        return mean_over_pairs([_standardised(view) for view in z], loss)


def _standardised(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred * (centred.square().mean(0) + _EPS).rsqrt()


@register("losses", "barlow-twins")
class BarlowTwins(ViewsLoss, function=barlow_twins_loss):
    """Module form of `barlow_twins_loss`."""
