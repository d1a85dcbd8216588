"""Colour jitter of a whole batch, each image by amounts of its own, in one pass over the pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repertoire.data._enhance import LUMA

__all__ = ["colours", "recoloured"]

_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def colours(
    count: int, amount: float, hue: float, *, jitter: float, grey: float, device: torch.device
) -> tuple[Tensor, ...]:
    """Draws for each image how its colours change: brightness, contrast, saturation and hue, in random order, and
    whether all colour is taken from it.

    Args:
        count: N, the number of images.
        amount: brightness, contrast and saturation are multiplied by factors uniform in 1 +- amount, 0 at least.
        hue: largest turn of the hue, as a share of the circle.
        jitter: share of images that are changed.
        grey: share of images that lose their colour.
        device: of the images.

    Returns:
        The three factors `[N, 3]`; the turn of the hue `[N]`, in radians; the order of the four changes `[N, 4]`; who
        loses all colour, bool `[N]`.
    """

    def uniform(columns: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.empty(count, columns, device=device).uniform_(low, high)

    chosen = uniform(1) < jitter
    factors = torch.where(chosen, uniform(3, max(0.0, 1 - amount), 1 + amount), 1.0)
    angle = torch.where(chosen, uniform(1, -hue, hue) * (2 * math.pi), 0.0).squeeze(1)
    order = uniform(4).argsort(1)
    return factors, angle, order, torch.empty(count, device=device).uniform_() < grey


def recoloured(x: Tensor, factors: Tensor, angle: Tensor, order: Tensor, lost: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue changed, then all colour taken, as `colours` has drawn it.

    Every one of these is an affine map of colours, and so is any sequence of them: each image's is composed from 3 x 3
    matrices, and its pixels are touched once.

    Args:
        x: float `[N, 3, H, W]` in [0, 1], channels last in memory.
        factors, angle, order, lost: see `colours`.

    Returns:
        Float `[N, 3, H, W]`, which may leave [0, 1]; channels last in memory.
    """
    count = len(x)
    brightness, contrast, saturation = factors.unbind(1)
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
    matrix = torch.where(lost[:, None, None], to_luma @ matrix, matrix)
    offset = torch.where(lost[:, None], (offset @ luma)[:, None], offset)
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
