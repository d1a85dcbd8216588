"""Rotations whose angle is known, for losses that learn from how one view was made from another."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data._batches import check_images, plain, shared_out
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["KnownTransformation", "Rotate"]


@runtime_checkable
class KnownTransformation(Protocol):
    """An augmentation that says what it did to each image, so that the way from one view to another is known."""

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The augmented images, and the parameters of what was done to each, float `[N, p]`."""

    def between(self, first: Tensor, last: Tensor) -> Tensor:
        """The parameters of what leads from one view to another, float `[N, p]`."""


@register("augmentations", "rotate")
class Rotate(nn.Module):
    r"""Turns each image by a random angle about its centre, and says by which.

    For losses that want the transformation between two views, such as SIE (Garrido et al., *Self-Supervised Learning of
    Split Invariant Equivariant Representations*, 2023). As there, a rotation is a unit quaternion; about the line of
    sight by an angle phi it is :math:`(\cos \phi / 2,\, 0,\, 0,\, \sin \phi / 2)`. What comes in from outside is
    the nearest edge.

    Args:
        degrees: largest angle in either direction, above 0, at most 180.

    Raises:
        ConfigError: degrees out of range.

    Example:
        >>> import torch
        >>> augmentation = Rotate(degrees=90)
        >>> views, turned = augmentation.draw(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
        >>> views.shape, turned.shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 4]))
    """

    def __init__(self, degrees: float = 180.0) -> None:
        super().__init__()
        if not 0 < degrees <= 180:
            raise ConfigError(f"degrees must be above 0, at most 180, found {degrees}")
        self.degrees = degrees

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 `[N, H, W, C]` turned, float `[N, C, H, W]` in [0, 1]."""
        return self.draw(images)[0]

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        check_images(images)
        if not len(images):
            return plain(images), torch.zeros(0, 4, device=images.device)
        turned: list[Tensor] = []

        def draw() -> tuple[Tensor]:
            angle = (2 * torch.rand(len(images), device=images.device) - 1) * math.radians(self.degrees)
            cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
            half = angle / 2
            turned.append(torch.stack([half.cos(), zero, zero, half.sin()], 1))
            return (torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1),)

        views = shared_out(_turned, images, draw)
        return views, turned[0]

    def between(self, first: Tensor, last: Tensor) -> Tensor:
        """The quaternion that leads from one to the other: the last one times the conjugate of the first one."""
        w = last[:, 0] * first[:, 0] + last[:, 3] * first[:, 3]
        z = last[:, 3] * first[:, 0] - last[:, 0] * first[:, 3]
        zero = torch.zeros_like(w)
        return torch.stack([w, zero, zero, z], 1)

    def extra_repr(self) -> str:
        return f"degrees={self.degrees}"


def _turned(images: Tensor, affine: Tensor) -> Tensor:
    x = plain(images)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    turned = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return turned.contiguous(memory_format=torch.channels_last)
