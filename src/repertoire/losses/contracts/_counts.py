"""Class counts, which the losses for long-tailed data are made from."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._function import Kept

__all__ = ["ClassCounts", "as_counts", "check_counts"]


def as_counts(counts: list[float] | Tensor) -> Tensor:
    """Class counts as a module keeps them: a detached float tensor `[C]`, every one positive."""
    values = torch.as_tensor(counts).detach()
    values = values if values.is_floating_point() else values.float()
    if values.ndim != 1 or not len(values) or not bool((torch.isfinite(values) & (values > 0)).all()):
        raise ShapeError(
            f"counts must be [C], the number of training samples of each class, all positive, found {values.tolist()}; "
            "drop the classes without samples"
        )
    return values


ClassCounts = Annotated[Tensor, Kept(as_counts)]
"""Training samples of each class, `[C]`, all positive; the module of a loss keeps them."""


def check_counts(counts: Tensor, logits: Tensor) -> None:
    """Raises `ShapeError` unless there is one count for each class, positive where that can be seen without waiting."""
    if counts.shape != logits.shape[1:]:
        raise ShapeError(f"counts must be [{logits.shape[1]}], one for each class, found {list(counts.shape)}")
    if counts.device.type == "cpu" and len(counts) and not torch.compiler.is_compiling():
        as_counts(counts)
