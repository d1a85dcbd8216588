"""Residual networks for small images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.backbones._base import Backbone
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["ResNet", "Shortcut", "Stem", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]

Stem = Literal["auto", "small", "large"]
Shortcut = Literal["A", "B"]


class _Stem(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, large: bool) -> None:
        super().__init__()
        kernel, stride = (7, 2) if large else (3, 1)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.pool: nn.Module = nn.MaxPool2d(3, 2, padding=1) if large else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.relu(self.norm(self.conv(x))))


class _PaddedIdentity(nn.Module):
    """Option A: every second pixel, and zeros for the channels that the input does not have."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        missing = out_channels - in_channels
        # Zeros on both sides, as the reference implementations place them; published weights depend on it.
        self.padding = (0, 0, 0, 0, missing // 2, missing - missing // 2)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class _Projection(nn.Module):
    """Option B: a strided 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class _ResidualBlock(nn.Module):
    # Nothing is done in place, and each activation is a module of its own: whoever holds or hooks the input or the
    # output of a block finds it as it was.
    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = _PaddedIdentity(in_channels, out_channels, stride)
        else:
            self.shortcut = _Projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


class ResNet(Backbone):
    r"""Residual network of three stages for small images.

    He, Zhang, Ren and Sun, *Deep Residual Learning for Image Recognition* (CVPR 2016), section 4.2. A block computes

    .. math::
        y = \mathrm{relu}(F(x) + s(x)), \quad F = \mathrm{bn} \circ \mathrm{conv} \circ \mathrm{relu} \circ
        \mathrm{bn} \circ \mathrm{conv}

    with 3x3 convolutions. The shortcut s is the identity, save in the first block of stages two and three, which halve
    the grid and double the channels. Weights are drawn as in He et al., *Delving Deep into Rectifiers* (2015).

    Block 0 is the stem; each residual block is one of the others. The stages have (depth - 2) / 6 residual blocks each.

    Args:
        depth: number of weighted layers, the classifier's included: 6n + 2, n >= 1.
        in_channels: channels of the images, 3 by default.
        width: channels of the first stage, 16 by default; the features have 4 times as many.
        stem: "small" is a 3x3 convolution, as in the paper; "large" is the 7x7 convolution of stride 2 and max pooling
            of the paper's ImageNet networks; "auto" (default) is large for images of more than 64 pixels.
        shortcut: where shapes change, "A" (default, the paper's choice here) drops every second pixel and pads the
            channels with zeros; "B" is a 1x1 convolution.
        image_size: side of the images in pixels, 32 by default; only the automatic stem looks at it.

    Shapes:
        images float `[N, C, H, W]` to features `[N, 4 * width]`; any H and W from 1 up.

    Raises:
        ConfigError: a depth that is not 6n + 2, a size that is not positive, an unknown stem or shortcut.

    Example:
        >>> import torch
        >>> from repertoire.backbones import ResNet
        >>> net = ResNet(20, in_channels=1, width=8)
        >>> net(torch.zeros(2, 1, 28, 28)).shape, len(net.blocks), net.stage_ends
        (torch.Size([2, 32]), 10, [3, 6, 9])
    """

    stem = 1

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        width: int = 16,
        stem: Stem = "auto",
        shortcut: Shortcut = "A",
        image_size: int = 32,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ConfigError(f"depth is {depth}; expected 6n + 2 with n >= 1, such as 20, 32, 44, 56 or 110")
        for name, value in (("in_channels", in_channels), ("width", width), ("image_size", image_size)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; expected 1 or more")
        if stem not in ("auto", "small", "large"):
            raise ConfigError(f"stem is {stem!r}; expected 'auto', 'small' or 'large'")
        if shortcut not in ("A", "B"):
            raise ConfigError(f"shortcut is {shortcut!r}; expected 'A' or 'B'")
        per_stage = (depth - 2) // 6
        blocks: list[nn.Module] = [_Stem(in_channels, width, stem == "large" or (stem == "auto" and image_size > 64))]
        channels = width
        for stage in range(3):
            out = width * 2**stage
            for index in range(per_stage):
                blocks.append(_ResidualBlock(channels, out, 2 if stage and not index else 1, shortcut))
                channels = out
        self.blocks = nn.ModuleList(blocks)
        self.stage_ends = [per_stage * (stage + 1) for stage in range(3)]
        self.in_channels = in_channels
        self.out_features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def public_names(self) -> dict[str, str]:
        """Our name of each tensor to the one that it is published under, such as `layer1.0.conv1.weight`."""
        per_stage = self.stage_ends[0]
        names = {}
        for ours in self.state_dict():
            _, block, part, *rest = ours.split(".")
            part = part.replace("norm", "bn").replace("shortcut", "downsample")
            if part == "downsample":
                rest[0] = {"conv": "0", "norm": "1"}[rest[0]]
            if int(block):
                stage, index = divmod(int(block) - 1, per_stage)
                prefix = f"layer{stage + 1}.{index}.{part}"
            else:
                prefix = f"{part}1"
            names[ours] = ".".join([prefix, *rest])
        return names


@register("backbones", "resnet20")
def resnet20(
    in_channels: int = 3, image_size: int = 32, width: int = 16, stem: Stem = "auto", shortcut: Shortcut = "A"
) -> ResNet:
    """Residual network of 20 layers for small images: 0.27 M parameters at the paper's width.

    See :class:`repertoire.backbones.ResNet` for the paper and the network.

    Args:
        in_channels, image_size: of the images.
        width: channels of the first stage; the paper's is 16.
        stem: "small", "large", or "auto" by the image size.
        shortcut: "A" (the paper's, without parameters) or "B" (1x1 convolutions).

    Example:
        >>> from repertoire.backbones import resnet20
        >>> resnet20(in_channels=3, image_size=32).out_features
        64
    """
    return ResNet(20, in_channels, width, stem, shortcut, image_size)


@register("backbones", "resnet32")
def resnet32(
    in_channels: int = 3, image_size: int = 32, width: int = 16, stem: Stem = "auto", shortcut: Shortcut = "A"
) -> ResNet:
    """Residual network of 32 layers for small images: 0.46 M parameters at the paper's width.

    See :class:`repertoire.backbones.ResNet` for the paper and the network.

    Args:
        in_channels, image_size: of the images.
        width: channels of the first stage; the paper's is 16.
        stem: "small", "large", or "auto" by the image size.
        shortcut: "A" (the paper's, without parameters) or "B" (1x1 convolutions).

    Example:
        >>> from repertoire.backbones import resnet32
        >>> len(resnet32().blocks)
        16
    """
    return ResNet(32, in_channels, width, stem, shortcut, image_size)


@register("backbones", "resnet44")
def resnet44(
    in_channels: int = 3, image_size: int = 32, width: int = 16, stem: Stem = "auto", shortcut: Shortcut = "A"
) -> ResNet:
    """Residual network of 44 layers for small images: 0.66 M parameters at the paper's width.

    See :class:`repertoire.backbones.ResNet` for the paper and the network.

    Args:
        in_channels, image_size: of the images.
        width: channels of the first stage; the paper's is 16.
        stem: "small", "large", or "auto" by the image size.
        shortcut: "A" (the paper's, without parameters) or "B" (1x1 convolutions).

    Example:
        >>> from repertoire.backbones import resnet44
        >>> len(resnet44().blocks)
        22
    """
    return ResNet(44, in_channels, width, stem, shortcut, image_size)


@register("backbones", "resnet56")
def resnet56(
    in_channels: int = 3, image_size: int = 32, width: int = 16, stem: Stem = "auto", shortcut: Shortcut = "A"
) -> ResNet:
    """Residual network of 56 layers for small images: 0.85 M parameters at the paper's width.

    See :class:`repertoire.backbones.ResNet` for the paper and the network.

    Args:
        in_channels, image_size: of the images.
        width: channels of the first stage; the paper's is 16.
        stem: "small", "large", or "auto" by the image size.
        shortcut: "A" (the paper's, without parameters) or "B" (1x1 convolutions).

    Example:
        >>> from repertoire.backbones import resnet56
        >>> len(resnet56().blocks)
        28
    """
    return ResNet(56, in_channels, width, stem, shortcut, image_size)


@register("backbones", "resnet110")
def resnet110(
    in_channels: int = 3, image_size: int = 32, width: int = 16, stem: Stem = "auto", shortcut: Shortcut = "A"
) -> ResNet:
    """Residual network of 110 layers for small images: 1.7 M parameters at the paper's width.

    See :class:`repertoire.backbones.ResNet` for the paper and the network.

    Args:
        in_channels, image_size: of the images.
        width: channels of the first stage; the paper's is 16.
        stem: "small", "large", or "auto" by the image size.
        shortcut: "A" (the paper's, without parameters) or "B" (1x1 convolutions).

    Example:
        >>> from repertoire.backbones import resnet110
        >>> len(resnet110().blocks)
        55
    """
    return ResNet(110, in_channels, width, stem, shortcut, image_size)
