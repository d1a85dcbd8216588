"""The contract of losses for several labels a sample, and the input check that they share."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import LogitsLoss
from repertoire.losses.contracts._classes import at_least_float32

__all__ = ["MultiLabelLoss", "check_multilabel"]


class MultiLabelLoss(LogitsLoss):
    """`loss(logits, targets)` with several labels a sample: logits and targets are both `[N, C]`.

    Targets are multi-hot, of any integer, boolean or floating point dtype: 1 where a label holds, 0 where it does not.

    Args:
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`.
    """


def check_multilabel(
    logits: Tensor, targets: Tensor, *, low: float = 0.0, high: float = 1.0, binary: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits in float32 or better, and the targets in the same dtype.

    Looks only at values on the CPU, where it costs no sync.

    Args:
        logits: float `[N, C]`.
        targets: `[N, C]`.
        low, high: the range of the targets.
        binary: whether they must be 0 or 1, with nothing between.

    Raises:
        ShapeError: logits that are not floating point `[N, C]`, targets of another shape, or outside their range.
    """
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ShapeError(f"logits must be floating point [N, C], found {logits.dtype} {list(logits.shape)}")
    if targets.shape != logits.shape or targets.is_complex():
        raise ShapeError(
            f"targets must be multi-hot {list(logits.shape)} like the logits, found {targets.dtype} "
            f"{list(targets.shape)}; class indices are for losses with one label a sample"
        )
    logits = at_least_float32(logits)
    targets = targets.to(logits.dtype)
    if targets.device.type == "cpu" and targets.numel() and not torch.compiler.is_compiling():
        wrong = ~((targets == 0) | (targets == 1)) if binary else ~((targets >= low) & (targets <= high))
        if bool(wrong.any()):
            expected = "be 0 or 1" if binary else f"lie in [{low:g}, {high:g}]"
            raise ShapeError(f"targets must {expected}, found {float(targets[wrong][0]):g}")
    return logits, targets
