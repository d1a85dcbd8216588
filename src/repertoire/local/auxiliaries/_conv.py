"""A small convolutional auxiliary network."""

from __future__ import annotations

from torch import Tensor, nn

from repertoire.errors import ConfigError
from repertoire.local.auxiliaries._base import Auxiliary, Site, averaged, pooled
from repertoire.registry import register

__all__ = ["ConvReadout"]


@register("auxiliaries", "conv")
class ConvReadout(Auxiliary):
    """A few 3x3 convolutions on maps that were averaged down first, then a linear classifier: cheap, and seldom bad.

    Belilovsky, Eickenberg and Oyallon, *Greedy Layerwise Learning Can Scale to ImageNet* (ICML 2019), train blocks
    with such networks of one to three layers. Averaging the maps down before the convolutions costs little accuracy,
    and most of the time that they would take is saved. Where the block has no grid (vectors, single tokens), the
    convolutions are linear layers.

    Args:
        site: where the network stands.
        depth: number of convolutions, each with batch normalisation and ReLU; 2 by default.
        channels: of the convolutions; by default four times the block's own, at most 64 or the block's own if larger.
        size: side that maps are averaged down to, in pixels; 8 by default.

    Raises:
        ConfigError: an option is not positive.

    Example:
        >>> import torch
        >>> from repertoire.local import LocalLearning
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3),
        ...                           torch.nn.Flatten(), torch.nn.Linear(6272, 10))
        >>> learner = LocalLearning(net, 2, "conv:depth=1", lambda block: torch.optim.SGD(block.parameters(), lr=0.1),
        ...                         example=torch.zeros(2, 3, 32, 32))
        >>> learner.auxiliaries[0].width
        32
    """

    def __init__(self, site: Site, depth: int = 2, channels: int | None = None, size: int = 8) -> None:
        for name, value in (("depth", depth), ("channels", channels), ("size", size)):
            if value is not None and value < 1:
                raise ConfigError(f"conv: {name} is {value}; expected 1 or more")
        own, *grid = site.grid
        channels = channels or max(own, min(4 * own, 64))
        super().__init__(site, channels)
        self._maps = site.maps
        self.side = tuple(min(size, side) for side in grid)
        layers: list[nn.Module] = []
        for index in range(depth):
            width = own if index == 0 else channels
            if grid:
                layers += [nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            else:
                layers += [nn.Linear(width, channels, bias=False), nn.BatchNorm1d(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def embed(self, x: Tensor) -> Tensor:
        x = self._maps(x)
        if self.side and tuple(x.shape[2:]) != self.side:
            x = averaged(x, (self.side[0], self.side[1]))
        return pooled(self.layers(x))
