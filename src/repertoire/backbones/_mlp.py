"""A multilayer perceptron over pixels."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from repertoire.backbones._base import Backbone
from repertoire.errors import ConfigError, ShapeError
from repertoire.registry import register

__all__ = ["MLP"]


class _DenseBlock(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.norm = nn.BatchNorm1d(out_features)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        # Images are flattened here rather than in a block of their own: every block has something to learn.
        if x.dim() == 4:
            if x.shape[1:].numel() != self.linear.in_features:
                raise ShapeError(
                    f"images are {list(x.shape)}, {x.shape[1:].numel()} numbers each; this mlp was built for "
                    f"{self.linear.in_features}: set in_channels and image_size to those of the images"
                )
            x = x.flatten(1)
        return self.relu(self.norm(self.linear(x)))


@register("backbones", "mlp")
class MLP(Backbone):
    """Multilayer perceptron over the pixels of the image.

    Each block is a linear layer, batch normalisation and ReLU; the first one flattens the images. Weights are drawn as
    in He et al., *Delving Deep into Rectifiers* (2015). Every block is a stage, and its features are a map of 1x1.

    Args:
        in_channels: channels of the images, 3 by default.
        image_size: side of the images in pixels, 32 by default.
        hidden: width of every layer, 512 by default.
        depth: number of layers, 2 by default.

    Shapes:
        images float `[N, C, image_size, image_size]` to features `[N, hidden]`.

    Raises:
        ConfigError: a size that is not positive.
        ShapeError: images of another size, in the forward pass.

    Example:
        >>> import torch
        >>> from repertoire.backbones import MLP
        >>> MLP(in_channels=1, image_size=8, hidden=64)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """

    def __init__(self, in_channels: int = 3, image_size: int = 32, hidden: int = 512, depth: int = 2) -> None:
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("image_size", image_size),
            ("hidden", hidden),
            ("depth", depth),
        ):
            if value < 1:
                raise ConfigError(f"{name} is {value}; expected 1 or more")
        widths = [in_channels * image_size**2] + [hidden] * depth
        self.blocks = nn.ModuleList(_DenseBlock(a, b) for a, b in itertools.pairwise(widths))
        self.stage_ends = list(range(depth))
        self.in_channels = in_channels
        self.out_features = hidden
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def grid(self, x: Tensor) -> Tensor:
        """Features `[N, d]` as maps `[N, d, 1, 1]`."""
        return x[:, :, None, None]

    def pool(self, x: Tensor) -> Tensor:
        """The features themselves."""
        return x
