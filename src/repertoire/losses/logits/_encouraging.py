"""The encouraging loss: cross-entropy with a bonus for examples that are already right."""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor

from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import at_least_float32, check_classes
from repertoire.ranges import Between, checked
from repertoire.registry import register

__all__ = ["Encouraging", "encouraging_loss"]


@checked
def encouraging_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    log_end: Annotated[float, Between(0, 1, "[)")] = 0.75,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy with a bonus for examples that are already right, which it would hardly learn from.

    Zhao et al., *Well-classified Examples are Underestimated in Classification with Deep Neural Networks* (2022), with
    the conservative bonus:

    .. math:: \ell_i = -\sum_c t_{ic} \left( \log p_{ic} - \log(1 - p_{ic}) \right), \qquad p_i = \mathrm{softmax}(f_i)

    where t is the one-hot vector of the class or the soft target itself. From p = `log_end` on, the second logarithm
    goes on along its tangent: by itself it has no lower bound.

    Args:
        logits: float `[N, C]`, raw.
        targets: int64 `[N]` in 0..C-1, or float `[N, C]`, each row a distribution.
        log_end: where the logarithm of the bonus ends, from 0 (the bonus is -p) to below 1. The authors recommend 0.75,
            and 0.5 where accuracy is low.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss, which may be negative; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import encouraging_loss
        >>> encouraging_loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.)
    """
    check_logits(logits, targets)
    log_p = at_least_float32(logits).log_softmax(1)
    p = log_p.exp()
    tangent = math.log1p(-log_end) - (p - log_end) / (1 - log_end)
    # Clamped, so that the branch that is not taken has a finite gradient.
    bonus = (-p.clamp(max=log_end)).log1p().where(p <= log_end, tangent)
    losses = bonus - log_p
    if targets.is_floating_point():
        return reduce((targets.to(losses.dtype) * losses).sum(1), reduction)
    check_classes(targets, logits.shape[1])
    return reduce(losses.gather(1, targets.long()[:, None]).squeeze(1), reduction)


@register("losses", "encouraging", paper="encouraging-loss")
class Encouraging(LogitsLoss, function=encouraging_loss):
    """Module form of `encouraging_loss`."""

    soft = True
