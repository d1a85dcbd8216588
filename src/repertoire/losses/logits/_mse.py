"""Mean squared error: regression in which large errors weigh most."""

from __future__ import annotations

from torch import Tensor

from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._numbers import RegressionLoss, check_number_pairs
from repertoire.ranges import checked
from repertoire.registry import register

__all__ = ["MSE", "mse_loss"]


@checked
def mse_loss(outputs: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Mean squared error: the prediction of least loss is the mean of what may come.

    .. math:: \ell_i = \frac1k \sum_j (f_{ij} - t_{ij})^2

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
        >>> from repertoire.losses import mse_loss
        >>> mse_loss(torch.tensor([[1.0, 5.0]]), torch.tensor([[2.0, 2.0]]))
        tensor(5.)
    """
    outputs, targets = check_number_pairs(outputs, targets)
    return reduce((outputs - targets).square().sum(1) / max(outputs.shape[1], 1), reduction)


@register("losses", "mse")
class MSE(RegressionLoss, function=mse_loss):
    """Module form of `mse_loss`."""
