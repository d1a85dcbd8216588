"""The augmentation that hides a part of an image."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from repertoire.data._batches import check_probability, plain, shared_out
from repertoire.data._crops import NoAugmentation
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["RandomErasing"]


@register("augmentations", "erasing")
class RandomErasing(nn.Module):
    """Fills a random rectangle of some images with noise, so that no single part is relied on.

    Zhong et al., *Random Erasing Data Augmentation* (2020). The rectangle has area `share` times that of the image and
    aspect ratio `ratio` (height by width; uniform in its logarithm, so that both directions are alike, where the paper
    is uniform in the ratio); a side that would exceed the image is shortened to it, where the paper draws again.

    It moves nothing; write `crop-flip+erasing` to have both.

    Args:
        probability: of erasing, for each image.
        share: smallest and largest share of the image's area, in (0, 1).
        ratio: smallest and largest aspect ratio.
        fill: "noise" (a random value for each pixel and channel, the paper's choice; the images of a batch show parts
            of one picture of noise), "mean" (of the image), or "black".

    Raises:
        ConfigError: an option is out of its range.

    Example:
        >>> RandomErasing(probability=1.0)(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).amax().item() > 0
        True
    """

    def __init__(
        self,
        probability: float = 0.5,
        share: tuple[float, float] = (0.02, 0.4),
        ratio: tuple[float, float] = (0.3, 1 / 0.3),
        fill: Literal["noise", "mean", "black"] = "noise",
    ) -> None:
        super().__init__()
        if not 0 < share[0] <= share[1] < 1:
            raise ConfigError(f"share must be two shares of the area, smaller first, in (0, 1); found {share}")
        if not 0 < ratio[0] <= ratio[1]:
            raise ConfigError(f"ratio must be two positive aspect ratios, smaller first; found {ratio}")
        if fill not in ("noise", "mean", "black"):
            raise ConfigError(f'fill must be "noise", "mean" or "black", found {fill!r}')
        self.probability = check_probability("probability", probability)
        self.share, self.ratio, self.fill = share, ratio, fill

    @property
    def geometry(self) -> nn.Module:
        return NoAugmentation()

    def forward(self, images: Tensor) -> Tensor:
        return self.change(plain(images))

    def change(self, x: Tensor) -> Tensor:
        """The same on float images."""
        count, _, height, width = x.shape

        def draw() -> tuple[Tensor, ...]:
            area = x.new_empty(count, 1).uniform_(*self.share) * (height * width)
            ratio = x.new_empty(count, 1).uniform_(*(math.log(end) for end in self.ratio)).exp()
            tall, broad = (area * ratio).sqrt().clamp_(max=height), (area / ratio).sqrt().clamp_(max=width)
            rows, columns = (torch.arange(side, device=x.device) + 0.5 for side in (height, width))
            top, left = torch.rand_like(area) * (height - tall), torch.rand_like(area) * (width - broad)
            chosen = torch.rand_like(area) < self.probability
            down = (rows >= top) & (rows < top + tall) & chosen
            across = (columns >= left) & (columns < left + broad)
            # Numbers for all images would take several times as long as all the rest.
            noise = (torch.rand_like(x[:1]).expand(x.shape),) if self.fill == "noise" else ()
            return down, across, *noise

        def erased(part: Tensor, down: Tensor, across: Tensor, *noise: Tensor) -> Tensor:
            inside = (down[:, :, None] & across[:, None, :])[:, None]
            if noise:
                value = noise[0]
            else:
                value = part.mean((1, 2, 3), keepdim=True) if self.fill == "mean" else part.new_zeros(1)
            return torch.where(inside, value, part).contiguous(memory_format=torch.channels_last)

        return shared_out(erased, x, draw)
