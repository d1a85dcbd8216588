"""Operations on colour and sharpness, with a strength for each image; `StrongAugmentation` draws from them.

Each takes float `[N, C, H, W]` in [0, 1] and signed strengths `[N, 1, 1, 1]` in [-1, 1] (`WIDE` goes beyond), whose
sign matters where an operation can go either way. Results may leave [0, 1]; the caller clamps. None draws at random.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["OPERATIONS", "WIDE"]

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as Pillow turns colour into grey."""


def grey(x: Tensor) -> Tensor:
    """Luma `[N, 1, H, W]`; a grey image is its own."""
    if x.shape[1] == 1:
        return x
    return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def brightness(x: Tensor, strength: Tensor) -> Tensor:
    """Times 0.1 to 1.9."""
    return x * (1 + 0.9 * strength)


def contrast(x: Tensor, strength: Tensor) -> Tensor:
    """Difference from the mean luma times 0.1 to 1.9."""
    mean = grey(x).mean((2, 3), keepdim=True)
    return mean + (x - mean) * (1 + 0.9 * strength)


def colour(x: Tensor, strength: Tensor) -> Tensor:
    """Difference from the image's own grey version times 0.1 to 1.9; leaves grey images as they are."""
    base = grey(x)
    return base + (x - base) * (1 + 0.9 * strength)


def sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """Difference from a smoothed version times 0.1 to 1.9; the outermost pixels stay, as in Pillow."""
    channels = x.shape[1]
    kernel = x.new_ones(3, 3)
    kernel[1, 1] = 5
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(x, (kernel / 13).expand(channels, 1, 3, 3), groups=channels)
    return smooth + (x - smooth) * (1 + 0.9 * strength)


def posterise(x: Tensor, strength: Tensor) -> Tensor:
    """Keeps the 8 to 4 highest bits of a byte, or fewer at strengths above 1."""
    step = torch.exp2((strength.abs() * 4).round())
    return torch.floor((x * 255).round() / step) * step / 255


def solarise(x: Tensor, strength: Tensor) -> Tensor:
    """Inverts what is at or above a threshold, from 1 (nothing but pure white) to 0 (everything)."""
    return torch.where(x >= 1 - strength.abs(), 1 - x, x)


def equalise(x: Tensor, strength: Tensor) -> Tensor:
    """Maps the values of each channel so that their histogram is flat; the strength does not matter."""
    count, channels, height, width = x.shape
    values = (x * 255).round().long().reshape(count * channels, -1)
    histogram = x.new_zeros(len(values), 256).scatter_add_(1, values, torch.ones_like(values, dtype=x.dtype))
    reached = histogram.cumsum(1)
    # What the darkest value holds is the zero of the scale. A channel of one value has no scale, and stays.
    lowest = histogram.gather(1, values.amin(1, keepdim=True))
    table = (reached - lowest) / (height * width - lowest).clamp(min=1)
    flat = table.gather(1, values).view_as(x)
    constant = (values.amin(1) == values.amax(1)).view(count, channels, 1, 1)
    return torch.where(constant, x, flat)


def autocontrast(x: Tensor, strength: Tensor) -> Tensor:
    """Stretches each channel to [0, 1]; the strength does not matter."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1e-6), x)


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    brightness,
    contrast,
    colour,
    sharpness,
    posterise,
    solarise,
    equalise,
    autocontrast,
)

WIDE = (0.99 / 0.9, 0.99 / 0.9, 0.99 / 0.9, 0.99 / 0.9, 1.5, 1.0, 1.0, 1.0)
"""What to multiply strengths by for the wide ranges of TrivialAugment: 0.01 to 1.99 times, and down to two bits."""
