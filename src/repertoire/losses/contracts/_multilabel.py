"""The contract of losses for several labels a sample, and the input check that they share."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import LogitsLoss
from repertoire.losses.contracts._classes import at_least_float32

__all__ = ["Labels", "MultiLabelLoss", "check_multilabel"]


class MultiLabelLoss(LogitsLoss):
    """`loss(logits, targets)` with several labels a sample: logits and targets are both `[N, C]`.

    Targets are multi-hot, of any integer, boolean or floating point dtype: 1 where a label holds, 0 where it does not,
    and -1 where nobody knows: such a label adds nothing to the loss.

    Args:
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`.

    Attributes:
        of_unknown: whether the loss is one of labels that nobody knows: 0 is then no more than -1.
    """

    targets = ("labels",)
    of_unknown: ClassVar[bool] = False
    example = "(torch.zeros(2, 4), torch.eye(4)[:2])"


class Labels(NamedTuple):
    """Logits and targets of several labels, ready to compute with.

    Attributes:
        logits: float32 or better, `[N, C]`.
        targets: of the same dtype, `[N, C]`; 0 where they are not known.
        known: bool `[N, C]`.
    """

    logits: Tensor
    targets: Tensor
    known: Tensor


def check_multilabel(
    logits: Tensor, targets: Tensor, *, low: float = 0.0, high: float = 1.0, binary: bool = False
) -> Labels:
    """Logits in float32 or better, the targets in the same dtype, and which targets are known.

    Looks only at values on the CPU, where it costs no sync.

    Args:
        logits: float `[N, C]`.
        targets: `[N, C]`; -1 where nobody knows.
        low, high: the range of the targets that are known.
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
    known = targets != -1
    if targets.device.type == "cpu" and targets.numel() and not torch.compiler.is_compiling():
        right = (targets == 0) | (targets == 1) if binary else (targets >= low) & (targets <= high)
        wrong = known & ~right
        if bool(wrong.any()):
            expected = "be 0 or 1" if binary else f"lie in [{low:g}, {high:g}]"
            raise ShapeError(f"targets must {expected}, or -1 where nobody knows, found {float(targets[wrong][0]):g}")
    return Labels(logits, targets.masked_fill(~known, 0.0), known)
