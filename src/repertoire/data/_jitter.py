"""Colour jitter of a whole batch, each image by amounts of its own, in one pass over the pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repertoire.data._enhance import LUMA

__all__ = ["recoloured"]

_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def recoloured(x: Tensor, amount: float, hue: float, *, jitter: float, grey: float) -> Tensor:
    """Brightness, contrast, saturation and hue changed at random in random order, then all colour taken at random.

    Every one of these is an affine map of colours, and so is any sequence of them: each image's is composed from 3 x 3
    matrices, and its pixels are touched once.

    Args:
        x: float `[N, 3, H, W]` in [0, 1], channels last in memory.
        amount: brightness, contrast and saturation are multiplied by factors uniform in 1 +- amount, 0 at least.
        hue: largest turn of the hue, as a share of the circle.
        jitter: share of images that are changed.
        grey: share of images that lose their colour.

    Returns:
        Float `[N, 3, H, W]`, which may leave [0, 1]; channels last in memory.
    """
    count = len(x)
    chosen = x.new_empty(count, 1).uniform_() < jitter
    factors = x.new_empty(count, 3).uniform_(max(0.0, 1 - amount), 1 + amount)
    brightness, contrast, saturation = torch.where(chosen, factors, 1.0).unbind(1)
    angle = torch.where(chosen, x.new_empty(count, 1).uniform_(-hue, hue) * (2 * math.pi), 0.0).squeeze(1)
    order = x.new_empty(count, 4).uniform_().argsort(1)
    luma = x.new_tensor(LUMA)
    eye, to_luma = torch.eye(3, dtype=x.dtype, device=x.device), luma.expand(3, 3)
    steps = torch.stack(
        [
            brightness[:, None, None] * eye,
            contrast[:, None, None] * eye,
            saturation[:, None, None] * eye + (1 - saturation)[:, None, None] * to_luma,
            _turned(angle),
        ],
        dim=1,
    )
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
    mean = pixels.mean(1)
    matrix, offset = eye.expand(count, 3, 3), torch.zeros_like(mean)
    rows = torch.arange(count, device=x.device)
    for place in range(4):
        which = order[:, place]
        step = steps[rows, which]
        # Contrast is about the mean luma of what the image has become by then.
        shift = torch.where(which == 1, (1 - contrast) * (mean @ luma), 0.0)[:, None]
        matrix = step @ matrix
        offset, mean = ((step @ v[..., None]).squeeze(2) + shift for v in (offset, mean))
    lost = (x.new_empty(count).uniform_() < grey)[:, None]
    matrix = torch.where(lost[..., None], to_luma @ matrix, matrix)
    offset = torch.where(lost, (offset @ luma)[:, None], offset)
    out = torch.baddbmm(offset[:, None], pixels, matrix.transpose(1, 2))
    return out.view(count, *x.shape[2:], 3).permute(0, 3, 1, 2)


def _turned(angle: Tensor) -> Tensor:
    """Matrices `[N, 3, 3]` that turn colours about the grey axis at equal luma."""
    to_yiq = torch.tensor(_YIQ, dtype=torch.float64)
    back = to_yiq.inverse().to(angle)
    to_yiq = to_yiq.to(angle)
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, sin, zero, -sin, cos], dim=1).view(-1, 3, 3)
    return back @ turn @ to_yiq
