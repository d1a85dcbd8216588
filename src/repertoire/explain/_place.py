"""Maps back on the photograph that the network saw a part of."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.explain._arguments import at_least, one_of

__all__ = ["photograph", "place_on"]

Fit = Literal["crop", "squash", "pad"]


def place_on(heat: Any, size: tuple[int, int], fit: Fit = "crop") -> Any:
    """Brings maps of what a network saw onto the original picture, by undoing how the picture was made square.

    Maps are enlarged bilinearly. Where the network saw nothing, outside a crop, they are zero.

    Args:
        heat: float `[..., h, h]` of square inputs, tensor or array.
        size: height and width of the original, upright.
        fit: how it was made square, as `repertoire.data` has it: "crop" (default) keeps the centre, "squash" changes
            the proportions, "pad" adds black borders.

    Returns:
        `[..., height, width]`, a tensor or an array as the heat is.

    Raises:
        ShapeError: heat that is not floating point or not square. ConfigError: no such fit, or a size below 1.

    Example:
        >>> import torch
        >>> from repertoire.explain import place_on
        >>> place_on(torch.ones(2, 2), (2, 4))  # of a picture twice as wide as high, the centre
        tensor([[0., 1., 1., 0.],
                [0., 1., 1., 0.]])
    """
    one_of(fit=(fit, get_args(Fit)))
    height, width = size
    at_least(1, height=height, width=width)
    values = heat if isinstance(heat, Tensor) else torch.from_numpy(np.asarray(heat))
    if values.ndim < 2 or not values.is_floating_point() or values.shape[-1] != values.shape[-2]:
        raise ShapeError(f"heat must be floating point [..., h, h], found {values.dtype} {list(values.shape)}")
    flat = values.reshape(1, -1, *values.shape[-2:])
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        placed = F.pad(_enlarged(flat, (side, side)), (left, width - side - left, top, height - side - top))
    elif fit == "pad":
        scale = values.shape[-1] / max(height, width)
        rows, columns = (max(1, round(length * scale)) for length in size)
        top, left = (values.shape[-1] - rows) // 2, (values.shape[-1] - columns) // 2
        placed = _enlarged(flat[..., top : top + rows, left : left + columns], size)
    else:
        placed = _enlarged(flat, size)
    found = placed.reshape(*values.shape[:-2], height, width)
    return found if isinstance(heat, Tensor) else found.numpy()


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    smaller = size[0] < maps.shape[-2] or size[1] < maps.shape[-1]
    large = F.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=smaller)
    # Weights sum to one but for rounding, and what lies in [0, 1] has to stay there.
    return large.clamp(maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True))


def photograph(path: str | os.PathLike[str], longest: int = 2048) -> np.ndarray | None:
    """Reads a picture upright, in its own proportions, to lay a map on.

    Args:
        path: of an image file.
        longest: what its longer side is reduced to where it is longer.

    Returns:
        uint8 `[height, width, 3]`; None for a picture of more than 8 bits, whose values by themselves do not say what
        is black and what is white.

    Raises:
        ConfigError: `longest` below 1. OSError: the file cannot be read.
    """
    from PIL import Image, ImageOps

    at_least(1, longest=longest)
    with Image.open(path) as image:
        if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
            return None
        image.draft("RGB", (longest, longest))
        upright = ImageOps.exif_transpose(image)
        scale = longest / max(upright.size)
        if upright.mode in ("P", "PA", "LA", "RGBA") or "transparency" in upright.info:
            rgba = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        picture = upright.convert("RGB")
        if scale < 1:
            width, height = (max(1, round(length * scale)) for length in picture.size)
            picture = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return np.asarray(picture)
