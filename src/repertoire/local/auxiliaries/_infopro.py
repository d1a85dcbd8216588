"""Information propagation: a block must keep what the image can be rebuilt from."""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local.auxiliaries._base import Auxiliary, LocalLoss, Site, averaged, judged, pooled
from repertoire.losses import SupCon
from repertoire.methods import Step, on_features
from repertoire.registry import register

__all__ = ["InfoPro"]


@register("auxiliaries", "infopro")
class InfoPro(Auxiliary):
    r"""A classifier and a decoder: early blocks keep the image, late ones the class.

    Wang, Ni, Song, Yang and Huang, *Revisiting Locally Supervised Learning: an Alternative to End-to-end Training*
    (ICLR 2021). A block that minimises the classification loss alone throws information away which later blocks would
    have made something of. Block k of K minimises, with the decoder w and the classifier a,

    .. math:: \lambda^1_k\, \mathcal R\big(w(h_k), x\big) + \lambda^2_k\, \ell\big(a(h_k), y\big)

    where the weights change linearly from the first block to the last but one. The decoder enlarges the maps to the
    size of the image and applies two 3x3 convolutions with 12 channels between them; the reconstruction error is the
    binary cross-entropy of pixels in [0, 1]. The classifier is a 3x3 convolution (of stride 2 on maps of more than 8
    pixels), global average, a layer of 128 and a linear one. The supervised term is the method's own loss, or, with
    `contrast`, the supervised contrastive loss with temperature 0.07 of the layer of 128, which the paper found the
    better one; the linear layer then learns from detached features, for the exit.

    HPFF (Su, He, Zhu, Xu, Guan and Si, *HPFF: Hierarchical Locally Supervised Learning with Patch Feature Fusion*, ECCV
    2024) is released with decoders for patches: with `patches` of n, maps and image are cut into n x n parts, and each
    part of the maps is decoded by weights of its own into its part of the image. The error is the mean over all pixels,
    as without patches; the released code adds up the means of its four. Its cascades of two blocks are `overlap` of a
    local rule, and its features of patches the auxiliary network `hpff`.

    Blocks without a grid, and inputs that are not images, get a decoder of two linear layers. With `contrast` samples
    are compared within the batch, which cannot be accumulated from pieces.

    Args:
        site: where the network stands.
        reconstruction: lambda 1 of the first block and of the last but one; (5, 0.5) by default. The paper tunes these
            and the following two numbers for each network and number of blocks; the defaults lie within its range.
        supervised: lambda 2 of the first block and of the last but one; (0.5, 1) by default.
        contrast: whether the contrastive loss replaces a loss on logits.
        error: of the reconstruction: "bce" (default), or "mse" for inputs that do not lie in [0, 1].
        size: side, in pixels, of the images that are rebuilt; larger ones are averaged down, because the decoder works
            at their size. 32 by default, the size of most of the paper's; None for the image's own.
        patches: n, parts along each side that are decoded apart; 1 (default) for the paper's one decoder, 2 in HPFF.

    Raises:
        ConfigError: an option out of range; patches of maps or images that have no grid, or fewer pixels; at a step,
            images outside of [0, 1] with "bce" (on a GPU this is not looked at).

    Example:
        >>> import torch
        >>> from repertoire.local import LocalLearning
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3),
        ...                           torch.nn.Flatten(), torch.nn.Linear(6272, 10))
        >>> learner = LocalLearning(net, 2, "infopro", lambda block: torch.optim.SGD(block.parameters(), lr=0.1),
        ...                         example=torch.zeros(2, 3, 32, 32))
        >>> sorted(learner.step(torch.rand(4, 3, 32, 32), torch.arange(4)))
        ['accuracy', 'block1_accuracy', 'block1_loss', 'block1_reconstruction_loss', 'loss']
    """

    looks_at_images = True

    def __init__(
        self,
        site: Site,
        reconstruction: tuple[float, float] = (5.0, 0.5),
        supervised: tuple[float, float] = (0.5, 1.0),
        contrast: bool = False,
        error: Literal["bce", "mse"] = "bce",
        size: int | None = 32,
        patches: int = 1,
    ) -> None:
        for name, weights in (("reconstruction", reconstruction), ("supervised", supervised)):
            if min(weights) < 0:
                raise ConfigError(f"infopro: {name} is {weights}; expected two numbers of 0 or more")
        if size is not None and size < 1:
            raise ConfigError(f"infopro: size is {size}; expected 1 or more pixels")
        if patches < 1:
            raise ConfigError(f"infopro: patches is {patches}; expected 1 or more")
        channels, *grid = site.grid
        super().__init__(site, 128)
        self._maps = site.maps
        share = site.index / (site.count - 2) if site.count > 2 else 0.0
        self.reconstruction = (1 - share) * reconstruction[0] + share * reconstruction[1]
        self.supervised = (1 - share) * supervised[0] + share * supervised[1]
        self.contrast = SupCon(temperature=0.07) if contrast else None
        self.per_sample = not contrast
        self.error = error
        between = max(channels, min(2 * channels, 64))
        if grid:
            stride = 2 if min(grid) > 8 else 1
            first: nn.Module = nn.Conv2d(channels, between, 3, stride, padding=1, bias=False)
            norm: nn.Module = nn.BatchNorm2d(between)
        else:
            first, norm = nn.Linear(channels, between, bias=False), nn.BatchNorm1d(between)
        self.layers = nn.Sequential(first, norm, nn.ReLU())
        self.hidden = nn.Sequential(nn.Linear(between, 128), nn.ReLU())
        self.picture = _picture(site.image, size)
        decoded = _decoder if patches == 1 else functools.partial(_Patchwise, patches, grid)
        self.decoder = decoded(channels, len(grid) == 2 and grid != [1, 1], self.picture)

    def embed(self, x: Tensor) -> Tensor:
        return self.hidden(pooled(self.layers(self._maps(x))))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Decodes a block's output into images `[N, C, size, size]`, as logits with "bce"."""
        return self.decoder(self._maps(x))

    def objective(self, x: Tensor, batch: Batch, loss: LocalLoss) -> Step:
        if self.contrast is not None and not on_features(loss):
            loss = self.contrast
        step = judged(self.classifier, self.embed(x), batch, loss)
        found = self.reconstruct(x)
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        wanted = self._wanted(batch).to(found.dtype)
        if self.error == "bce":
            rebuilt = F.binary_cross_entropy_with_logits(found, wanted)
        else:
            rebuilt = F.mse_loss(found, wanted)
        total = self.reconstruction * rebuilt + self.supervised * step.loss
        return Step(total, {**step.logs, "reconstruction_loss": rebuilt.detach()})

    @torch.no_grad()
    def _wanted(self, batch: Batch) -> Tensor:
        images = torch.cat(batch.views) if len(batch.views) > 1 else batch.images
        if self.error == "bce" and images.device.type == "cpu":
            low, high = images.aminmax()
            if low < 0 or high > 1:
                raise ConfigError(
                    f"infopro: the images have values from {float(low):.3g} to {float(high):.3g}, and a binary "
                    "cross-entropy needs [0, 1]; use infopro:error=mse, or leave the normalisation to the network"
                )
        if images.dim() == 4 and tuple(images.shape[1:]) != self.picture:
            images = averaged(images, (self.picture[1], self.picture[2]))
        return images


