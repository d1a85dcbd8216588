"""Huber loss: squared error near the target, absolute error beyond."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._numbers import RegressionLoss, check_number_pairs
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["Huber", "huber_loss"]


@checked
def huber_loss(
    outputs: Tensor, targets: Tensor, *, delta: Annotated[float, Positive] = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""Huber loss: half the squared error up to a distance, and from there on a line.

    Huber, *Robust Estimation of a Location Parameter* (1964):

    .. math::
        \ell_i = \frac1k \sum_j \begin{cases}
            \frac12 e_{ij}^2 & |e_{ij}| \le \delta \\
            \delta\,(|e_{ij}| - \frac12 \delta) & \text{else}
        \end{cases}, \qquad e = f - t

    Args:
        outputs: float `[N, k]`, a prediction for each of k numbers.
        targets: numbers `[N, k]`; for k = 1 also `[N]`.
        delta: the distance, in the units of the targets, positive.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision outputs, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) targets that are not finite.
        ConfigError: delta is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import huber_loss
        >>> huber_loss(torch.tensor([[1.0, 5.0]]), torch.tensor([[2.0, 2.0]]))
        tensor(1.5000)
    """
    outputs, targets = check_number_pairs(outputs, targets)
    losses = F.huber_loss(outputs, targets.to(outputs.dtype), reduction="none", delta=delta)
    return reduce(losses.sum(1) / max(outputs.shape[1], 1), reduction)


@register("losses", "huber")
class Huber(RegressionLoss, function=huber_loss):
    """Module form of `huber_loss`."""
