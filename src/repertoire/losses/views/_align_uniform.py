"""Alignment and uniformity on the unit sphere, as losses."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views
from repertoire.ops import pair_logsumexp, unit_rows
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["AlignUniform", "align_uniform_loss", "alignment_loss", "uniformity_loss"]


@checked
def alignment_loss(*views: Tensor, alpha: Annotated[float, AtLeast(1)] = 2.0) -> Tensor:
    r"""Mean distance between the views of a sample, on the unit sphere.

    Wang and Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere* (2020), with z scaled to unit length here:

    .. math:: \mathcal{L}_{align} = \frac{1}{N} \sum_i \lVert z_i - z_i^+ \rVert_2^\alpha

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample. The mean is over all
            pairs of views.
        alpha: power of the distance, at least 1; 2 in the paper.

    Returns:
        A scalar in [0, 2 ** alpha]; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.
        ConfigError: alpha below 1.

    Example:
        >>> import torch
        >>> from repertoire.losses import alignment_loss
        >>> alignment_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]]))
        tensor(2.)
    """
    check_views(views)
    return _alignment([unit_rows(view) for view in views], alpha)


@checked
def uniformity_loss(embeddings: Tensor, *, t: Annotated[float, Positive] = 2.0) -> Tensor:
    r"""Logarithm of the mean Gaussian potential between embeddings, on the unit sphere.

    Wang and Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere* (2020), with z scaled to unit length here:

    .. math:: \mathcal{L}_{uniform} = \log \frac{1}{N (N - 1)} \sum_{i \ne j} \exp(-t \lVert z_i - z_j \rVert_2^2)

    On unit vectors the exponent is :math:`2t\,z_i \cdot z_j - 2t`, so that the pairs are streamed
    (:func:`repertoire.ops.pair_logsumexp`) and memory is O(Nd).

    Args:
        embeddings: float `[N, d]`. A zero vector counts as orthogonal to everything.
        t: sharpness of the potential, positive; 2 in the paper.

    Returns:
        A scalar in [-4t, 0]; float32 for half-precision embeddings; zero, with a zero gradient, for fewer than two
        rows.

    Raises:
        ShapeError: embeddings that are no floating point matrix.
        ConfigError: t is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import uniformity_loss
        >>> uniformity_loss(torch.eye(3))  # every squared distance is 2
        tensor(-4.)
    """
    return _uniformity(unit_rows(embeddings), t)


@checked
def align_uniform_loss(
    *views: Tensor,
    align_weight: Annotated[float, AtLeast(0)] = 1.0,
    uniform_weight: Annotated[float, AtLeast(0)] = 1.0,
    alpha: Annotated[float, AtLeast(1)] = 2.0,
    t: Annotated[float, Positive] = 2.0,
) -> Tensor:
    r"""Alignment of the views of a sample plus uniformity of each view, on the unit sphere.

    Wang and Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere* (2020):

    .. math:: \lambda_a \mathcal{L}_{align}(z^1, z^2) + \lambda_u \tfrac12
        \left(\mathcal{L}_{uniform}(z^1) + \mathcal{L}_{uniform}(z^2)\right)

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        align_weight: weight of :func:`repertoire.losses.alignment_loss`, 0 or more.
        uniform_weight: weight of :func:`repertoire.losses.uniformity_loss`, averaged over the views; 0 or more.
        alpha: power of the distance, at least 1; 2 in the paper.
        t: sharpness of the potential, positive; 2 in the paper.

    Returns:
        A scalar, which may be negative; float32 for half-precision embeddings.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.
        ConfigError: alpha, t or a weight out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import align_uniform_loss
        >>> align_uniform_loss(torch.eye(3), torch.eye(3))
        tensor(-4.)
    """
    check_views(views)
    units = [unit_rows(view) for view in views]
    uniformity = torch.stack([_uniformity(z, t) for z in units]).mean()
    return align_weight * _alignment(units, alpha) + uniform_weight * uniformity


def _alignment(units: list[Tensor], alpha: float) -> Tensor:
    distances = [_distance(x, y, alpha) for x, y in combinations(units, 2)]
    # max: the mean of an empty batch is zero, not 0 / 0.
    return torch.stack(distances).sum() / (len(distances) * max(len(units[0]), 1))


def _distance(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    difference = x - y
    if alpha == 2:
        return difference.square().sum()
    # vector_norm has the gradient zero where the distance is zero; the square root of a sum of squares has none.
    return (torch.linalg.vector_norm(difference, dim=1) ** alpha).sum()


def _uniformity(z: Tensor, t: float) -> Tensor:
    rows = len(z)
    if rows < 2:
        return 0.0 * z.sum()
    potential = pair_logsumexp(z, scale=2 * t, bound=2 * t, exclude_self=True)
    return potential.logsumexp(0) - 2 * t - math.log(rows * (rows - 1))


@register("losses", "align-uniform", paper="align-uniform")
class AlignUniform(ViewsLoss, function=align_uniform_loss):
    """Module form of `align_uniform_loss`."""
