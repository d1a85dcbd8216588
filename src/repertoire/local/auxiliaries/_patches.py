"""A small convolutional network on patches of the block's maps."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from repertoire.errors import ConfigError
from repertoire.local.auxiliaries._base import Auxiliary, Site, pooled
from repertoire.registry import register

__all__ = ["Patches"]


@register("auxiliaries", "patches")
class Patches(Auxiliary):
    """Cuts the maps into patches, each of which becomes one position of a small convolutional network.

    An auxiliary network has to be small, so that it cannot work at the resolution of early blocks. `conv` (Belilovsky,
    Eickenberg and Oyallon, *Greedy Layerwise Learning Can Scale to ImageNet*, ICML 2019) averages the maps down before
    its convolutions: whatever lies between the pixels of the small maps is lost to them, so the block is not asked to
    keep it. Here the first layer is a convolution with a stride as large as its kernel, as vision transformers begin
    (Dosovitskiy et al., *An Image is Worth 16x16 Words*, 2021): it sees every pixel and costs little more than the
    average. Then come 3x3 convolutions, the first of them with stride two. On CIFAR-10 images this gave back half of
    the accuracy that four blocks with `conv:depth=1` lose against back-propagation, at nine tenths of its speed (the
    page on performance has the numbers).

    Where the block has no grid (vectors, single tokens), all layers are linear.

    Args:
        site: where the network stands.
        depth: number of convolutions, the first on patches, each with batch normalisation and ReLU; 3 by default.
        channels: of all convolutions but the first; 96 by default.
        stem: channels of the first; 64 by default.
        side: positions along each side, about: the patches have the size that comes nearest. 8 by default.

    Raises:
        ConfigError: an option is not positive.

    Example:
        >>> import torch
        >>> from repertoire.local import LocalLearning
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3),
        ...                           torch.nn.Flatten(), torch.nn.Linear(7200, 10))
        >>> learner = LocalLearning(net, 2, "patches", lambda block: torch.optim.SGD(block.parameters(), lr=0.1),
        ...                         example=torch.zeros(2, 3, 32, 32))
        >>> learner.auxiliaries[0].layers[0]
        Conv2d(8, 64, kernel_size=(4, 4), stride=(4, 4), bias=False)
    """

    def __init__(self, site: Site, depth: int = 3, channels: int = 96, stem: int = 64, side: int = 8) -> None:
        for name, value in (("depth", depth), ("channels", channels), ("stem", stem), ("side", side)):
            if value < 1:
                raise ConfigError(f"patches: {name} is {value}; expected 1 or more")
        own, *grid = site.grid
        widths = [own, stem, *[channels] * (depth - 1)]
        super().__init__(site, widths[-1])
        self._maps = site.maps
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            if not grid:
                layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
                continue
            convolution = _on_patches(before, after, grid, side) if index == 0 else _plain(before, after, index == 1)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def embed(self, x: Tensor) -> Tensor:
        return pooled(self.layers(self._maps(x)))


def _on_patches(before: int, after: int, grid: list[int], side: int) -> nn.Conv2d:
    """Each patch becomes a position; maps that are small already get a 3x3 convolution."""
    patch = [max(1, round(length / side)) for length in grid]
    if max(patch) == 1:
        return _plain(before, after, halving=False)
    # Zeros around the maps, so that the patches at the edges are whole and no pixel is left out.
    padding = [-(length % -size) for length, size in zip(grid, patch, strict=True)]
    around = (-(padding[0] // -2), -(padding[1] // -2))
    return nn.Conv2d(before, after, (patch[0], patch[1]), (patch[0], patch[1]), around, bias=False)


def _plain(before: int, after: int, halving: bool) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, 2 if halving else 1, 1, bias=False)
