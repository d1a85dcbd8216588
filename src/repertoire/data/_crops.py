"""Augmentations that move pixels: none, shift, crop and flip, a crop of random size."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from repertoire.data._batches import centres, check_images, check_probability, plain, sampled, shared_out
from repertoire.errors import ConfigError, ShapeError
from repertoire.registry import register

__all__ = ["CropFlip", "NoAugmentation", "PhotoAugmentation", "ResizedCrop", "Shift"]


class _Geometric(nn.Module):
    """An augmentation that moves pixels and does nothing else."""

    @property
    def geometry(self) -> nn.Module:
        return self


@register("augmentations", "none")
class NoAugmentation(_Geometric):
    """Leaves images as they are: `plain` as a module.

    Example:
        >>> NoAugmentation()(torch.zeros(2, 8, 8, 3, dtype=torch.uint8)).shape
        torch.Size([2, 3, 8, 8])
    """

    def forward(self, images: Tensor) -> Tensor:
        return plain(images)


@register("augmentations", "shift")
class Shift(_Geometric):
    """Translates by up to a few pixels in each direction and fills with black; for digits, which bear no flip.

    Args:
        pixels: largest shift; by default an eighth of the side, and at least one.

    Raises:
        ConfigError: `pixels` is negative.

    Example:
        >>> Shift(pixels=1)(torch.zeros(2, 8, 8, 1, dtype=torch.uint8)).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, pixels: int | None = None) -> None:
        super().__init__()
        self.pixels = _check_pixels(pixels)

    def forward(self, images: Tensor) -> Tensor:
        return _translate(images, self.pixels, flip=0.0, fill="black")


@register("augmentations", "crop-flip")
class CropFlip(_Geometric):
    """Pads by reflection, crops at random to the original size, and flips left to right: usual for small images.

    Padding, crop and flip are one gather of bytes, followed by one conversion. kornia's `RandomCrop` and
    `RandomHorizontalFlip` move floats and visit the images one after another, which is several times slower
    (`benchmarks/augmentations.py`).

    Args:
        pixels: width of the padding; by default an eighth of the side, and at least one.
        flip: probability of a flip.

    Raises:
        ConfigError: `pixels` is negative, or `flip` is outside [0, 1].

    Example:
        >>> CropFlip(pixels=4)(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, pixels: int | None = None, flip: float = 0.5) -> None:
        super().__init__()
        self.pixels = _check_pixels(pixels)
        self.flip = check_probability("flip", flip)

    def forward(self, images: Tensor) -> Tensor:
        return _translate(images, self.pixels, flip=self.flip, fill="reflect")


@register("augmentations", "resized-crop")
class ResizedCrop(_Geometric):
    """Crops a random box, scales it to the size of the image, and flips left to right (Szegedy et al., 2015).

    The box has area `scale` times that of the image and aspect ratio `ratio` (width by height, uniform in its
    logarithm); a side that would exceed the image is shortened to it. Its position is continuous, and it is sampled
    bilinearly: since a box is never larger than the result, there is nothing to antialias.

    All boxes are sampled in one `grid_sample`, which is quicker than kornia's `RandomResizedCrop`
    (`benchmarks/augmentations.py`).

    Args:
        scale: smallest and largest share of the image's area, in (0, 1].
        ratio: smallest and largest aspect ratio.
        flip: probability of a flip.

    Raises:
        ConfigError: an option is out of its range.

    Example:
        >>> ResizedCrop(scale=(0.2, 1.0))(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3), flip: float = 0.5
    ) -> None:
        super().__init__()
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ConfigError(f"scale must be two shares of the area, smaller first, in (0, 1]; found {scale}")
        if not 0 < ratio[0] <= ratio[1]:
            raise ConfigError(f"ratio must be two positive aspect ratios, smaller first; found {ratio}")
        self.scale, self.ratio = scale, ratio
        self.flip = check_probability("flip", flip)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images)
        return shared_out(boxed, images, lambda: self.boxes(images))

    def boxes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Draws a box for each image: half of its sides, the width negative where it is flipped, and its centre, as
        (width, height) `[N, 2]` each; in normalised coordinates the image reaches from -1 to 1."""
        count, height, width, _ = images.shape
        area = _uniform(images, count, *self.scale) * (height * width)
        ratio = _uniform(images, count, *(math.log(end) for end in self.ratio)).exp()
        across = ((area * ratio).sqrt() / width).clamp_(max=1)
        down = ((area / ratio).sqrt() / height).clamp_(max=1)
        flipped = torch.where(torch.rand_like(area) < self.flip, -across, across)
        # A box of half-width s has its centre anywhere in [s - 1, 1 - s].
        column = (1 - across) * _uniform(images, count, -1, 1)
        row = (1 - down) * _uniform(images, count, -1, 1)
        return torch.cat((flipped, down), 1), torch.cat((column, row), 1)


@register("augmentations", "photo")
class PhotoAugmentation(ResizedCrop):
    """Crops a box of a third of the image or more, scales it, and flips left to right: for photographs.

    `ResizedCrop` with the scale that suits a few epochs from a pretrained network: crops down to 8 % of the image, as
    for training from scratch on a million images, often miss the object and need many epochs.

    Args:
        scale: smallest and largest share of the image's area, in (0, 1].
        ratio: smallest and largest aspect ratio.
        flip: probability of a flip.

    Raises:
        ConfigError: an option is out of its range.

    Example:
        >>> PhotoAugmentation()(torch.zeros(2, 64, 64, 3, dtype=torch.uint8)).shape
        torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self, scale: tuple[float, float] = (0.35, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3), flip: float = 0.5
    ) -> None:
        super().__init__(scale, ratio, flip)


