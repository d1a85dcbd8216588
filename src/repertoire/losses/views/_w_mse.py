"""W-MSE: views close together after whitening, which keeps the batch spread out."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision, mean_over_pairs
from repertoire.ops import Whitening, unit_rows, whiten
from repertoire.ranges import AtLeast, Between, checked
from repertoire.registry import register

__all__ = ["WMSE", "w_mse_loss"]


@checked
def w_mse_loss(
    *views: Tensor,
    size: Annotated[int, AtLeast(1)] = 128,
    iterations: Annotated[int, AtLeast(1)] = 1,
    whitening: Whitening = "cholesky",
    eps: Annotated[float, Between(0, 1, "[)")] = 1e-4,
    normalize: bool = True,
) -> Tensor:
    r"""W-MSE: squared distance between whitened views.

    Ermolov et al., *Whitening for Self-Supervised Representation Learning* (2020). Each view is whitened over the
    batch (:func:`repertoire.ops.whiten`), which spreads it out whatever the network does, and the views of a sample
    are pulled together:

    .. math:: \frac1N \sum_i \left\lVert \frac{w(z_i)}{\lVert w(z_i) \rVert} -
        \frac{w(z'_i)}{\lVert w(z'_i) \rVert} \right\rVert^2

    The mean is over all pairs of views: several views of a sample cost no more than their forward passes. A large batch
    is cut at random into parts that are whitened by themselves, the same parts in every view, and `iterations` such
    cuts are averaged.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        size: rows of a part, at least; 2d in the paper, which has d = 64. There are N // size parts, or one.
        iterations: random cuts to average over, positive.
        whitening: "cholesky" as in the paper, or "zca".
        eps: how far the covariance is shrunk towards a multiple of the identity, in [0, 1): what allows fewer rows than
            features. The released code shrinks towards the identity itself, by default not at all.
        normalize: scale the whitened rows to unit length, as the paper does by default.

    Returns:
        A scalar; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.
        ConfigError, ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import w_mse_loss
        >>> x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
        >>> w_mse_loss(x, 5 * x + 1).round(decimals=4)  # whitening undoes shift and scale
        tensor(0.)
    """
    check_views(views)
    rows = len(views[0])
    with full_precision(*views) as z:
        if not rows:
            return torch.stack([view.sum() for view in z]).sum()

        def distance(x: Tensor, y: Tensor) -> Tensor:
            if normalize:
                x, y = unit_rows(x), unit_rows(y)
            return (x - y).square().sum() / rows

        parts = max(1, rows // size)
        if parts == 1:
            return mean_over_pairs([whiten(view, whitening, eps) for view in z], distance)
        losses = []
        for _ in range(iterations):
            order = torch.randperm(rows, device=z[0].device)
            losses.append(mean_over_pairs([_in_parts(view[order], parts, whitening, eps) for view in z], distance))
        return torch.stack(losses).mean()


def _in_parts(x: Tensor, parts: int, whitening: Whitening, eps: float) -> Tensor:
    """Rows whitened in parts whose sizes differ by at most one: two batches of parts of equal size."""
    small, larger = divmod(len(x), parts)
    split = larger * (small + 1)
    width = x.shape[1]
    pieces = [x[:split].view(larger, small + 1, width), x[split:].view(parts - larger, small, width)]
    return torch.cat([whiten(piece, whitening, eps).flatten(0, 1) for piece in pieces if len(piece)])


@register("losses", "w-mse", paper="w-mse")
class WMSE(ViewsLoss, function=w_mse_loss):
    """Module form of `w_mse_loss`."""

    random = True
