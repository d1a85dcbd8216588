"""Augmentations that draw operations for each image: RandAugment, TrivialAugment, and ours."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data._batches import sampled, shared_out
from repertoire.data._crops import CropFlip
from repertoire.data._enhance import OPERATIONS, WIDE
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["RandAugment", "StrongAugmentation", "TrivialAugment", "affine", "resample"]


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

        def draw() -> tuple[Tensor, ...]:
            return tuple(each for _ in range(self.operations) for each in self._draw(len(x), x.device))

        def changed(part: Tensor, *drawn: Tensor) -> Tensor:
            for number in range(0, len(drawn), 2):
                part = self._one(part, drawn[number], drawn[number + 1], moves_only)
            return part.contiguous(memory_format=torch.channels_last)

        return shared_out(changed, x, draw)

    def _draw(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Which operation each image gets, for the host, and its signed strength."""
        # One transfer tells the host who gets what; the groups then need no further synchronisation with the device.
        kind = torch.randint(len(_GEOMETRY) + len(OPERATIONS) + 1, (count,))
        low, high = self.range
        strength = low + (high - low) * torch.rand(count)
        return kind, strength.to(device) * torch.where(torch.rand(count) < 0.5, -1.0, 1.0).to(device)

    def _one(self, x: Tensor, kind: Tensor, strength: Tensor, moves_only: bool) -> Tensor:
        out = x.clone()
        moved = (kind < len(_GEOMETRY)).nonzero().flatten().to(x.device)
        if len(moved):
            which = kind.to(x.device)[moved]
            out[moved] = resample(
                x[moved], affine(which, strength[moved] * self.ranges.to(x.device)[which], x.shape[-2:])
            )
        for number, operation in enumerate(OPERATIONS if not moves_only else ()):
            rows = (kind == number + len(_GEOMETRY)).nonzero().flatten().to(x.device)
            if len(rows):
                signed = (strength * self.factors[number])[rows].view(-1, 1, 1, 1)
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


_GEOMETRY = ("shear-x", "shear-y", "translate-x", "translate-y", "rotate")
GEOMETRY = (0.3, 0.3, 1 / 3, 1 / 3, math.radians(30))
WIDE_GEOMETRY = (0.99, 0.99, 1.0, 1.0, math.radians(135))
"""The largest amounts: slopes, shares of the side, and an angle."""


def affine(kind: Tensor, amount: Tensor, size: torch.Size) -> Tensor:
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


def resample(x: Tensor, affine: Tensor) -> Tensor:
    """Bilinear samples of `x` at affine images of its own grid, reflected at the border; channels last in memory."""
    return sampled(x, F.affine_grid(affine, [len(x), 1, *x.shape[-2:]], align_corners=False))
