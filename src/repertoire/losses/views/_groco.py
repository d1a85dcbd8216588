"""GroCo: all positives of an anchor should sort before all its negatives."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision
from repertoire.ops import pair_topk, soft_last, unit_rows
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["GroCo", "groco_loss"]

_SMALLEST = 1e-30
"""Probability whose logarithm still is a number in float32."""


@checked
def groco_loss(
    *views: Tensor,
    negatives: Annotated[int, AtLeast(1)] = 10,
    steepness: Annotated[float, Positive] = 1.0,
    stop_gradient: bool = True,
) -> Tensor:
    r"""GroCo: all positives of an anchor should sort before all its negatives.

    Shvetsova et al., *Learning by Sorting: Self-supervised Learning with Group Ordering Constraints* (2023). An
    anchor is compared with its positives, the other views of its sample, and with its nearest negatives, other samples
    in its own view. The cosines go through a differentiable sorting network (:func:`repertoire.ops.soft_last`), in the
    order in which they should come out. With :math:`p_j` the probability that number j ends up among the P nearest, of
    which there are as many as positives:

    .. math:: \ell_i = -\frac{1}{|P| + |N|} \Big(\sum_{j \in P} \log p_j + \sum_{j \in N} \log(1 - p_j)\Big)

    The loss is the mean over the anchors of all views. The order within a group does not matter, and a pair that is in
    its place hardly counts. The nearest negatives are found without a matrix of pairs.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample. The paper has 2 to 4.
        negatives: how many of the nearest negatives take part, positive; 10 in the paper.
        steepness: how hard the network swaps, positive; 1 in the released code.
        stop_gradient: whether only the anchor gets a gradient of a similarity, and not the other side, as in the
            released code.

    Returns:
        A scalar, 0 or more; float32 for half-precision embeddings; zero, with a zero gradient, for fewer than two
        samples.

    Raises:
        ShapeError: fewer than two views, or views of different shapes or dtypes.
        ConfigError, ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import groco_loss
        >>> x = torch.eye(2)  # cosine 1 with the positive, 0 with the negative: p is 1/2 + atan(1) / pi
        >>> groco_loss(x, x)  # -log(3/4)
        tensor(0.2877)
    """
    check_views(views)
    samples, positives = len(views[0]), len(views) - 1
    with full_precision(*views) as z:
        z = [unit_rows(view) for view in z]
        if samples < 2:
            return 0.0 * torch.stack([view.sum() for view in z]).sum()
        number = min(negatives, samples - 1)
        target = torch.arange(number + positives, device=z[0].device) >= number
        others = [view.detach() for view in z] if stop_gradient else z
        losses = []
        for own, anchor in enumerate(z):
            near = torch.stack([(anchor * view).sum(1) for view in others[:own] + others[own + 1 :]], 1)
            exclude = torch.arange(samples, device=anchor.device)
            far = pair_topk(anchor, others[own], number, exclude=exclude).values
            # Pre-sorted in each group, the network has nothing to do but to exchange what is in the wrong group.
            cosines = torch.cat([far.flip(1), near.sort(1).values], 1)
            probability = soft_last(cosines, positives, steepness)
            # Clamped, because the rounding of many swaps can reach zero, and pass it.
            losses.append(-torch.where(target, probability, 1 - probability).clamp_min(_SMALLEST).log().mean())
        return torch.stack(losses).mean()


@register("losses", "groco", paper="groco")
class GroCo(ViewsLoss, function=groco_loss):
    """Module form of `groco_loss`."""
