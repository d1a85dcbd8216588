"""Random changes to whole batches of images, on the device that trains.

Every augmentation maps uint8 `[N, H, W, C]` to float `[N, C, H, W]` in [0, 1], channels last in memory, and draws for
each image by itself. All randomness comes from torch's global state, which `Loader` seeds before each batch.

`geometry` of an augmentation is what it moves pixels by, itself if it does nothing else: applied to the mask of an
object from the same random state, it moves the mask with the image.

`change` of an augmentation, where it has one, is what it does to float images; it may follow another one:
`crop-flip+erasing`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data._enhance import OPERATIONS, WIDE
from repertoire.data._jitter import recoloured
from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import seed_torch
from repertoire.registry import build, register

__all__ = [
    "CropFlip",
    "NoAugmentation",
    "PhotoAugmentation",
    "RandAugment",
    "RandomErasing",
    "ResizedCrop",
    "Shift",
    "SimCLRAugmentation",
    "StrongAugmentation",
    "TrivialAugment",
    "build_augmentation",
    "move_masks",
    "plain",
]


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
    _check(images)
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def move_masks(augmentation: Callable[[Tensor], Tensor], masks: Tensor) -> Tensor:
    """Masks as an augmentation that comes next moves their images; torch's random state stays as it is.

    Args:
        augmentation: `plain`, or one that has a `geometry`.
        masks: bool `[N, H, W]`.

    Returns:
        float `[N, H, W]` in [0, 1]: the share of each pixel that the object covers.

    Raises:
        ConfigError: the augmentation does not say how it moves pixels.
    """
    geometry = plain if augmentation is plain else getattr(augmentation, "geometry", None)
    if geometry is None:
        raise ConfigError(
            f"augmentation {type(augmentation).__name__} does not say how it moves masks along with images (it has no "
            "geometry); use crop-flip, photo, simclr, randaugment or another by name"
        )
    device = masks.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return geometry(masks[..., None].to(torch.uint8) * 255)[:, 0]


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
        self.flip = _check_probability("flip", flip)

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
        self.flip = _check_probability("flip", flip)

    def forward(self, images: Tensor) -> Tensor:
        _check(images)
        count, height, width, _ = images.shape
        x = images.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)  # sampled quicker than channels last
        area = x.new_empty(count, 1).uniform_(*self.scale) * (height * width)
        ratio = x.new_empty(count, 1).uniform_(*(math.log(end) for end in self.ratio)).exp()
        across = ((area * ratio).sqrt() / width).clamp_(max=1)
        down = ((area / ratio).sqrt() / height).clamp_(max=1)
        flipped = torch.where(torch.rand_like(area) < self.flip, -across, across)
        # In normalised coordinates the image reaches from -1 to 1, so a box of half-width s has its centre anywhere in
        # [s - 1, 1 - s].
        columns = _centres(width, x) * flipped + (1 - across) * x.new_empty(count, 1).uniform_(-1, 1)
        rows = _centres(height, x) * down + (1 - down) * x.new_empty(count, 1).uniform_(-1, 1)
        shape = (count, height, width)
        grid = torch.stack((columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)), dim=-1)
        return _sampled(x, grid)


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
        self.jitter, self.grey = _check_probability("jitter", jitter), _check_probability("grey", grey)
        self.blur = _check_probability("blur", blur)

    @property
    def geometry(self) -> nn.Module:
        return self.crop

    def forward(self, images: Tensor) -> Tensor:
        x = self.crop(images)
        if x.shape[1] == 3:
            x = recoloured(x, 0.8 * self.strength, 0.2 * self.strength, jitter=self.jitter, grey=self.grey)
            x = x.clamp_(0, 1)
        return self._blurred(x).clamp_(0, 1).contiguous(memory_format=torch.channels_last)

    def _blurred(self, x: Tensor) -> Tensor:
        size = min(x.shape[-2:]) // 10 // 2 * 2 + 1
        chosen = (torch.rand(len(x), device=x.device) < self.blur).nonzero().flatten()
        if size < 3 or not len(chosen):
            return x
        # kornia takes a third of a second to import, which only those who use it should wait for.
        from kornia.filters import gaussian_blur2d

        sigma = x.new_empty(len(chosen), 1).uniform_(0.1, 2.0).expand(-1, 2)
        return x.index_copy(0, chosen, gaussian_blur2d(x[chosen], (size, size), sigma).to(x.dtype))


class _Operations(nn.Module):
    """Crop and flip, then for each image some operations drawn uniformly from fourteen.

    Args:
        operations: operations per image.
        strength: smallest and largest strength, between which each operation's is uniform.
        wide: with the wider ranges of TrivialAugment.
        pixels, flip: see `CropFlip`.
    """

    def __init__(
        self, operations: int, strength: tuple[float, float], wide: bool, pixels: int | None, flip: float
    ) -> None:
        super().__init__()
        if operations < 1:
            raise ConfigError(f"operations must be at least 1, found {operations}")
        self.operations, self.range = operations, strength
        self.ranges = torch.tensor(WIDE_GEOMETRY if wide else GEOMETRY)
        self.factors = WIDE if wide else (1.0,) * len(OPERATIONS)
        self.crop = CropFlip(pixels, flip)

    @property
    def geometry(self) -> nn.Module:
        return _Geometry(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.crop(images))

    def change(self, x: Tensor, *, moves_only: bool = False) -> Tensor:
        """The operations without the crop, on float images; with `moves_only`, those that move pixels."""
        for _ in range(self.operations):
            x = self._one(x, moves_only)
        return x.contiguous(memory_format=torch.channels_last)

    def _one(self, x: Tensor, moves_only: bool) -> Tensor:
        count = len(x)
        # One transfer tells the host who gets what; the groups then need no further synchronisation with the device.
        kind = torch.randint(len(_GEOMETRY) + len(OPERATIONS) + 1, (count,))
        low, high = self.range
        strength = low + (high - low) * torch.rand(count)
        strength, sign = strength.to(x.device), torch.where(torch.rand(count) < 0.5, -1.0, 1.0).to(x.device)
        out = x.clone()
        moved = (kind < len(_GEOMETRY)).nonzero().flatten().to(x.device)
        if len(moved):
            which = kind.to(x.device)[moved]
            amount = strength[moved] * sign[moved] * self.ranges.to(x.device)[which]
            out[moved] = _resample(x[moved], _affine(which, amount, x.shape[-2:]))
        for number, operation in enumerate(OPERATIONS if not moves_only else ()):
            rows = (kind == number + len(_GEOMETRY)).nonzero().flatten().to(x.device)
            if len(rows):
                signed = (strength * sign * self.factors[number])[rows].view(-1, 1, 1, 1)
                out[rows] = operation(x[rows], signed).clamp_(0, 1)
        return out


class _Geometry(nn.Module):
    """What an augmentation of operations moves pixels by: it draws the same and leaves colours as they are."""

    def __init__(self, whole: _Operations) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.whole.crop(images))

    def change(self, x: Tensor) -> Tensor:
        return self.whole.change(x, moves_only=True)


@register("augmentations", "strong")
class StrongAugmentation(_Operations):
    """Crops and flips, then applies operations drawn at random for each image, with random strengths.

    Each image gets `operations` operations, each drawn uniformly from fourteen: identity, shear and translation in
    either direction, rotation, brightness, contrast, colour, sharpness, posterise, solarise, equalise and autocontrast;
    each with a strength that is uniform up to its largest. One operation is TrivialAugment in RandAugment's ranges; see
    there for the paper. Pixels that geometry brings in are reflections, where the paper has constant grey.

    kornia's policies draw one operation for a whole batch, not for each image, hence the operations here.

    Args:
        operations: operations per image, at least 1.
        strength: largest strength, in (0, 1]; 1 is shear by 0.3, translation by a third of the side, rotation by 30
            degrees, brightness, contrast, colour and sharpness times 0.1 to 1.9, four bits, or a threshold of 0.
        pixels: width of the padding of the crop; see `CropFlip`.
        flip: probability of a flip.

    Raises:
        ConfigError: an option is out of its range.

    Example:
        >>> StrongAugmentation(operations=2)(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, operations: int = 1, strength: float = 1.0, pixels: int | None = None, flip: float = 0.5
    ) -> None:
        if not 0 < strength <= 1:
            raise ConfigError(f"strength must be in (0, 1], found {strength}")
        super().__init__(operations, (0.0, strength), False, pixels, flip)