class _Pooled(nn.Module):
    """Averages over the grid."""

    def forward(self, x: Tensor) -> Tensor:
        return pooled(x)


class _Patchwise(nn.Module):
    """A decoder for each of n x n parts of the maps, which makes that part of the image."""

    def __init__(self, patches: int, grid: list[int], channels: int, maps: bool, picture: tuple[int, ...]) -> None:
        super().__init__()
        if not maps or len(picture) != 3 or min(*grid, *picture[1:]) < patches:
            raise ConfigError(
                f"infopro: patches is {patches}, and maps of {grid} or an image of {list(picture)} cannot be cut into "
                f"{patches} x {patches} parts; use patches=1"
            )
        self.patches = patches
        rows, columns = (_lengths(side, patches) for side in picture[1:])
        self.decoders = nn.ModuleList(
            [_decoder(channels, True, (picture[0], row, column)) for row in rows for column in columns]
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = [part for row in x.tensor_split(self.patches, 2) for part in row.tensor_split(self.patches, 3)]
        found = [decoder(part) for decoder, part in zip(self.decoders, parts, strict=True)]
        starts = range(0, len(found) + 1, self.patches)
        return torch.cat([torch.cat(found[a:b], 3) for a, b in pairwise(starts)], 2)


def _lengths(side: int, parts: int) -> list[int]:
    """Lengths of the parts of a side, as `tensor_split` cuts them."""
    return [side // parts + (index < side % parts) for index in range(parts)]


def _picture(image: tuple[int, ...], size: int | None) -> tuple[int, ...]:
    """The shape that is rebuilt."""
    if size is None or len(image) != 3:
        return image
    return (image[0], min(image[1], size), min(image[2], size))


def _decoder(channels: int, maps: bool, picture: tuple[int, ...]) -> nn.Sequential:
    if maps and len(picture) == 3:
        return nn.Sequential(
            nn.Upsample(picture[1:], mode="bilinear", align_corners=True),
            nn.Conv2d(channels, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, picture[0], 3, padding=1),
        )
    rebuilt = nn.Unflatten(1, picture)
    return nn.Sequential(_Pooled(), nn.Linear(channels, 128), nn.ReLU(), nn.Linear(128, math.prod(picture)), rebuilt)
