"""NT-Xent: the normalised, temperature-scaled cross-entropy of SimCLR."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views
from repertoire.ops import pair_logsumexp, unit_rows
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["NTXent", "nt_xent_loss"]


@checked
def nt_xent_loss(*views: Tensor, temperature: Annotated[float, Positive] = 0.1) -> Tensor:
    r"""NT-Xent: each embedding should find the other view of its sample among all embeddings of the batch.

    Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations* (SimCLR, 2020). With z the 2N
    embeddings of both views scaled to unit length and p(i) the other view of i:

    .. math:: \ell_i = -\log \frac{\exp(z_i \cdot z_{p(i)} / \tau)}{\sum_{k \ne i} \exp(z_i \cdot z_k / \tau)}

    The loss is the mean over the 2N embeddings. With more than two views, which the paper does not consider, it is the
    mean over the positives, outside the logarithm, as in SupCon with each sample a class of its own.

    No pair is ever stored (:func:`repertoire.ops.pair_logsumexp`): memory is O(Nd).

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        temperature: tau, positive; the paper's best is 0.1 on ImageNet and 0.5 on CIFAR-10.

    Returns:
        A scalar; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.
        ConfigError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import nt_xent_loss
        >>> nt_xent_loss(torch.eye(2), torch.eye(2), temperature=1.0)  # log(e + 1 + 1) - 1
        tensor(0.5514)
    """
    check_views(views)
    scale = 1.0 / temperature
    count, samples = len(views), len(views[0])
    z = unit_rows(torch.cat(views))
    if not samples:
        return z.sum()
    # Over the ordered pairs of a sample's views, z_u . z_v sums to |sum|² less the squared lengths, which are constant.
    lengths = torch.linalg.vector_norm(z.detach(), dim=1)
    together = z.view(count, samples, -1).sum(0).square().sum() - lengths.square().sum()
    attraction = together / (count * (count - 1) * samples)
    return pair_logsumexp(z, scale=scale, bound=scale, exclude_self=True).mean() - scale * attraction


@register("losses", "nt-xent", paper="simclr")
class NTXent(ViewsLoss, function=nt_xent_loss):
    """Module form of `nt_xent_loss`."""
