"""Score-CAM: feature maps as masks, weighted by the score that each leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.explain._arguments import at_least
from repertoire.explain._explainer import every_row, takes_rows
from repertoire.explain._layers import Layer
from repertoire.explain.cam._activation import ActivationMap, Combine, Recorded
from repertoire.explain.cam._gradcam_variants import weighted
from repertoire.registry import register

__all__ = ["ScoreCAM"]


@register("explainers", "score-cam")
class ScoreCAM(ActivationMap):
    r"""Score-CAM: each feature map masks the image, and weighs as much as the score of what is left. No gradients.

    Wang et al., *Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks* (2020). With
    :math:`A^k` the K maps of a layer, :math:`H^k` the map enlarged to the size of the image x and scaled to [0, 1] from
    its least to its largest value, and :math:`y^c` the score of class c before the softmax:

    .. math::
        w_k = \mathrm{softmax}_k\big( y^c(x \odot H^k) \big), \qquad L = \mathrm{ReLU}\Big( \sum_k w_k A^k \Big)

    The paper subtracts the score of a black image from each, which the softmax over the maps takes away again, so that
    pass is not made. Where they are masked, images are zero in the values that the model takes. The authors' program
    has it otherwise: probabilities in place of scores, and no softmax over the maps.

    It takes one pass of the network for each image and map: hundreds for one picture. Maps that are the same everywhere
    mask the image to black; for all of those together it is one more pass of one image.

    Args:
        channels: how many maps of each image to use, those that vary most over its places; all by default.
        normalize: divide each map by its largest value. Without it, maps are in units of the features.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import ScoreCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> ScoreCAM(channels=4)(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    _needs_slopes = False

    def __init__(
        self,
        layer: str | Any = None,
        channels: int | None = None,
        rows: int = 64,
        combine: Combine = "mean",
        normalize: bool = True,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(layer, combine, normalize, output)
        at_least(1, channels=channels, rows=rows)
        self.channels, self.rows = channels, rows

    def _heats(self, model: nn.Module, layers: Sequence[Layer], inputs: Tensor, recorded: Recorded) -> list[Tensor]:
        assert recorded.chosen is not None
        return [self._masked(model, maps, inputs, recorded.chosen) for maps in recorded.maps]

    def _masked(self, model: nn.Module, maps: Tensor, inputs: Tensor, chosen: Tensor) -> Tensor:
        channels = min(self.channels or maps.shape[1], maps.shape[1])
        spread = maps.flatten(2).std(2, correction=0)
        kept = torch.ones_like(spread, dtype=torch.bool)
        if channels < maps.shape[1]:
            kept = torch.zeros_like(kept).scatter_(1, spread.topk(channels, dim=1).indices, True)
        varies = kept & (maps.amax((2, 3)) > maps.amin((2, 3)))
        scores = maps.new_full((len(chosen), *spread.shape), -torch.inf)
        flat = kept & ~varies
        if flat.any():
            black = self._black(model, inputs).to(scores)
            scores = torch.where(flat, black.expand(len(inputs), -1).T.gather(0, chosen)[..., None], scores)
        for part in varies.nonzero().split(self.rows):
            image, channel = part.T
            mask = F.interpolate(maps[image, channel][:, None], inputs.shape[2:], mode="bilinear", align_corners=False)
            low, high = mask.aminmax(dim=2, keepdim=True)
            low, high = low.amin(3, keepdim=True), high.amax(3, keepdim=True)
            # A map that varies may be enlarged to one that does not, where large steps leave its pixels out.
            masks = (mask - low) / (high - low).masked_fill(high == low, 1.0)
            found = self.scores(model, model(inputs[image] * masks.to(inputs.dtype)), image)
            scores[:, image, channel] = found.to(scores.dtype).gather(1, chosen[:, image].T).T
        with torch.autocast(inputs.device.type, enabled=False):
            return weighted(maps, scores.softmax(2))

    def _black(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The scores of a black image, `[1, C]`; or `[N, C]` where each image is scored in a way of its own."""
        rows = every_row(inputs)
        if self.output is None or not takes_rows(self.output):
            rows = rows[:1]
        black = inputs.new_zeros(1, *inputs.shape[1:])
        parts = rows.split(self.rows)
        return torch.cat([self.scores(model, model(black.expand(len(part), -1, -1, -1)), part) for part in parts])
