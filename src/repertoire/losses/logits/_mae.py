"""Mean absolute error: regression in which an outlier weighs no more than its distance."""

from __future__ import annotations

from torch import Tensor

from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._numbers import RegressionLoss, check_number_pairs
from repertoire.ranges import checked
from repertoire.registry import register

__all__ = ["MAE", "mae_loss"]


@checked
def mae_loss(outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Mean absolute error: the prediction of least loss is the median of what may come.

    .. math:: \ell_i = \frac1k \sum_j |f_{ij} - t_{ij}|

    Args:
        outputs: float `[N, k]`, a prediction for each of k numbers.
        targets: numbers `[N, k]`; for k = 1 also `[N]`.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision outputs, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) targets that are not finite.

    Example:
        >>> import torch
        >>> from repertoire.losses import mae_loss
        >>> mae_loss(torch.tensor([[1.0, 5.0]]), torch.tensor([[2.0, 2.0]]))
        tensor(2.)
    """
    outputs, targets = check_number_pairs(outputs, targets)
    return reduce((outputs - targets).abs().sum(1) / max(outputs.shape[1], 1), reduction)


@register("losses", "mae")
class MAE(RegressionLoss, function=mae_loss):
    """Module form of `mae_loss`."""
