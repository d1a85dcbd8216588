"""GroCo: all positives of an anchor should sort before all its negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_view_count, check_views, full_precision
from repertoire.ops import pair_topk, soft_last, unit_rows
from repertoire.registry import register

__all__ = ["GroCo", "groco_loss"]

_SMALLEST = 1e-30
"""Probability whose logarithm still is a number in float32."""


def groco_loss(*views: Tensor, negatives: int = 10, steepness: float = 1.0, stop_gradient: bool = True) -> Tensor:
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
    _check(negatives, steepness)
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


def _check(negatives: int, steepness: float) -> None:
    if negatives < 1:
        raise ValueError(f"negatives must be positive, found {negatives}")
    if not steepness > 0:
        raise ValueError(f"steepness must be positive, found {steepness}")


@register("losses", "groco", paper="groco")
class GroCo(ViewsLoss):
    r"""GroCo: all positives of an anchor should sort before all its negatives.

    The module form of :func:`repertoire.losses.groco_loss`, which gives the paper and the formula.

    Args:
        negatives: how many of the nearest negatives take part, positive; 10 in the paper.
        steepness: how hard the sorting network swaps, positive; 1 in the released code.
        stop_gradient: whether only the anchor gets a gradient of a similarity.
        views: views of each sample that training makes, at least 2; the paper has 2 to 4.

    Shapes:
        two or more views, each float `[N, d]`.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import GroCo
        >>> GroCo()(torch.eye(2), torch.eye(2))
        tensor(0.2877)
    """

    def __init__(self, negatives: int = 10, steepness: float = 1.0, stop_gradient: bool = True, views: int = 2) -> None:
        super().__init__()
        _check(negatives, steepness)
        check_view_count(views)
        self.negatives = negatives
        self.steepness = steepness
        self.stop_gradient = stop_gradient
        self.views = views

    def forward(self, *views: Tensor) -> Tensor:
        """The loss of two or more views `[N, d]`."""
        return groco_loss(*views, negatives=self.negatives, steepness=self.steepness, stop_gradient=self.stop_gradient)
