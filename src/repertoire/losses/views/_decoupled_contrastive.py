"""Decoupled contrastive loss: NT-Xent without the positive in the denominator."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision, similarities_of_views
from repertoire.ops import pair_logsumexp, unit_rows
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["DecoupledContrastive", "decoupled_contrastive_loss"]


@checked
def decoupled_contrastive_loss(*views: Tensor, temperature: Annotated[float, Positive] = 0.1) -> Tensor:
    r"""Decoupled contrastive loss: NT-Xent without the positive in the denominator.

    Yeh et al., *Decoupled Contrastive Learning* (2022). In NT-Xent a pair of views that is easy weakens the gradient of
    all its negatives, the more so the fewer there are. Without the positive in the denominator it does not, and small
    batches do. With z scaled to unit length and v another view of the anchor's sample:

    .. math:: \ell_i = -z_i \cdot v / \tau + \log \sum_u \exp(z_i \cdot u / \tau)

    over the embeddings u of other samples. The loss is the mean over the embeddings of all views, and over the other
    views where there are several. It has no lower bound at zero.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        temperature: tau, positive; 0.1 in the paper.

    Returns:
        A scalar, which may be negative; float32 for half-precision embeddings; zero, with a zero gradient, for fewer
        than two samples, which have no negatives.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.
        ConfigError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import decoupled_contrastive_loss
        >>> decoupled_contrastive_loss(torch.eye(2), torch.eye(2), temperature=1.0)  # log(1 + 1) - 1
        tensor(-0.3069)
    """
    check_views(views)
    count, samples, scale = len(views), len(views[0]), 1.0 / temperature
    with full_precision(*views) as z:
        x = unit_rows(torch.cat(z))
        if samples < 2:
            return 0.0 * x.sum()
        own = torch.arange(samples, device=x.device).repeat(count)
        negatives = pair_logsumexp(x, scale=scale, bound=scale, pairs="different", groups=own)
        return negatives.mean() - scale * similarities_of_views(x, count).mean()


@register("losses", "decoupled-contrastive")
class DecoupledContrastive(ViewsLoss, function=decoupled_contrastive_loss):
    """Module form of `decoupled_contrastive_loss`."""
