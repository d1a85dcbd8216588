"""Asymmetric loss: focal loss for several labels a sample, in which easy negatives count less than easy positives."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._multilabel import MultiLabelLoss, check_multilabel
from repertoire.ranges import AtLeast, Between, checked
from repertoire.registry import register

__all__ = ["Asymmetric", "asymmetric_loss"]


@checked
def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_positive: Annotated[float, AtLeast(0)] = 0.0,
    gamma_negative: Annotated[float, AtLeast(0)] = 4.0,
    margin: Annotated[float, Between(0, 1, "[)")] = 0.05,
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
    cross-entropy. The released code has gamma+ = 1 by default, where the paper recommends 0, and
    takes the focusing weights for constants in the backward pass, where the paper derives the whole gradient, as here.

    Args:
        logits: float `[N, C]`.
        targets: `[N, C]` in [0, 1]: 1 where a label holds, 0 where it does not, -1 where nobody knows.
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
    logits, targets, known = check_multilabel(logits, targets)
    present = _focused(F.logsigmoid(logits), torch.sigmoid(-logits), gamma_positive)
    p = torch.sigmoid(logits)
    if margin:
        p = F.relu(p - margin)
        # 1 - p is the probability of the other answer plus the margin, which no far logit rounds to nothing.
        other = torch.logaddexp(F.logsigmoid(-logits), torch.full_like(logits, math.log(margin)))
        absent = _focused(other.clamp_max(0.0), p, gamma_negative)
    else:
        absent = _focused(F.logsigmoid(-logits), p, gamma_negative)
    each = targets * present + (1 - targets) * absent
    return reduce(-each.masked_fill(~known, 0.0).sum(1), reduction)


def _focused(log_p: Tensor, base: Tensor, gamma: float) -> Tensor:
    if not gamma:
        return log_p
    # The slope of base ** gamma is infinite at 0 when gamma < 1; the clamp cuts it to zero there.
    return log_p * base.clamp_min(torch.finfo(base.dtype).tiny) ** gamma


@register("losses", "asymmetric", paper="asl")
class Asymmetric(MultiLabelLoss, function=asymmetric_loss):
    """Module form of `asymmetric_loss`."""

    bounded = True
