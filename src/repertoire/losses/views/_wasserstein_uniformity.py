"""Wasserstein distance of embeddings to the uniform distribution on the sphere, as a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.losses.contracts._added import AddedTerm
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import full_precision
from repertoire.ops import unit_rows
from repertoire.registry import register

__all__ = ["WassersteinUniformity", "wasserstein_uniformity_loss"]


def wasserstein_uniformity_loss(embeddings: Tensor) -> Tensor:
    r"""2-Wasserstein distance between embeddings on the unit sphere and an even spread over it.

    Fang et al., *Rethinking The Uniformity Metric in Self-Supervised Learning* (2024). In many dimensions the uniform
    distribution on the sphere is close to the Gaussian :math:`\mathcal{N}(0, I/d)`. With the mean :math:`\mu` and the
    covariance :math:`\Sigma` (of 1/N) of the embeddings scaled to unit length:

    .. math:: \mathcal{W}_2 = \sqrt{\lVert \mu \rVert^2 + 1 + \operatorname{tr}\Sigma
        - \frac{2}{\sqrt d} \operatorname{tr} \Sigma^{1/2}}

    Dimensions that are not used count in full, where :func:`repertoire.losses.uniformity_loss` hardly sees them.

    The trace of the root is the sum of the singular values of the centred rows, which are found from the smaller of
    the two Gram matrices, of features or of rows.

    Args:
        embeddings: float `[N, d]`. A zero vector stays at the centre of the sphere.

    Returns:
        A scalar in [0, 1.42]: 0 for an even spread, the root of 2 if all embeddings are the same; float32 for
        half-precision embeddings; zero, with a zero gradient, for an empty batch.

    Raises:
        ShapeError: embeddings that are no floating point matrix.

    Example:
        >>> import torch
        >>> from repertoire.losses import wasserstein_uniformity_loss
        >>> even = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> wasserstein_uniformity_loss(even).round(decimals=2)
        tensor(0.)
        >>> wasserstein_uniformity_loss(torch.ones(4, 2))
        tensor(1.4142)
    """
    with full_precision(embeddings) as (x,):
        z = unit_rows(x)
        rows, width = z.shape
        if not rows:
            return z.sum()
        mean = z.mean(0)
        centred = z - mean
        total = centred.square().sum() / rows
        square = mean.square().sum() + 1 + total - 2 * width**-0.5 * _trace_of_root(centred)
        # At zero, and below by rounding, the root has no gradient.
        return square.clamp_min(torch.finfo(z.dtype).tiny).sqrt().where(square > 0, 0.0)


def _trace_of_root(centred: Tensor) -> Tensor:
    """Trace of the square root of the covariance, of 1/N."""
    rows, width = centred.shape
    gram = (centred.T @ centred if width <= rows else centred @ centred.T) / rows
    # eigvalsh raises at what is not finite; here it comes out as not a number.
    values = torch.linalg.eigvalsh(gram.nan_to_num(0.0, 0.0, 0.0))
    # Of a zero eigenvalue rounding leaves this much; its root would have an enormous gradient.
    floor = torch.finfo(gram.dtype).eps * len(gram) * values.detach()[-1]
    kept = values > floor
    return values.where(kept, 1.0).sqrt().where(kept, 0.0).sum() + 0.0 * gram.sum()


@register("losses", "wasserstein-uniformity", paper="wasserstein-uniformity")
class WassersteinUniformity(
    AddedTerm, ViewsLoss, function=wasserstein_uniformity_loss, base="align-uniform:uniform_weight=0"
):
    """Module form of `wasserstein_uniformity_loss`."""
