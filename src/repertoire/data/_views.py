"""The augmentation that contrastive methods take two views with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repertoire.data._batches import check_images, check_probability, shared_out
from repertoire.data._crops import ResizedCrop, boxed
from repertoire.data._jitter import colours, recoloured
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["SimCLRAugmentation"]


@register("augmentations", "simclr")
class SimCLRAugmentation(nn.Module):
    """Resized crop, flip, colour jitter, grey and blur: the views of SimCLR (Chen et al., 2020).

    Brightness, contrast, saturation, hue and grey are affine maps of colours, which are composed for each image, in an
    order of its own, and applied in one pass over the pixels: several times quicker than kornia's one after the other
    (`benchmarks/augmentations.py`). Two things differ from it: colours are cut off at black and white once, at the end,
    and hue turns about the grey axis at equal luma, not through the hues of HSV. The blur is kornia's. Grey images skip
    all but crop, flip and blur, and images below 20 pixels the blur, whose kernel is a tenth of the side.

    Args:
        scale: smallest and largest share of the image's area in the crop.
        strength: `s` of the paper, on which brightness, contrast and saturation change by up to 0.8 s and hue by up to
            0.2 s; in [0, 2.5].
        jitter: probability of colour jitter.
        grey: probability of losing all colour.
        blur: probability of a Gaussian blur, whose standard deviation is uniform in [0.1, 2] pixels.
        flip: probability of a flip.

    Raises:
        ConfigError: an option is out of its range.

    Example:
        >>> SimCLRAugmentation(strength=0.5)(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.08, 1.0),
        strength: float = 1.0,
        jitter: float = 0.8,
        grey: float = 0.2,
        blur: float = 0.5,
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= strength <= 2.5:
            raise ConfigError(f"strength must be in [0, 2.5], found {strength}")
        self.crop = ResizedCrop(scale, flip=flip)
        self.strength = strength
        self.jitter, self.grey = check_probability("jitter", jitter), check_probability("grey", grey)
        self.blur = check_probability("blur", blur)

    @property
    def geometry(self) -> nn.Module:
        return self.crop

    def forward(self, images: Tensor) -> Tensor:
        check_images(images)
        count, height, width, channels = images.shape
        size = min(height, width) // 10 // 2 * 2 + 1

        def draw() -> tuple[Tensor, ...]:
            boxes = self.crop.boxes(images)
            changes: tuple[Tensor, ...] = ()
            if channels == 3:
                amount, hue = 0.8 * self.strength, 0.2 * self.strength
                changes = colours(count, amount, hue, jitter=self.jitter, grey=self.grey, device=images.device)
            # 0 for those that are not blurred.
            sigma = torch.zeros(count, device=images.device)
            chosen = (torch.rand(count, device=images.device) < self.blur).nonzero().flatten()
            if size >= 3 and len(chosen):
                sigma[chosen] = torch.empty(len(chosen), device=images.device).uniform_(0.1, 2.0)
            return *boxes, sigma, *changes

        def view(part: Tensor, half: Tensor, centre: Tensor, sigma: Tensor, *changes: Tensor) -> Tensor:
            x = boxed(part, half, centre)
            if changes:
                x = recoloured(x, *changes).clamp_(0, 1)
            if size >= 3:
                x = _blurred(x, size, sigma)
            return x.clamp_(0, 1).contiguous(memory_format=torch.channels_last)

        return shared_out(view, images, draw)


def _blurred(x: Tensor, size: int, sigma: Tensor) -> Tensor:
    """Images blurred by a Gaussian of their own standard deviation, where that is above 0."""
    # kornia takes a third of a second to import, which only those who use it should wait for.
    from kornia.filters import gaussian_blur2d

    chosen = sigma.nonzero().flatten()
    if not len(chosen):
        return x
    blurred = gaussian_blur2d(x[chosen], (size, size), sigma[chosen, None].expand(-1, 2))
    return x.index_copy(0, chosen, blurred.to(x.dtype))