@register("augmentations", "trivialaugment")
class TrivialAugment(_Operations):
    """Crops and flips, then applies one random operation of random strength to each image: nothing to tune.

    Müller and Hutter, *TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation* (2021). The operation is
    drawn uniformly from the fourteen of `StrongAugmentation`, its strength uniformly up to the largest. Pixels that
    geometry brings in are reflections, where the paper has constant grey.

    Args:
        wide: the paper's wide ranges, which it recommends: shear by up to 0.99, translation by the side of 32-pixel
            images, rotation by 135 degrees, brightness, contrast, colour and sharpness times 0.01 to 1.99, down to two
            bits. Without, those of RandAugment.
        pixels: width of the padding of the crop; see `CropFlip`.
        flip: probability of a flip.

    Raises:
        ConfigError: `pixels` is negative, or `flip` outside [0, 1].

    Example:
        >>> TrivialAugment()(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, wide: bool = True, pixels: int | None = None, flip: float = 0.5) -> None:
        super().__init__(1, (0.0, 1.0), wide, pixels, flip)


@register("augmentations", "randaugment")
class RandAugment(_Operations):
    """Crops and flips, then applies some random operations, all of one strength, to each image.

    Cubuk et al., *RandAugment: Practical Automated Data Augmentation with a Reduced Search Space* (2020): N operations,
    drawn uniformly from the fourteen of `StrongAugmentation`, with the same magnitude M. Those that can go either way
    do so at random. Pixels that geometry brings in are reflections, where the paper has constant grey.

    Args:
        operations: N, at least 1.
        magnitude: M, in (0, 10]; 10 is the largest strength of `StrongAugmentation`. The paper has 9 for ImageNet;
            torchvision counts to 30.
        pixels: width of the padding of the crop; see `CropFlip`.
        flip: probability of a flip.

    Raises:
        ConfigError: an option is out of its range.

    Example:
        >>> RandAugment(operations=2, magnitude=5)(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, operations: int = 2, magnitude: float = 9.0, pixels: int | None = None, flip: float = 0.5
    ) -> None:
        if not 0 < magnitude <= 10:
            raise ConfigError(f"magnitude must be in (0, 10], found {magnitude}")
        super().__init__(operations, (magnitude / 10, magnitude / 10), False, pixels, flip)


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
        self.probability = _check_probability("probability", probability)
        self.share, self.ratio, self.fill = share, ratio, fill

    @property
    def geometry(self) -> nn.Module:
        return NoAugmentation()

    def forward(self, images: Tensor) -> Tensor:
        return self.change(plain(images))

    def change(self, x: Tensor) -> Tensor:
        """The same on float images."""
        count, _, height, width = x.shape
        area = x.new_empty(count, 1).uniform_(*self.share) * (height * width)
        ratio = x.new_empty(count, 1).uniform_(*(math.log(end) for end in self.ratio)).exp()
        tall, broad = (area * ratio).sqrt().clamp_(max=height), (area / ratio).sqrt().clamp_(max=width)
        rows, columns = (torch.arange(side, device=x.device) + 0.5 for side in (height, width))
        top, left = torch.rand_like(area) * (height - tall), torch.rand_like(area) * (width - broad)
        chosen = torch.rand_like(area) < self.probability
        down = (rows >= top) & (rows < top + tall) & chosen
        across = (columns >= left) & (columns < left + broad)
        inside = (down[:, :, None] & across[:, None, :])[:, None]
        if self.fill == "noise":
            value = torch.rand_like(x[:1])  # numbers for all images would take several times as long as all the rest
        else:
            value = x.mean((1, 2, 3), keepdim=True) if self.fill == "mean" else x.new_zeros(1)
        return torch.where(inside, value, x).contiguous(memory_format=torch.channels_last)


