"""Patch feature fusion: an auxiliary network on each patch of the maps, whose features are averaged."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local.auxiliaries._auglocal import AugLocal
from repertoire.local.auxiliaries._base import Auxiliary, LocalLoss, Site, judged
from repertoire.methods import Step
from repertoire.registry import register

__all__ = ["HPFF"]


@register("auxiliaries", "hpff")
class HPFF(Auxiliary):
    r"""Cuts the maps into patches and reads each with the same small network; their features are averaged.

    Su, He, Zhu, Xu, Guan and Si, *HPFF: Hierarchical Locally Supervised Learning with Patch Feature Fusion* (ECCV
    2024). With P patches :math:`x_p` of the block's maps x, and the features e of the auxiliary network `base`,

    .. math:: e(x) = \frac 1P \sum_p e(x_p)

    are what its classifier sees: what many patches have in common counts most. Of the paper this is the patch feature
    fusion, as its abstract has it. The released code keeps to whole maps for the classifier, and cuts what InfoPro
    decodes, each patch with weights of its own: that is `infopro:patches=2`. The hierarchy is no matter of an auxiliary
    network. The paper's cascades, in which a loss trains two blocks at once, are `overlap` of a local rule as long as a
    block, as in `local:blocks=4,overlap=99,auxiliary=hpff`. The loss of each block alone, which the released code adds
    with a weight of 0.001 or leaves out, is left out; and the last cascade is read by an auxiliary network, where the
    paper's has the head of the network.

    The paper says that patches save memory. Where all of them are read at once, as here, they save none. A network
    that averages maps down before its convolutions, and features over all places after them (`conv`), is on four
    patches what it is on the whole at twice the `size`, but for the zeros at the edges of the patches.

    Where a side is no multiple of the number of patches, neighbours share pixels, so that all are as large; where the
    block has fewer positions, there are fewer patches, and one where it has no grid.

    Args:
        site: where the network stands.
        base: spec of the network that reads a patch, in parentheses if it has options: "linear", "conv" (default),
            "patches" or "dgl".
        grid: patches along each side; 2 by default, which makes four.

    Attributes:
        base: the network that reads a patch.
        side: height and width of a patch in positions; None where the block has no grid.

    Raises:
        ConfigError: the grid is not positive; or a base with a loss of its own, or one that is made of later units.

    Example:
        >>> import torch
        >>> from repertoire.local import LocalLearning
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3),
        ...                           torch.nn.Flatten(), torch.nn.Linear(7200, 10))
        >>> learner = LocalLearning(net, 2, "hpff:base=(conv:depth=1)", example=torch.zeros(2, 3, 32, 32),
        ...                         optimizer=lambda block: torch.optim.SGD(block.parameters(), lr=0.1))
        >>> learner.auxiliaries[0].side
        (16, 16)
    """

    def __init__(self, site: Site, base: str = "conv", grid: int = 2) -> None:
        if grid < 1:
            raise ConfigError(f"hpff: grid is {grid}; expected 1 or more patches along a side")
        channels, *sides = site.grid
        patch = tuple(-(-side // min(grid, side)) for side in sides)
        # What the base gets are maps already, so that it has nothing to turn into maps.
        read: Auxiliary = registry.build(
            "auxiliaries", base, site=replace(site, shape=(channels, *patch), maps=_same) if sides else site
        )
        if type(read).objective is not Auxiliary.objective or isinstance(read, AugLocal):
            raise ConfigError(
                f"hpff: {base} cannot read patches: it has a loss of its own, or is made of units that come later. Use "
                "linear, conv, patches or dgl as its base"
            )
        nn.Module.__init__(self)  # the classifier is the one of the base
        self.base = read
        self.width = read.width
        self._maps = site.maps
        self.side = (patch[0], patch[1]) if sides else None
        self._starts = [_starts(side, length) for side, length in zip(sides, patch, strict=True)]

    def embed(self, x: Tensor) -> Tensor:
        if self.side is None:
            return self.base.embed(x)
        x = self._maps(x)
        (rows, columns), (height, width) = self._starts, self.side
        patches = [x[:, :, row : row + height, column : column + width] for row in rows for column in columns]
        # All patches are one batch, so that normalisation sees them together.
        return torch.stack(self.base.embed(torch.cat(patches)).chunk(len(patches))).mean(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.base.classifier(self.embed(x))

    def check_loss(self, loss: LocalLoss) -> None:
        self.base.check_loss(loss)

    def objective(self, x: Tensor, batch: Batch, loss: LocalLoss) -> Step:
        return judged(self.base.classifier, self.embed(x), batch, loss)


def _same(x: Tensor) -> Tensor:
    return x


def _starts(side: int, length: int) -> list[int]:
    """Where patches begin that cover a side evenly."""
    count = -(-side // length)
    return [round(index * (side - length) / max(1, count - 1)) for index in range(count)]
