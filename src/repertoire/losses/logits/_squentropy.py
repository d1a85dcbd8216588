"""Squentropy: cross-entropy plus the mean square of the wrong classes' logits."""

from __future__ import annotations

from torch import Tensor

from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import at_least_float32, target_log_probabilities
from repertoire.ranges import checked
from repertoire.registry import register

__all__ = ["Squentropy", "squentropy"]


@checked
def squentropy(logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Cross-entropy plus the mean square of the wrong classes' logits.

    Hui, Belkin and Wright, *Cut your Losses with Squentropy* (2023):

    .. math::
        \ell_i = -\log \mathrm{softmax}(f_i)_{y_i} + \frac{1}{C - 1} \sum_{j \ne y_i} f_{ij}^2

    There is nothing to tune, and the paper keeps the learning rate of cross-entropy. With a single class both terms
    are zero.

    Args:
        logits: float `[N, C]`, raw.
        targets: int64 `[N]` in 0..C-1.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import squentropy
        >>> squentropy(torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), torch.tensor([0, 0]), reduction="none")
        tensor([0.2395, 2.0986])
    """
    check_logits(logits, targets, soft=False)
    log_p = target_log_probabilities(logits, targets)
    squares = at_least_float32(logits).square().scatter(1, targets.long()[:, None], 0.0)
    return reduce(squares.sum(1) / max(logits.shape[1] - 1, 1) - log_p, reduction)


@register("losses", "squentropy", paper="squentropy")
class Squentropy(LogitsLoss, function=squentropy):
    """Module form of `squentropy`."""
