"""The class of every pixel."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.heads._base import Head
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["Dense"]


@register("heads", "dense")
class Dense(Head):
    """Linear classifier of every place of the last maps, brought to the size of the target: maps of logits.

    Long, Shelhamer and Darrell, *Fully Convolutional Networks for Semantic Segmentation* (2015), without their sums
    over several stages (FCN-32s on a network of stride 32): a convolution with a kernel of one pixel, then bilinear
    interpolation, which is not learned. How fine the answer can be is a question of the backbone's stride.

    Args:
        in_features: d, width of the maps.
        num_classes: K.
        image_size: side of the logits where no target says how large they are; that of the maps if None. A run gives
            the side of its images.
        zero: begin with weights of 0, as suits a head on pretrained maps.

    Shapes:
        maps float `[N, d, h, w]` to logits `[N, K, H, W]`, H and W being those of the targets `[N, H, W]`, or
        `image_size`. Pooled features `[N, d]` are one place each: logits `[N, K]`.

    Raises:
        ConfigError: `image_size` is less than 1. ShapeError: maps of another width.

    Example:
        >>> import torch
        >>> from repertoire.heads import Dense
        >>> Dense(8, 3, image_size=32)(torch.randn(2, 8, 4, 4)).shape
        torch.Size([2, 3, 32, 32])
    """

    takes_maps = True
    dense = True

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        image_size: Annotated[int, AtLeast(1)] | None = None,
        zero: bool = False,
    ) -> None:
        super().__init__(in_features, num_classes)
        self.linear = nn.Linear(in_features, num_classes)
        self.image_size = image_size
        self.per_class = ("linear.weight", "linear.bias")
        if zero:
            for parameter in self.linear.parameters():
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, K, H, W]` of maps `[N, d, h, w]`; of targets `[N, H, W]`, only their size is looked at."""
        if features.ndim != 4:
            self.check_features(features)
            return self.linear(features)
        if features.shape[1] != self.in_features or not features.is_floating_point():
            raise ShapeError(
                f"maps must be a floating point [N, {self.in_features}, h, w], found {features.dtype} "
                f"{list(features.shape)}"
            )
        logits = F.conv2d(features, self.linear.weight[:, :, None, None], self.linear.bias)
        size = None if self.image_size is None else (self.image_size, self.image_size)
        if targets is not None and targets.ndim == 3:
            size = (targets.shape[1], targets.shape[2])
        if size is None or size == tuple(logits.shape[2:]):
            return logits
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)
