"""The contract of backbones: an ordered list of blocks whose composition, pooled, is the network."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """Images float `[N, C, H, W]` to features `[N, d]`, as a list of blocks that can be cut anywhere.

    Exactly one tensor crosses from each block to the next, which is what lets local learning cut between blocks and
    explainers look at the output of any of them.

    Attributes:
        blocks: the blocks in order; `forward` is their composition, then `pool`.
        stage_ends: indices into `blocks`, increasing: the last block of each stage. The last one is the last block.
        in_channels: C, channels of the images.
        out_features: d, width of the features.
    """

    blocks: nn.ModuleList
    stage_ends: list[int]
    in_channels: int
    out_features: int

    def pool(self, x: Tensor) -> Tensor:
        """The last block's output to features `[N, d]`. Global average over the grid unless a network overrides it."""
        return self.grid(x).mean(dim=(2, 3))

    def grid(self, x: Tensor) -> Tensor:
        """A block's output as feature maps `[N, C, h, w]`. Token models reshape their tokens here."""
        return x

    def forward_map(self, x: Tensor) -> Tensor:
        """The last block's output, before pooling."""
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.forward_map(x))
