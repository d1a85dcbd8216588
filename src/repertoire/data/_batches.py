"""What augmentations have in common: batches of images as they come in, and as networks want them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError

__all__ = ["centres", "check_images", "check_probability", "plain", "sampled"]


def plain(images: Tensor) -> Tensor:
    """Images as networks want them, unchanged otherwise: what evaluation uses.

    Args:
        images: uint8 `[N, H, W, C]`, C being 1 (grey) or 3 (RGB).

    Returns:
        Float `[N, C, H, W]` in [0, 1], channels last in memory.

    Raises:
        ShapeError: the images are of another type or shape.

    Example:
        >>> plain(torch.full((2, 8, 8, 1), 255, dtype=torch.uint8)).amax().item()
        1.0
    """
    check_images(images)
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def centres(size: int, like: Tensor) -> Tensor:
    """The centres of the pixels of a row in normalised coordinates, `[size]`."""
    return (2 * torch.arange(size, device=like.device, dtype=like.dtype) + 1) / size - 1


def sampled(x: Tensor, grid: Tensor) -> Tensor:
    sampled = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    return sampled.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ShapeError(
            f"images must be uint8 [N, H, W, C] with C 1 or 3, found {str(images.dtype).removeprefix('torch.')} "
            f"{list(images.shape)}"
        )


def check_probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is a probability, in [0, 1]; found {value}")
    return value
