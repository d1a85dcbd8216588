"""A small convolutional network that trains in seconds."""

from __future__ import annotations

from torch import Tensor, nn

from repertoire.backbones._base import Backbone
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["ConvNet"]


class _ConvBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, halve: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        # Rounded up, a map of one pixel stays one: images smaller than the network was built for pass too.
        self.pool: nn.Module = nn.MaxPool2d(2, ceil_mode=True) if halve else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.relu(self.norm(self.conv(x))))


@register("backbones", "convnet")
class ConvNet(Backbone):
    """Small plain convolutional network, for images from 8 pixels up.

    In the style of Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition* (ICLR
    2015), but narrower: each block is a 3x3 convolution, batch normalisation, ReLU and, while the grid stays at 4x4 or
    more, 2x2 max pooling. The channels double from block to block. Every block is a stage.

    Args:
        in_channels: channels of the images, 3 by default.
        image_size: side of the images in pixels, 32 by default; smaller images are pooled fewer times.
        width: channels of the first block, 32 by default.
        depth: number of blocks, 4 by default.

    Shapes:
        images float `[N, C, H, W]` to features `[N, width * 2 ** (depth - 1)]`.

    Raises:
        ConfigError: a size that is not positive, or a depth that is not 1 to 8.

    Example:
        >>> import torch
        >>> from repertoire.backbones import ConvNet
        >>> net = ConvNet(in_channels=1, image_size=8)
        >>> net(torch.zeros(2, 1, 8, 8)).shape, net.forward_map(torch.zeros(2, 1, 8, 8)).shape
        (torch.Size([2, 256]), torch.Size([2, 256, 4, 4]))
    """

    def __init__(self, in_channels: int = 3, image_size: int = 32, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("image_size", image_size), ("width", width)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; expected 1 or more")
        if not 1 <= depth <= 8:
            raise ConfigError(f"depth is {depth}; expected 1 to 8, since each block doubles the channels")
        blocks: list[nn.Module] = []
        channels, side = in_channels, image_size
        for index in range(depth):
            out, halve = width * 2**index, side >= 8
            blocks.append(_ConvBlock(channels, out, halve))
            channels, side = out, side // 2 if halve else side
        self.blocks = nn.ModuleList(blocks)
        self.stage_ends = list(range(depth))
        self.in_channels = in_channels
        self.out_features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
