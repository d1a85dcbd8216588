"""The three contracts of losses, and the input checks that all of them share."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from torch import Tensor, nn

from repertoire.errors import ShapeError

__all__ = [
    "EmbeddingLoss",
    "LogitsLoss",
    "Loss",
    "Reduction",
    "ViewsLoss",
    "check_embeddings",
    "check_finite",
    "check_index",
    "check_logits",
    "reduce",
]

Reduction = Literal["mean", "sum", "none"]


class Loss(nn.Module):
    """Base of all losses. `contract` says how it is called and `views` how many augmented views training gives it.

    `wants` names what it needs to know of the samples beside what its contract says, and takes by keyword: "index",
    int64 `[N]`, the number of each sample in the data set; "transformation", float `[N, p]`, how the last view was made
    from the first.
    """

    contract: ClassVar[Literal["logits", "embeddings", "views"]]
    views: int = 1
    wants: tuple[str, ...] = ()

    def prepare(self, dimensions: int) -> None:
        """Told by a method, when it is built, how wide its embeddings will be: a loss with state or parameters of that
        width makes them here, so that they are there before optimisers, copies and checkpoints are. Does nothing by
        default.
        """

    def after_update(self) -> None:
        """Called by a method when the weights have changed: the place to push a batch into a memory, which must not
        change before the backward pass is over. Does nothing by default."""


class LogitsLoss(Loss):
    """`loss(logits, targets)` with logits float `[N, C]`.

    Targets are int64 `[N]`, or float `[N, C]` where soft targets make sense.

    Args:
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.
    """

    contract = "logits"

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ShapeError(f"reduction must be 'mean', 'sum' or 'none', found {reduction!r}")
        self.reduction: Reduction = reduction


class EmbeddingLoss(Loss):
    """`loss(embeddings, labels, reference=None, reference_labels=None) -> scalar`.

    Embeddings float `[N, d]`, labels int64 `[N]`; a reference set (a memory queue, another rank's batch) float `[M, d]`
    with labels int64 `[M]`. The loss is zero, with a zero gradient, for an anchor without positives.

    `proxied` says that the positives of an anchor are no other rows but a learned vector of its class, for which labels
    must lie in 0..C-1, or below 0 without a class.
    """

    contract = "embeddings"
    proxied: ClassVar[bool] = False


class ViewsLoss(Loss):
    """`loss(*views) -> scalar`: each view float `[N, d]`, and row i of each view is the same sample."""

    contract = "views"
    views = 2


def check_logits(logits: Tensor, targets: Tensor, *, soft: bool = True) -> None:
    """Raises `ShapeError` unless the pair fits the contract of losses on logits. Looks at no values: no device sync."""
    if logits.ndim != 2:
        raise ShapeError(f"logits must be [N, C], found {list(logits.shape)}")
    if not logits.is_floating_point():
        raise ShapeError(f"logits must be floating point, found {logits.dtype}")
    if targets.is_floating_point():
        if not soft:
            raise ShapeError(f"targets must be int64 class indices [N] for this loss, found {targets.dtype}")
        if targets.shape != logits.shape:
            raise ShapeError(
                f"soft targets must have the logits' shape {list(logits.shape)}, found {list(targets.shape)}"
            )
        return
    _check_indices("targets", targets, len(logits))


def check_embeddings(
    embeddings: Tensor, labels: Tensor, reference: Tensor | None = None, reference_labels: Tensor | None = None
) -> None:
    """Raises `ShapeError` unless the arguments fit the contract of losses on embeddings. Looks at no values."""
    if embeddings.ndim != 2:
        raise ShapeError(f"embeddings must be [N, d], found {list(embeddings.shape)}")
    if not embeddings.is_floating_point():
        raise ShapeError(f"embeddings must be floating point, found {embeddings.dtype}")
    _check_indices("labels", labels, len(embeddings))
    if (reference is None) != (reference_labels is None):
        raise ShapeError("reference and reference_labels go together: give both or neither")
    if reference is not None and reference_labels is not None:
        if reference.ndim != 2 or reference.shape[1] != embeddings.shape[1]:
            raise ShapeError(f"reference must be [M, {embeddings.shape[1]}], found {list(reference.shape)}")
        if reference.dtype != embeddings.dtype:
            raise ShapeError(f"reference must be {embeddings.dtype} like the embeddings, found {reference.dtype}")
        _check_indices("reference_labels", reference_labels, len(reference))


def check_finite(**values: float | None) -> None:
    """Raises `ValueError` unless every value is a finite number, or None: others make a loss that is no number."""
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, found {value}")


def check_index(index: Tensor, rows: int, samples: int) -> None:
    """Raises `ShapeError` unless the numbers of the samples are integers `[rows]`, and on the CPU below `samples`."""
    if index.shape != (rows,) or index.is_floating_point() or index.is_complex():
        raise ShapeError(f"index must be integers [{rows}], one a sample, found {index.dtype} {list(index.shape)}")
    if index.device.type == "cpu" and rows:
        least, most = int(index.min()), int(index.max())
        if least < 0 or most >= samples:
            found = least if least < 0 else most
            raise ShapeError(
                f"index must be in 0..{samples - 1}, since the loss was made for {samples} samples; found {found}"
            )


def _check_indices(name: str, values: Tensor, count: int) -> None:
    if values.is_floating_point() or values.is_complex():
        raise ShapeError(f"{name} must be integers, found {values.dtype}")
    if values.ndim != 1 or len(values) != count:
        raise ShapeError(f"{name} must be [{count}], one for each row, found {list(values.shape)}")


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """Mean, sum or neither over the samples; the mean of nothing is zero, so that an empty batch is no NaN."""
    if reduction == "none":
        return values
    if reduction == "sum" or values.numel() == 0:
        return values.sum()
    return values.mean()
