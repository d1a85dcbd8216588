"""Z-loss: how far the right class stands above the mean of the logits, in standard deviations."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import at_least_float32, check_classes
from repertoire.ranges import Finite, Positive, checked
from repertoire.registry import register

__all__ = ["ZLoss", "z_loss"]


@checked
def z_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    a: Annotated[float, Positive] = 1.0,
    b: Annotated[float, Finite] = 3.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Height of the right class above the mean of the logits, in standard deviations.

    De Brébisson and Vincent, *The Z-loss: a shift and scale invariant classification loss belonging to the Spherical
    Family* (2016):

    .. math::
        \ell_i = \frac{1}{a} \log\left(1 + e^{a (b - z_i)}\right), \qquad
        z_i = \frac{f_{i y_i} - \mu_i}{\sigma_i}, \quad
        \mu_i = \frac{1}{C} \sum_k f_{ik}, \quad \sigma_i^2 = \frac{1}{C} \sum_k f_{ik}^2 - \mu_i^2

    Neither a shift nor a positive scale of the logits changes it, as neither changes their ranking; so it gives no
    probabilities. z never exceeds the square root of C - 1, which it reaches when all wrong classes share one logit.
    Logits that are all equal have z = 0 and the gradient zero: do not start from a classifier of zeros.

    Not to be confused with the penalty on the log of the softmax's normaliser that some language models call z-loss.

    Args:
        logits: float `[N, C]`, C = 1 or at least 3.
        targets: int64 `[N]` in 0..C-1.
        a: positive; how sharp the bend at z = b is.
        b: from which z on a sample counts as done. The paper tunes a and b, and with them which top-k error is lowest;
            the defaults are ours.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, two classes (z is then always -1 or 1, and nothing can be
            learned), or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import z_loss
        >>> z_loss(torch.tensor([[5.0, 1.0, 1.0]]), torch.tensor([0]), b=2 ** 0.5)  # z is as large as it can be: log 2
        tensor(0.6931)
    """
    check_logits(logits, targets, soft=False)
    check_classes(targets, logits.shape[1])
    if logits.shape[1] == 2:
        raise ShapeError("the Z-loss needs three classes or more: of two, the standardised logits are always -1 and 1")
    logits = at_least_float32(logits)
    # To divide by the largest deviation first changes nothing, but the squares of large and small logits then fit.
    centred = logits - logits.mean(1, keepdim=True)
    largest = centred.detach().abs().amax(1, keepdim=True)
    centred = centred / largest.where(largest > 0, 1.0)
    variance = centred.square().mean(1)
    # Not "greater than zero", which would hide a row that is not a number.
    deviation = variance.where(variance != 0, 1.0).sqrt()
    right = centred.gather(1, targets.long()[:, None]).squeeze(1)
    z = (right / deviation).where(variance != 0, 0.0)
    return reduce(F.softplus(a * (b - z)) / a, reduction)


@register("losses", "z-loss", paper="z-loss")
class ZLoss(LogitsLoss, function=z_loss):
    """Module form of `z_loss`."""
