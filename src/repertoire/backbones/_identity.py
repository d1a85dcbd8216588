"""No network: for features that another one has made."""

from __future__ import annotations

from torch import Tensor, nn

from repertoire.backbones._base import Backbone
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["Identity"]


@register("backbones", "identity")
class Identity(Backbone):
    """Gives vectors of features `[N, d]` back as they are, so that only a head is trained on them.

    What `repertoire train features.npz` takes where no backbone is named; `mlp` trains a network on the features.

    Args:
        in_channels: d, width of the features.
        image_size: 1 for features; images are refused.

    Raises:
        ConfigError: the inputs are images.

    Example:
        >>> import torch
        >>> from repertoire.backbones import Identity
        >>> Identity(3)(torch.ones(1, 3))
        tensor([[1., 1., 1.]])
    """

    modality = "features"
    """What it takes; networks take images."""

    def __init__(self, in_channels: int, image_size: int = 1) -> None:
        super().__init__()
        if image_size != 1:
            raise ConfigError("backbone 'identity' is for vectors of features, and these are images: name a network")
        self.blocks = nn.ModuleList([nn.Identity()])
        self.stage_ends = [0]
        self.in_channels = in_channels
        self.out_features = in_channels

    def pool(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def grid(self, x: Tensor) -> Tensor:
        """The features as maps of one pixel, `[N, d, 1, 1]`."""
        return x[:, :, None, None] if x.ndim == 2 else x
