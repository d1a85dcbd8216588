"""What the losses on logits share: class indices in range, class weights, float32 arithmetic."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._function import Kept

__all__ = ["ClassWeights", "as_weight", "at_least_float32", "check_classes", "check_weight", "target_log_probabilities"]


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision becomes float32; everything else stays what it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def as_weight(weight: list[float] | Tensor | None) -> Tensor | None:
    """Class weights as a module keeps them: a detached float tensor `[C]`, or None."""
    if weight is None:
        return None
    values = torch.as_tensor(weight).detach()
    values = values if values.is_floating_point() else values.float()
    if values.ndim != 1 or not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ConfigError(f"weight must be [C], finite and not negative, found {values.tolist()}")
    return values


ClassWeights = Annotated[Tensor | None, Kept(as_weight)]
"""Class weights, float `[C]`, 0 or more; the module of a loss keeps them."""


def check_weight(weight: Tensor | None, logits: Tensor) -> None:
    """Raises `ShapeError` unless there is one weight for each class."""
    if weight is not None and weight.shape != logits.shape[1:]:
        raise ShapeError(f"weight must be [{logits.shape[1]}], one for each class, found {list(weight.shape)}")


def check_classes(targets: Tensor, classes: int) -> None:
    """Raises `ShapeError` if a class index is out of range. Looks only at values on the CPU, where it costs no sync."""
    if targets.device.type != "cpu" or not len(targets) or torch.compiler.is_compiling():
        return
    low, high = (int(bound) for bound in targets.aminmax())
    if low < 0 or high >= classes:
        found = low if low < 0 else high
        raise ShapeError(f"targets must lie in 0..{classes - 1} for logits of {classes} classes, found {found}")


def target_log_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-softmax at each row's target, float `[N]`, in float32 or better.

    Raises:
        ShapeError: a target that is no class.
    """
    check_classes(targets, logits.shape[1])
    return at_least_float32(logits).log_softmax(1).gather(1, targets.long()[:, None]).squeeze(1)
