"""Binary cross-entropy: each of several labels is a question of its own."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._multilabel import MultiLabelLoss, check_multilabel
from repertoire.ranges import checked
from repertoire.registry import register

__all__ = ["BCE", "bce_loss"]


@checked
def bce_loss(logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Binary cross-entropy for several labels a sample, averaged over the labels that are known.

    .. math:: \ell_i = -\frac{1}{|K_i|} \sum_{c \in K_i} t_{ic} \log p_{ic} + (1 - t_{ic}) \log(1 - p_{ic}), \qquad
        p = \sigma(f)

    Args:
        logits: float `[N, C]`, raw.
        targets: `[N, C]` in [0, 1]; -1 where nobody knows.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`.

    Returns:
        The loss, zero for a sample of which nothing is known; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) targets outside their range.

    Example:
        >>> import torch
        >>> from repertoire.losses import bce_loss
        >>> bce_loss(torch.zeros(1, 3), torch.tensor([[1, 0, -1]]))  # log 2: nothing known
        tensor(0.6931)
    """
    logits, targets, known = check_multilabel(logits, targets)
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").masked_fill(~known, 0.0)
    return reduce(each.sum(1) / known.sum(1).clamp_min(1), reduction)


@register("losses", "bce")
class BCE(MultiLabelLoss, function=bce_loss):
    """Module form of `bce_loss`."""
