"""Focal loss: cross-entropy that counts well-classified samples less."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import ClassWeights, check_weight, target_log_probabilities
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["Focal", "focal_loss"]


@checked
def focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: Annotated[float, AtLeast(0)] = 2.0,
    weight: ClassWeights = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Focal loss: cross-entropy that counts well-classified samples less.

    Lin et al., *Focal Loss for Dense Object Detection* (2017), in its softmax form:

    .. math:: \ell_i = -\alpha_{y_i} (1 - p_i)^\gamma \log p_i, \qquad p_i = \mathrm{softmax}(f_i)_{y_i}

    Args:
        logits: float `[N, C]`.
        targets: int64 `[N]` in 0..C-1.
        gamma: how fast the weight of a sample falls with its probability, 0 or more; 0 is cross-entropy.
        weight: the class weights alpha, float `[C]`, non-negative; all 1 if None. The mean divides by N.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import focal_loss
        >>> focal_loss(torch.zeros(1, 2), torch.tensor([1]), gamma=2.0)  # 0.5 ** 2 * log 2
        tensor(0.1733)
    """
    check_logits(logits, targets, soft=False)
    check_weight(weight, logits)
    log_p = target_log_probabilities(logits, targets)
    losses = -log_p
    if gamma:
        # The slope of (1 - p) ** gamma is infinite at p = 1 when gamma < 1; the clamp cuts it to zero there.
        losses = losses * (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny) ** gamma
    if weight is not None:
        losses = losses * weight.to(losses)[targets.long()]
    return reduce(losses, reduction)


@register("losses", "focal")
class Focal(LogitsLoss, function=focal_loss):
    """Module form of `focal_loss`."""

    weight: Tensor | None
