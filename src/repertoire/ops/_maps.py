"""Outputs of layers as feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

__all__ = ["as_maps", "fits_image"]

EXTRA_TOKENS = 8
"""At most how many tokens stand for no place: a class token, a distillation token, registers."""


def as_maps(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Brings the output of a layer of any network into the form of maps `[N, K, h, w]`, by its proportions.

    Maps have about the proportions of the images: `[N, h, w, K]`, as Swin has it, and tokens `[N, T, K]`, after up to
    eight that stand for no place (class and register tokens), are brought into that form. What looks like none of them
    is left as it is.

    Args:
        output: of any shape.
        size: height and width of the images.

    Example:
        >>> import torch
        >>> from repertoire.ops import as_maps
        >>> as_maps(torch.zeros(2, 4 + 14 * 14, 64), (224, 224)).shape  # four registers before the patches
        torch.Size([2, 64, 14, 14])
    """
    if output.ndim == 4:
        last = not fits_image(output.shape[2:], size) and fits_image(output.shape[1:3], size)
        return output.movedim(3, 1) if last else output
    if output.ndim == 3:
        # Exact proportions first: among few tokens there is more than one way to come near.
        for within in (0.0, 2.0):
            for extra in range(EXTRA_TOKENS + 1):
                tokens = output.shape[1] - extra
                h = round(math.sqrt(max(tokens, 0) * size[0] / size[1]))
                if h and tokens > 1 and tokens % h == 0 and fits_image((h, tokens // h), size, within):
                    return output[:, extra:].transpose(1, 2).unflatten(2, (h, tokens // h))
    return output


def fits_image(shape: Sequence[int], size: tuple[int, int], within: float = 2.0) -> bool:
    """Says whether a map has the proportions of an image, up to what borders and strides take."""
    h, w = shape
    return abs(h - w * size[0] / size[1]) <= within + 1e-6 and h <= size[0] + 2 and w <= size[1] + 2
