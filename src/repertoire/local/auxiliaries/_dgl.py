"""The auxiliary networks of decoupled greedy learning."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.local.auxiliaries._base import Auxiliary, Site, averaged
from repertoire.registry import register

__all__ = ["DGL"]

LARGEST = 2048
"""Width of the perceptron in the widest network of the paper; wider blocks get no wider one."""


@register("auxiliaries", "dgl")
class DGL(Auxiliary):
    """Maps averaged down by four, pointwise convolutions, then a perceptron on four pixels: little work, many weights.

    Belilovsky, Eickenberg and Oyallon, *Decoupled Greedy Learning of CNNs* (ICML 2020), compare three such networks:

    - "mlp-sr" (spatial resolution reduced): maps averaged down by four in each direction, three 1x1 convolutions,
      averages over a grid of 2x2, three fully connected layers;
    - "mlp": the averages over 2x2 and the three fully connected layers;
    - "cnn": two 3x3 convolutions on the maps as they are, then averages over 2x2.

    Each layer is followed by batch normalisation and ReLU, and the last by the linear classifier. Where the block has
    no grid (vectors), the convolutions are linear layers, and "mlp" and "mlp-sr" have one input a channel.

    Args:
        site: where the network stands.
        kind: "mlp-sr" (default), "mlp" or "cnn".
        width: of the fully connected layers; by default four times the block's channels, as in the released code, at
            most 2048.

    Raises:
        ConfigError: the width is not positive.

    Example:
        >>> import torch
        >>> from repertoire.local import LocalLearning
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3),
        ...                           torch.nn.Flatten(), torch.nn.Linear(6272, 10))
        >>> learner = LocalLearning(net, 2, "dgl", lambda block: torch.optim.SGD(block.parameters(), lr=0.1),
        ...                         example=torch.zeros(2, 3, 32, 32))
        >>> learner.auxiliaries[0].width
        32
    """

    def __init__(self, site: Site, kind: Literal["mlp-sr", "mlp", "cnn"] = "mlp-sr", width: int | None = None) -> None:
        if width is not None and width < 1:
            raise ConfigError(f"dgl: width is {width}; expected 1 or more")
        channels, *grid = site.grid
        if kind == "mlp-sr":
            grid = [-(-side // 4) for side in grid]
        pixels = min(2, grid[0]) * min(2, grid[1]) if grid else 1
        features = channels * pixels if kind == "cnn" else width or min(4 * channels, LARGEST)
        super().__init__(site, features)
        self._maps = site.maps
        self.side = (grid[0], grid[1]) if grid else None
        kernel = 3 if kind == "cnn" else 1
        layers: list[nn.Module] = []
        for _ in range({"mlp-sr": 3, "mlp": 0, "cnn": 2}[kind]):
            if grid:
                convolution = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
                layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
            else:
                layers += [nn.Linear(channels, channels, bias=False), nn.BatchNorm1d(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        perceptron: list[nn.Module] = []
        if kind == "cnn":
            perceptron = [nn.BatchNorm1d(features)]
        else:
            for index in range(3):
                inputs = features if index else channels * pixels
                perceptron += [nn.Linear(inputs, features, bias=False), nn.BatchNorm1d(features), nn.ReLU()]
        self.perceptron = nn.Sequential(*perceptron)

    def embed(self, x: Tensor) -> Tensor:
        x = self._maps(x)
        if x.dim() == 4:
            if self.side is not None and tuple(x.shape[2:]) != self.side:
                x = averaged(x, self.side)
            x = self.layers(x)
            x = F.adaptive_avg_pool2d(x, (min(2, x.shape[2]), min(2, x.shape[3])))
        else:
            x = self.layers(x)
        return self.perceptron(x.flatten(1))
