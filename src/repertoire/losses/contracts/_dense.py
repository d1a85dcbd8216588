"""Losses on logits, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import LogitsLoss

__all__ = ["check_dense", "dense_loss"]


def dense_loss(loss: LogitsLoss, logits: Tensor, maps: Tensor) -> Tensor:
    r"""Applies a loss on logits to the pixels of maps whose class is known, as if each were a sample.

    With P the pixels of all maps that have a class, :math:`\ell(\{z_p\}_{p\in P}, \{y_p\}_{p\in P})`: a mean is one
    over pixels, and images with more known pixels count for more.

    Args:
        loss: one that learns from classes, with reduction "mean" or "sum".
        logits: float `[N, K, H, W]`.
        maps: int64 `[N, H, W]` in 0..K-1, -1 where the class is not known.

    Returns:
        The loss, a scalar: zero, with a zero gradient, where no pixel has a class.

    Raises:
        ConfigError: the loss is for other targets than classes, wants to know more of a sample, or does not reduce.
        ShapeError: logits or maps have another shape or type, or one that does not fit the other.

    Example:
        >>> from repertoire.losses import CrossEntropy
        >>> logits = torch.zeros(2, 4, 3, 3)
        >>> maps = torch.zeros(2, 3, 3, dtype=torch.long)
        >>> maps[:, 0] = -1
        >>> round(dense_loss(CrossEntropy(), logits, maps).item(), 4)
        1.3863
    """
    check_dense(loss)
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ShapeError(f"logits must be floating point [N, K, H, W], found {logits.dtype} {list(logits.shape)}")
    if maps.dtype != torch.int64 or maps.shape != (len(logits), *logits.shape[2:]):
        raise ShapeError(
            f"maps must be int64 {[len(logits), *logits.shape[2:]]} for logits {list(logits.shape)}, found "
            f"{maps.dtype} {list(maps.shape)}"
        )
    known = maps.flatten() >= 0
    rows = logits.movedim(1, -1).flatten(0, -2)[known]
    if not len(rows):
        return logits.sum() * 0
    return loss(rows, maps.flatten()[known])


def check_dense(loss: LogitsLoss) -> None:
    """Raises `ConfigError` for a loss that cannot be applied pixel by pixel."""
    name = type(loss).__name__
    if "classes" not in loss.targets:
        raise ConfigError(
            f"loss {name} is for {' or '.join(loss.targets)}, and a pixel has one class: use cross-entropy or focal"
        )
    if loss.wants:
        raise ConfigError(
            f"loss {name} keeps something of each sample ({', '.join(loss.wants)}), and pixels are too many for it: "
            "use cross-entropy or focal"
        )
    if loss.reduction == "none":
        raise ConfigError(f"loss {name} must give one number for maps: reduction must be 'mean' or 'sum', not 'none'")
