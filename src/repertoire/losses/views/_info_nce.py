"""InfoNCE: each anchor should find its positive among those of all others."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision
from repertoire.ops import pair_logsumexp, unit_rows
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["InfoNCE", "info_nce_loss"]


@checked
def info_nce_loss(
    *views: Tensor,
    temperature: Annotated[float, Positive] = 0.1,
    normalize: bool = True,
    symmetric: bool = False,
    negatives: Tensor | None = None,
) -> Tensor:
    r"""InfoNCE: each anchor should find its positive among the positives of all anchors.

    van den Oord et al., *Representation Learning with Contrastive Predictive Coding* (2018). With the anchors x, the
    first view, and their positives y, another one:

    .. math:: \ell_i = -\log \frac{\exp(x_i \cdot y_i / \tau)}{\sum_j \exp(x_i \cdot y_j / \tau)}

    In the paper x are predictions of the future and y what came, neither scaled to unit length, at temperature 1; that
    is `normalize=False, temperature=1`. log N less the loss is a lower bound of the mutual information of x and y, so
    it takes a batch of exp(I) to see I nats. With more than two views the loss is the mean over the other views.

    Unlike NT-Xent the two sides are two towers: an anchor is compared with the other side only.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        temperature: tau, positive.
        normalize: scale the embeddings to unit length.
        symmetric: mean over the directions: each view is the anchor once.
        negatives: float `[M, d]` of the views' dtype, a memory of other samples; an anchor is then compared with its
            positive and with these, not with the positives of others, as He et al. do in *Momentum Contrast* (2020).

    Returns:
        A scalar; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, views of different shapes or dtypes, or negatives that do not fit.
        ConfigError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import info_nce_loss
        >>> info_nce_loss(torch.eye(2), torch.eye(2), temperature=1.0)  # log(e + 1) - 1
        tensor(0.3133)
    """
    check_views(views)
    if negatives is not None and (negatives.shape[1:] != views[0].shape[1:] or negatives.dtype != views[0].dtype):
        raise ShapeError(
            f"negatives must be {views[0].dtype} [M, {views[0].shape[1]}] like the views, found {negatives.dtype} "
            f"{list(negatives.shape)}"
        )
    count = len(views)
    with full_precision(*views, *([] if negatives is None else [negatives])) as rows:
        z = [unit_rows(x) for x in rows] if normalize else rows
        memory = None if negatives is None else z.pop()
        pairs = [(i, j) for i in range(count if symmetric else 1) for j in range(count) if j != i]
        losses = [_direction(z[i], z[j], memory, 1.0 / temperature, normalize) for i, j in pairs]
        return torch.stack(losses).sum() / (len(pairs) * max(len(z[0]), 1))


def _direction(x: Tensor, y: Tensor, memory: Tensor | None, scale: float, bounded: bool) -> Tensor:
    """Sum over the anchors."""
    positive = scale * (x * y).sum(1)
    others = pair_logsumexp(x, y if memory is None else memory, scale=scale, bound=scale if bounded else None)
    return ((others if memory is None else torch.logaddexp(positive, others)) - positive).sum()


@register("losses", "info-nce", paper="cpc")
class InfoNCE(ViewsLoss, function=info_nce_loss):
    """Module form of `info_nce_loss`."""
