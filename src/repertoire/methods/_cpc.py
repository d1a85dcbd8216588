"""Contrastive predictive coding of images: the rows below are predicted from those above."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import cpc_loss
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._readout import read_out
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["CPC"]


class _RowsAbove(nn.Module):
    """A residual step of the context: each place of a grid sees its row and the row above, never one below."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(width, hidden, 1)
        self.across = nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1))
        self.down = nn.Conv2d(hidden, hidden, (2, 1))
        self.widen = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        within = self.across(F.relu(self.narrow(x)))
        return x + self.widen(F.relu(self.down(F.pad(within, (0, 0, 1, 0)))))


@register("methods", "cpc", paper="cpc")
class CPC(Method):
    r"""Contrastive predictive coding: pretraining without labels by predicting the rows below from those above.

    van den Oord et al., *Representation Learning with Contrastive Predictive Coding* (2018). The backbone sees
    overlapping patches of an image one by one, which gives a grid of latents z; a masked convolutional network makes a
    context c of each place from the rows down to its own; and the latents of the rows below, in the same column, are
    predicted as W_k c and have to be found among all latents of the batch
    (:func:`repertoire.losses.cpc_loss` has the formula). Context and predictors are thrown away afterwards.

    As in the appendix of the paper, scores compare `dimensions` linear combinations of the latents. The first row that
    is predicted shares no pixel with that of the context. The pseudo-code of the paper begins one row later, has five
    residual steps of the context, and predictions a tenth as large (`temperature=10`); its network has no batch
    normalisation, through which the patches of an image can know of each other.

    Whole images are embedded by the backbone as always, and the read-out learns from them.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        latents: "patches" (default), as in the paper, for backbones that take images of any size; or "map", the places
            of the backbone's last map, which costs no more than one pass, but the places see much of each other.
        patch: side of a patch in pixels; a quarter of the image's if None, as in the paper.
        stride: pixels from patch to patch; half a patch if None, as in the paper: a grid of 7 x 7.
        steps: how many rows are predicted from each context; of those that lie within the grid.
        first: how many rows below the context's own the first of them lies; if None, the first without a shared pixel
            for patches and 1 for a map.
        dimensions: width of what is predicted.
        hidden: channels of the context network.
        layers: residual steps of the context network, each of which sees a row further up.
        temperature: tau, positive.

    Raises:
        ConfigError: a number that is not positive, or in the first step a grid that has no rows to predict or a
            backbone that takes no patches.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import CPC, Classifier, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = CPC(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)), hidden=8)
        >>> step = method.step(Batch((torch.rand(4, 1, 8, 8),), torch.full((4,), -1), torch.arange(4)))
        >>> sorted(step.logs)
        ['accuracy', 'loss', 'readout_loss']
    """

    needs = Needs(step="whole", per_sample=False, within_rank=True, augmentation="simclr")

    def __init__(
        self,
        model: Classifier,
        latents: Literal["patches", "map"] = "patches",
        patch: Annotated[int, AtLeast(1)] | None = None,
        stride: Annotated[int, AtLeast(1)] | None = None,
        steps: Annotated[int, AtLeast(1)] = 3,
        first: Annotated[int, AtLeast(1)] | None = None,
        dimensions: Annotated[int, AtLeast(1)] = 64,
        hidden: Annotated[int, AtLeast(1)] = 256,
        layers: Annotated[int, AtLeast(1)] = 3,
        temperature: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.latents = latents
        self.patch, self.stride = patch, stride
        self.steps, self.first = steps, first
        self.temperature = temperature
        width = model.backbone.out_features
        self.context = nn.Sequential(*(_RowsAbove(width, hidden) for _ in range(layers)), nn.ReLU())
        self.targets = nn.Conv2d(width, dimensions, 1)
        self.predictors = nn.Conv2d(width, steps * dimensions, 1, bias=False)

    def step(self, batch: Batch) -> Step:
        """The loss of one batch."""
        images = self.model.normalize(batch.images)
        if self.latents == "map":
            last = self.model.backbone.forward_map(images)
            grid, features, first = self.model.backbone.grid(last), self.model.backbone.pool(last), self.first or 1
            if grid.shape[1] != features.shape[1]:
                raise ConfigError(
                    f"latents=map needs a map as wide as the features, {features.shape[1]}, and this backbone's has "
                    f"{grid.shape[1]} channels; use latents=patches"
                )
        else:
            grid, first = self._patches(images)
            with torch.no_grad():
                features = self.model.backbone(images)
        if grid.shape[2] <= first:
            raise ConfigError(
                f"a grid of {grid.shape[2]} x {grid.shape[3]} has no row that lies {first} below another; give smaller "
                "patches or a smaller stride, or set first"
            )
        loss = self._loss(grid, first)
        readout, logs = read_out(self.model.head, features, batch.targets)
        return Step(loss + readout, {"loss": loss.detach(), **logs})

    def _patches(self, images: Tensor) -> tuple[Tensor, int]:
        """The features of overlapping patches as a grid `[N, d, h, w]`, and the rows until no pixel is shared."""
        side = min(images.shape[2:])
        patch = self.patch or max(1, side // 4)
        stride = self.stride or max(1, patch // 2)
        if patch > side:
            raise ConfigError(f"patch is {patch} pixels and the images have a side of {side}; give a smaller one")
        pieces = images.unfold(2, patch, stride).unfold(3, patch, stride).permute(0, 2, 3, 1, 4, 5)
        try:
            latents = self.model.backbone(pieces.flatten(0, 2))
        except ShapeError as error:
            raise ConfigError(f"this backbone takes no patches of {patch} pixels ({error}); use latents=map") from error
        return latents.unflatten(0, pieces.shape[:3]).permute(0, 3, 1, 2), self.first or -(-patch // stride)

    def _loss(self, grid: Tensor, first: int) -> Tensor:
        """The loss of a grid of latents `[N, d, h, w]`: each column of each image is a sequence."""
        targets = self.targets(grid)
        predictions = self.predictors(self.context(grid)).unflatten(1, (self.steps, -1))
        sequences = targets.permute(0, 3, 2, 1).flatten(0, 1)
        predicted = predictions.permute(1, 0, 4, 3, 2).flatten(1, 2)
        return cpc_loss(sequences, predicted, first=first, temperature=self.temperature)