def boxed(images: Tensor, half: Tensor, centre: Tensor) -> Tensor:
    """The boxes of images, as `ResizedCrop.boxes` draws them, at the size of the images."""
    count, height, width, _ = images.shape
    x = images.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)  # sampled quicker than channels last
    columns = centres(width, x) * half[:, :1] + centre[:, :1]
    rows = centres(height, x) * half[:, 1:] + centre[:, 1:]
    shape = (count, height, width)
    grid = torch.stack((columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)), dim=-1)
    return sampled(x, grid)


def _uniform(like: Tensor, count: int, low: float, high: float) -> Tensor:
    """Numbers `[N, 1]`, on the device of the images."""
    return torch.empty(count, 1, device=like.device).uniform_(low, high)


def _translate(images: Tensor, pixels: int | None, *, flip: float, fill: Literal["reflect", "black"]) -> Tensor:
    """Pad, crop at random to the same size, flip: one gather of whole pixels, while they still are bytes."""
    check_images(images)
    count, height, width, channels = images.shape
    shift = max(1, min(height, width) // 8) if pixels is None else pixels
    if shift >= min(height, width):
        raise ShapeError(f"pixels is {shift}, which must be less than the side of the images, here {height} x {width}")
    device = images.device

    def draw() -> tuple[Tensor, Tensor]:
        rows = torch.arange(height, device=device) + torch.randint(-shift, shift + 1, (count, 1), device=device)
        columns = torch.arange(width, device=device) + torch.randint(-shift, shift + 1, (count, 1), device=device)
        if flip:
            columns = torch.where(torch.rand(count, 1, device=device) < flip, width - 1 - columns, columns)
        return rows, columns

    def moved(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        across, down = _reflected(columns, width), _reflected(rows, height)
        start = torch.arange(len(images), device=device)[:, None, None] * (height * width)
        source = start + (down * width)[:, :, None] + across[:, None, :]
        out = images.reshape(-1, channels).index_select(0, source.view(-1)).view(images.shape)
        if fill == "black":
            out *= ((down == rows)[:, :, None] & (across == columns)[:, None, :])[..., None]
        return plain(out)

    return shared_out(moved, images, draw)


def _reflected(index: Tensor, size: int) -> Tensor:
    """Positions outside [0, size) reflected about the centre of the first or last pixel; no more than once."""
    index = index.abs()
    return torch.where(index < size, index, 2 * (size - 1) - index)


def _check_pixels(pixels: int | None) -> int | None:
    if pixels is not None and pixels < 0:
        raise ConfigError(f"pixels must be 0 or more, found {pixels}")
    return pixels
