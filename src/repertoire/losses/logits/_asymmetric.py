"""Asymmetric loss: focal loss for several labels a sample, in which easy negatives count less than easy positives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._multilabel import MultiLabelLoss, check_multilabel
from repertoire.registry import register

__all__ = ["Asymmetric", "asymmetric_loss"]


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Focal loss for several labels a sample, in which easy negatives count less than easy positives.

    Ridnik et al., *Asymmetric Loss For Multi-Label Classification* (2021):

    .. math::
        \ell_i = -\sum_c y_{ic} (1 - p_{ic})^{\gamma_+} \log p_{ic}
                 + (1 - y_{ic}) (\tilde p_{ic})^{\gamma_-} \log(1 - \tilde p_{ic}), \qquad
        p = \sigma(f), \quad \tilde p = \max(p - m, 0)

    Absent labels outnumber present ones by far, so they are focused more; and those below the margin m, the easiest
    ones and the likeliest to be mistakes of annotation, are left out. Both gammas and the margin at 0 give binary
    cross-entropy. The released code has gamma+ = 1 by default, where the paper recommends 0.

    Args:
        logits: float `[N, C]`.
        targets: `[N, C]` in [0, 1]: 1 where a label holds, 0 where it does not.
        gamma_positive: gamma+, how fast the weight of a present label falls with its probability, 0 or more.
        gamma_negative: gamma-, how fast that of an absent label falls, 0 or more; usually the larger.
        margin: m in [0, 1): absent labels of a lower probability add nothing.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`, summed over labels.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) targets outside [0, 1].

    Example:
        >>> import torch
        >>> from repertoire.losses import asymmetric_loss
        >>> asymmetric_loss(torch.tensor([[0.0, 0.0, -5.0]]), torch.tensor([[1, 0, 0]]))  # log 2 + 0.45 ** 4 * 0.598
        tensor(0.7177)
    """
    logits, targets = check_multilabel(logits, targets)
    present = _focused(F.logsigmoid(logits), torch.sigmoid(-logits), gamma_positive)
    p = torch.sigmoid(logits)
    if margin:
        p = F.relu(p - margin)
        absent = _focused(torch.log1p(-p), p, gamma_negative)
    else:
        absent = _focused(F.logsigmoid(-logits), p, gamma_negative)
    return reduce(-(targets * present + (1 - targets) * absent).sum(1), reduction)


def _focused(log_p: Tensor, base: Tensor, gamma: float) -> Tensor:
    if not gamma:
        return log_p
    # The slope of base ** gamma is infinite at 0 when gamma < 1; the clamp cuts it to zero there.
    return log_p * base.clamp_min(torch.finfo(base.dtype).tiny) ** gamma


@register("losses", "asymmetric", paper="asl")
class Asymmetric(MultiLabelLoss):
    r"""Focal loss for several labels a sample, in which easy negatives count less than easy positives.

    The module form of :func:`repertoire.losses.asymmetric_loss`, which gives the paper and the formula.

    Args:
        gamma_positive: how fast the weight of a present label falls with its probability, 0 or more.
        gamma_negative: how fast that of an absent label falls, 0 or more; usually the larger.
        margin: in [0, 1): absent labels of a lower probability add nothing.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`.

    Shapes:
        logits float `[N, C]`; targets multi-hot `[N, C]`.

    Raises:
        ValueError: a gamma below 0, a margin outside [0, 1).

    Example:
        >>> import torch
        >>> from repertoire.losses import Asymmetric
        >>> Asymmetric()(torch.tensor([[0.0, 0.0, -5.0]]), torch.tensor([[1, 0, 0]]))
        tensor(0.7177)
    """

    def __init__(
        self,
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        margin: float = 0.05,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        for name, gamma in (("gamma_positive", gamma_positive), ("gamma_negative", gamma_negative)):
            if not gamma >= 0:
                raise ValueError(f"{name} must be 0 or more, found {gamma}")
        if not 0 <= margin < 1:
            raise ValueError(f"margin must lie in [0, 1), found {margin}")
        self.gamma_positive = gamma_positive
        self.gamma_negative = gamma_negative
        self.margin = margin

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits `[N, C]` against multi-hot targets `[N, C]`."""
        return asymmetric_loss(
            logits,
            targets,
            gamma_positive=self.gamma_positive,
            gamma_negative=self.gamma_negative,
            margin=self.margin,
            reduction=self.reduction,
        )
