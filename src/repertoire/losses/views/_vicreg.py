"""VICReg: variance, invariance and covariance of embeddings."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision, mean_over_pairs
from repertoire.ops import cross_square
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["VICReg", "covariance_penalty", "variance_penalty", "vicreg_loss"]


def variance_penalty(embeddings: Tensor, eps: float = 1e-4) -> Tensor:
    """Mean shortfall of the standard deviation of a feature below one, over the features.

    The term v(Z) of Bardes et al., *VICReg* (2022), see :func:`repertoire.losses.vicreg_loss`.

    Args:
        embeddings: float `[N, d]`.
        eps: added to the variance, positive.

    Returns:
        A scalar in [0, 1].

    Example:
        >>> import torch
        >>> from repertoire.losses import variance_penalty
        >>> variance_penalty(torch.tensor([[5.0, 0.0], [5.0, 0.0]]), eps=0.25)  # both deviations are the root of 0.25
        tensor(0.5000)
    """
    centred = embeddings - embeddings.sum(0) / max(len(embeddings), 1)
    variance = centred.square().sum(0) / max(len(embeddings) - 1, 1)
    return F.relu(1 - (variance + eps).sqrt()).mean()


def covariance_penalty(embeddings: Tensor) -> Tensor:
    """Sum of the squared covariances between different features, divided by the number of features.

    The term c(Z) of Bardes et al., *VICReg* (2022), see :func:`repertoire.losses.vicreg_loss`. With fewer rows than
    features no matrix of features is made.

    Args:
        embeddings: float `[N, d]`.

    Returns:
        A scalar, 0 or more.

    Example:
        >>> import torch
        >>> from repertoire.losses import covariance_penalty
        >>> covariance_penalty(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))  # both covariances are 2
        tensor(4.)
    """
    centred = embeddings - embeddings.sum(0) / max(len(embeddings), 1)
    everything = cross_square(centred, centred)
    own = centred.square().sum(0).square().sum()
    return (everything - own) / (max(len(embeddings) - 1, 1) ** 2 * embeddings.shape[1])


@checked
def vicreg_loss(
    *views: Tensor,
    invariance_weight: Annotated[float, AtLeast(0)] = 25.0,
    variance_weight: Annotated[float, AtLeast(0)] = 25.0,
    covariance_weight: Annotated[float, AtLeast(0)] = 1.0,
    eps: Annotated[float, Positive] = 1e-4,
) -> Tensor:
    r"""VICReg: views of a sample close together, every feature spread out, no two features alike.

    Bardes et al., *VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning* (2022). For two
    views Z and Z' of N samples with d features:

    .. math:: \lambda\,s(Z, Z') + \mu\,(v(Z) + v(Z')) + \nu\,(c(Z) + c(Z'))
    .. math::
        s = \frac{1}{Nd} \sum_i \lVert z_i - z'_i \rVert^2, \quad
        v = \frac1d \sum_j \max\left(0, 1 - \sqrt{\operatorname{Var}(z^j) + \epsilon}\right), \quad
        c = \frac1d \sum_{j \ne k} \operatorname{Cov}(z^j, z^k)^2

    The paper is not one about s: its equation has no 1/d, its algorithm, to which the weights belong, has it. The
    released code halves v. Either is a matter of the weights. With more than two views s is the mean over their
    pairs, and v and c are twice their mean over the views.

    Neither negatives, nor normalisation, nor a memory are needed. Embeddings are not scaled to unit length.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        invariance_weight: lambda, 0 or more.
        variance_weight: mu, 0 or more.
        covariance_weight: nu, 0 or more.
        eps: added to the variance, positive.

    Returns:
        A scalar; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.
        ConfigError: a weight out of range, or eps that is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import vicreg_loss
        >>> x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])  # spread out, but both features say the same
        >>> vicreg_loss(x, x)
        tensor(8.)
    """
    check_views(views)
    with full_precision(*views) as z:
        if not len(z[0]):
            return torch.stack([view.sum() for view in z]).sum()
        invariance = mean_over_pairs(z, F.mse_loss)
        variance = 2 * torch.stack([variance_penalty(view, eps) for view in z]).mean()
        covariance = 2 * torch.stack([covariance_penalty(view) for view in z]).mean()
        return invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance


@register("losses", "vicreg")
class VICReg(ViewsLoss, function=vicreg_loss):
    """Module form of `vicreg_loss`."""
