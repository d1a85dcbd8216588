"""What a pretrained network expects of its images."""

from __future__ import annotations

from dataclasses import dataclass, replace

from repertoire.errors import ConfigError

__all__ = ["Preset"]


@dataclass(frozen=True)
class Preset:
    """Size and normalisation of the images that a network's weights were trained on.

    A network that is fed with others still computes something, only worse; so the weights bring these along.

    Attributes:
        mean, std: one number a channel, on the scale of images in [0, 1]: the network takes (image - mean) / std.
        size: side of the images in pixels. Other sizes are allowed where the network allows them.
        interpolation: how images are resized to it: "bicubic", "bilinear", "nearest", "lanczos", "box" or "hamming".
        crop: the share of the side that is kept: the image is resized to size / crop, and its centre cut out.
        source: a sentence that says where the weights are from.

    Raises:
        ConfigError: mean and std of different lengths, or a number out of range.

    Example:
        >>> from repertoire.backbones import Preset
        >>> rgb = Preset((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), size=224, source="Trained on ImageNet-1k.")
        >>> rgb.interpolation, rgb.crop
        ('bicubic', 0.875)
        >>> rgb.for_channels(1).mean
        (0.449,)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    interpolation: str = "bicubic"
    crop: float = 0.875
    source: str = ""

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise ConfigError(f"mean has {len(self.mean)} channels and std {len(self.std)}; expected as many of both")
        if not all(value > 0 for value in self.std):
            raise ConfigError(f"std is {list(self.std)}; expected positive numbers")
        if self.size < 1:
            raise ConfigError(f"size is {self.size}; expected 1 or more")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"crop is {self.crop}; expected a share above 0, at most 1")

    def for_channels(self, channels: int) -> Preset:
        """The same for images of another number of channels: each gets the mean of the constants."""
        if channels == len(self.mean):
            return self
        mean, std = (round(sum(values) / len(values), 6) for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)