def build_augmentation(spec: str) -> nn.Module:
    """The augmentation of a spec, which may be several, one after the other, with "+" between them.

    Args:
        spec: the first may be any; those that follow are `erasing`, `randaugment`, `trivialaugment` and `strong`, of
            which the latter three then do not crop once more.

    Raises:
        ConfigError: an unknown name or option, a value out of range, or an augmentation that cannot follow another one.

    Example:
        >>> build_augmentation("photo+randaugment:magnitude=5+erasing:probability=0.25")(
        ...     torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
        ... ).shape
        torch.Size([2, 3, 32, 32])
    """
    # A name begins with a letter, and the exponent of a number does not.
    specs = re.split(r"\+(?=\s*[a-z])", spec)
    stages = [cast(nn.Module, build("augmentations", part)) for part in specs]
    for part, stage in zip(specs[1:], stages[1:], strict=True):
        if not hasattr(stage, "change"):
            raise ConfigError(
                f"augmentation {spec!r}: {part.partition(':')[0].strip()} can only come first; erasing, randaugment, "
                "trivialaugment and strong may follow another one"
            )
    return stages[0] if len(stages) == 1 else _Chain(stages)


class _Chain(nn.Module):
    """Augmentations one after the other. Each draws from a random state of its own, so that what moves pixels can be
    replayed without the rest."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    @property
    def geometry(self) -> nn.Module | None:
        moves = [getattr(stage, "geometry", None) for stage in self.stages]
        return None if None in moves else _Chain([move for move in moves if move is not None])

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for number, (stage, seed) in enumerate(
            zip(self.stages, torch.randint(2**62, (len(self.stages),)).tolist(), strict=True)
        ):
            seed_torch(seed, images.device)
            # What follows and moves nothing has nothing to do to a mask.
            x = stage(x) if number == 0 else getattr(stage, "change", nn.Identity())(x)
        return x


_GEOMETRY = ("shear-x", "shear-y", "translate-x", "translate-y", "rotate")
GEOMETRY = (0.3, 0.3, 1 / 3, 1 / 3, math.radians(30))
WIDE_GEOMETRY = (0.99, 0.99, 1.0, 1.0, math.radians(135))
"""The largest amounts: slopes, shares of the side, and an angle."""


def _affine(kind: Tensor, amount: Tensor, size: torch.Size) -> Tensor:
    """Matrices `[N, 2, 3]` of the operations in `_GEOMETRY` by signed amounts, for images of that height and width."""
    aspect = size[0] / size[1]
    matrices = torch.eye(2, 3, device=amount.device).repeat(len(amount), 1, 1)
    angle = torch.where(kind == 4, amount, 0.0)
    matrices[:, 0, 0] = matrices[:, 1, 1] = angle.cos()
    # Normalised coordinates stretch the shorter side: the aspect undoes that, so that a rotation stays one.
    matrices[:, 0, 1] = -angle.sin() * aspect + torch.where(kind == 0, amount, 0.0)
    matrices[:, 1, 0] = angle.sin() / aspect + torch.where(kind == 1, amount, 0.0)
    matrices[:, 0, 2] = torch.where(kind == 2, 2 * amount, 0.0)
    matrices[:, 1, 2] = torch.where(kind == 3, 2 * amount, 0.0)
    return matrices


def _centres(size: int, like: Tensor) -> Tensor:
    """The centres of the pixels of a row in normalised coordinates, `[size]`."""
    return (2 * torch.arange(size, device=like.device, dtype=like.dtype) + 1) / size - 1


def _resample(x: Tensor, affine: Tensor) -> Tensor:
    """Bilinear samples of `x` at affine images of its own grid, reflected at the border; channels last in memory."""
    return _sampled(x, F.affine_grid(affine, [len(x), 1, *x.shape[-2:]], align_corners=False))


def _sampled(x: Tensor, grid: Tensor) -> Tensor:
    sampled = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    return sampled.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def _translate(images: Tensor, pixels: int | None, *, flip: float, fill: Literal["reflect", "black"]) -> Tensor:
    """Pad, crop at random to the same size, flip: one gather of whole pixels, while they still are bytes."""
    _check(images)
    count, height, width, channels = images.shape
    shift = max(1, min(height, width) // 8) if pixels is None else pixels
    if shift >= min(height, width):
        raise ShapeError(f"pixels is {shift}, which must be less than the side of the images, here {height} x {width}")
    device = images.device
    rows = torch.arange(height, device=device) + torch.randint(-shift, shift + 1, (count, 1), device=device)
    columns = torch.arange(width, device=device) + torch.randint(-shift, shift + 1, (count, 1), device=device)
    if flip:
        columns = torch.where(torch.rand(count, 1, device=device) < flip, width - 1 - columns, columns)
    across, down = _reflected(columns, width), _reflected(rows, height)
    start = torch.arange(count, device=device)[:, None, None] * (height * width)
    source = start + (down * width)[:, :, None] + across[:, None, :]
    moved = images.reshape(-1, channels).index_select(0, source.view(-1)).view(images.shape)
    if fill == "black":
        moved *= ((down == rows)[:, :, None] & (across == columns)[:, None, :])[..., None]
    return plain(moved)


def _reflected(index: Tensor, size: int) -> Tensor:
    """Positions outside [0, size) reflected about the centre of the first or last pixel; no more than once."""
    index = index.abs()
    return torch.where(index < size, index, 2 * (size - 1) - index)


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ShapeError(
            f"images must be uint8 [N, H, W, C] with C 1 or 3, found {str(images.dtype).removeprefix('torch.')} "
            f"{list(images.shape)}"
        )


def _check_pixels(pixels: int | None) -> int | None:
    if pixels is not None and pixels < 0:
        raise ConfigError(f"pixels must be 0 or more, found {pixels}")
    return pixels


def _check_probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is a probability, in [0, 1]; found {value}")
    return value
