"""The contract of losses for a number a sample, and the input check that they share."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import LogitsLoss
from repertoire.losses.contracts._classes import at_least_float32

__all__ = ["RegressionLoss", "check_numbers"]


class RegressionLoss(LogitsLoss):
    """`loss(outputs, numbers)` for outputs `[N, K]` that say a number `[N]` and are no scores of classes.

    Args:
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.
    """


def check_numbers(outputs: Tensor, targets: Tensor, *, name: str = "logits") -> tuple[Tensor, Tensor]:
    """Outputs in float32 or better, and the targets as floating point numbers.

    Looks only at values on the CPU, where it costs no sync.

    Args:
        outputs: float `[N, K]`.
        targets: real numbers `[N]`.
        name: what the outputs are called in messages.

    Raises:
        ShapeError: outputs that are not floating point `[N, K]`, targets of another shape, or not finite.
    """
    if outputs.ndim != 2 or not outputs.is_floating_point():
        raise ShapeError(f"{name} must be floating point [N, K], found {outputs.dtype} {list(outputs.shape)}")
    if targets.shape != outputs.shape[:1] or targets.is_complex():
        raise ShapeError(
            f"targets must be numbers [{len(outputs)}], one for each row, found {targets.dtype} {list(targets.shape)}"
        )
    outputs = at_least_float32(outputs)
    targets = at_least_float32(targets) if targets.is_floating_point() else targets.to(outputs.dtype)
    if targets.device.type == "cpu" and targets.numel() and not torch.compiler.is_compiling():
        wrong = (~targets.isfinite()).nonzero().flatten()
        if len(wrong):
            rows = ", ".join(map(str, wrong[:10].tolist())) + (", ..." if len(wrong) > 10 else "")
            raise ShapeError(f"targets must be finite, found {float(targets[wrong[0]])}; not finite are rows {rows}")
    return outputs, targets
