"""Focal loss: cross-entropy that counts well-classified samples less."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_finite, check_logits, reduce
from repertoire.losses.contracts._classes import as_weight, check_weight, target_log_probabilities
from repertoire.registry import register

__all__ = ["Focal", "focal_loss"]


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
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
class Focal(LogitsLoss):
    r"""Focal loss: cross-entropy that counts well-classified samples less.

    The module form of :func:`repertoire.losses.focal_loss`, which gives the paper and the formula.

    Args:
        gamma: how fast the weight of a sample falls with its probability, 0 or more; 0 is cross-entropy.
        weight: the class weights alpha, one non-negative number each; all 1 if None. Kept as a buffer.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Shapes:
        logits float `[N, C]`; targets int64 `[N]`.

    Raises:
        ValueError: gamma below 0, weights that are negative or not finite.

    Example:
        >>> import torch
        >>> from repertoire.losses import Focal
        >>> Focal(gamma=2.0)(torch.zeros(1, 2), torch.tensor([1]))
        tensor(0.1733)
    """

    weight: Tensor | None

    def __init__(
        self, gamma: float = 2.0, weight: list[float] | Tensor | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        if not gamma >= 0:
            raise ValueError(f"gamma must be 0 or more, found {gamma}")
        check_finite(gamma=gamma)
        self.gamma = gamma
        self.register_buffer("weight", as_weight(weight))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits `[N, C]` against class indices `[N]`."""
        return focal_loss(logits, targets, gamma=self.gamma, weight=self.weight, reduction=self.reduction)
