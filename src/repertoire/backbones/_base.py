"""The contract of backbones: an ordered list of blocks whose composition, pooled, is the network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.backbones._preset import Preset

__all__ = ["Backbone", "resize_positions"]


class Backbone(nn.Module):
    """Images float `[N, C, H, W]` to features `[N, d]`, as a list of blocks that can be cut anywhere.

    Exactly one tensor crosses from each block to the next, which is what lets local learning cut between blocks and
    explainers look at the output of any of them.

    Attributes:
        blocks: the blocks in order; `forward` is their composition, then `pool`.
        stage_ends: indices into `blocks`, increasing: the last block of each stage. The last one is the last block.
        stem: how many of the first blocks belong to no stage.
        in_channels: C, channels of the images.
        out_features: d, width of the features.
        preset: what the images have to look like for the weights that the network has; None for random weights, and
            where nobody knows. Whoever loads weights sets it.
        published: what published weights of this network expect, whether they are loaded or not; None if there are
            none.
    """

    blocks: nn.ModuleList
    stage_ends: list[int]
    stem: int = 0
    in_channels: int
    out_features: int
    preset: Preset | None = None
    published: Preset | None = None

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

    def stages(self, x: Tensor) -> list[Tensor]:
        """Outputs of the stages for images `[N, C, H, W]`: a pyramid of maps, the finest first.

        Maps `[N, C_s, h_s, w_s]` as `grid` has them; tokens `[N, T, d]` stay tokens, with whatever stands before them.

        Example:
            >>> import torch
            >>> from repertoire.backbones import resnet20
            >>> [tuple(maps.shape) for maps in resnet20().stages(torch.zeros(1, 3, 32, 32))]
            [(1, 16, 32, 32), (1, 32, 16, 16), (1, 64, 8, 8)]
        """
        outputs, ends = [], set(self.stage_ends)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in ends:
                outputs.append(x if x.dim() == 3 else self.grid(x))
        return outputs

    def groups(self) -> list[list[str]]:
        """The names of the parameters in groups: the stem, where there is one, then stage by stage.

        Each parameter is in exactly one group. What belongs to no block (a norm before pooling, say) goes with the last
        stage. `groups()[-k:]` is what learns when the last k stages do; the decay of the learning rate from layer to
        layer goes from the last group to the first.

        Example:
            >>> from repertoire.backbones import resnet20
            >>> [len(names) for names in resnet20().groups()]
            [3, 18, 18, 18]
        """
        ends = [*([self.stem - 1] if self.stem else []), *self.stage_ends]
        owner = {index: number for number, end in reversed([*enumerate(ends)]) for index in range(end + 1)}
        found: list[list[str]] = [[] for _ in ends]
        for name, _ in self.named_parameters():
            first, _, rest = name.partition(".")
            found[owner[int(rest.split(".", 1)[0])] if first == "blocks" else -1].append(name)
        return found

    def adapt_weight(self, name: str, tensor: Tensor, like: Tensor) -> Tensor | None:
        """A tensor of weights made to fit where the network has another shape for it, or None if that has no meaning.

        Networks override this for what depends on the size of the images. Here, the first convolution of weights for
        coloured images is added up over the colours for grey ones, and one for grey images is shared out to the
        colours: on grey images both networks compute the same.

        Args:
            name: of the network's own tensor.
            tensor: float, from a file.
            like: the network's own tensor.
        """
        stem = name.startswith("blocks.0.") and tensor.dim() == like.dim() == 4 and like.shape[1] == self.in_channels
        if not stem or tensor.shape[0] != like.shape[0] or tensor.shape[2:] != like.shape[2:]:
            return None
        if like.shape[1] == 1:
            return tensor.sum(1, keepdim=True)
        return tensor.expand_as(like) / like.shape[1] if tensor.shape[1] == 1 else None


def resize_positions(positions: Tensor, count: int, extras: tuple[int, ...]) -> Tensor | None:
    """Embeddings of positions `[1, T, d]` for a square grid of another size: bicubic interpolation, as timm does it.

    Args:
        positions: of a square grid, after those of some tokens that have no place in it.
        count: T of the result.
        extras: how many such tokens there may be; the first number that leaves a square on both sides counts.

    Returns:
        `[1, count, d]`, or None if no such number leaves squares.
    """
    for extra in extras:
        old, new = (math.isqrt(max(n - extra, 0)) for n in (positions.shape[1], count))
        if old and new and old**2 + extra == positions.shape[1] and new**2 + extra == count:
            grid = positions[:, extra:].float().transpose(1, 2).unflatten(2, (old, old))
            grid = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=True)
            resized = grid.flatten(2).transpose(1, 2).to(positions.dtype)
            return torch.cat([positions[:, :extra], resized], dim=1)
    return None
