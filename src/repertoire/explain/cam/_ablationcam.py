"""Ablation-CAM: feature maps weighted by what the score loses without each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.explain._arguments import at_least
from repertoire.explain._layers import Layer
from repertoire.explain.cam._activation import ActivationMap, Combine, Recorded
from repertoire.explain.cam._gradcam_variants import weighted
from repertoire.explain.cam._replay import Replay
from repertoire.registry import register

__all__ = ["AblationCAM"]


@register("explainers", "ablation-cam")
class AblationCAM(ActivationMap):
    r"""Ablation-CAM: each feature map weighs as much as the score loses when the map is set to zero.

    Desai and Ramaswamy, *Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
    Localization* (2020). With :math:`A^k` the K maps of a layer, :math:`y^c` the score of class c before the softmax
    and :math:`y^c_k` what it is with :math:`A^k = 0`:

    .. math::
        w_k = \frac{y^c - y^c_k}{|y^c|}, \qquad L = \mathrm{ReLU}\Big( \sum_k w_k A^k \Big)

    The paper divides by :math:`y^c`, which is the same where the score is positive; where it is negative, that would
    turn the map into its opposite. A score of zero divides nothing.

    The network up to the layer runs once, and what follows it once for each image and map that is not zero already. One
    gradient is taken of one image, to find out what of the first part the second needs. Of tokens, only those that
    stand for a place are set to zero, and no class token.

    Args:
        channels: how many maps of each image to use, those with the largest mean square; all by default.
        normalize: divide each map by its largest value. Without it, maps are in units of the features.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import AblationCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> AblationCAM()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

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
        return [
            self._ablated(model, layer, inputs, maps, recorded)
            for layer, maps in zip(layers, recorded.maps, strict=True)
        ]

    def _ablated(self, model: nn.Module, layer: Layer, inputs: Tensor, maps: Tensor, recorded: Recorded) -> Tensor:
        assert recorded.scores is not None
        assert recorded.chosen is not None
        chosen = recorded.chosen
        size = maps.square().mean((2, 3))
        kept = size > 0
        if self.channels is not None and self.channels < maps.shape[1]:
            most = size.topk(self.channels, dim=1).indices
            kept &= torch.zeros_like(kept).scatter_(1, most, True)
        whole = recorded.scores.to(maps.dtype).gather(1, chosen.T).T
        loss = maps.new_zeros(len(chosen), *size.shape)
        replay = Replay(model, layer.module, inputs, lambda result, rows: self.scores(model, result, rows))
        for part in kept.nonzero().split(self.rows):
            image, channel = part.T
            output = replay.output[image]
            with torch.enable_grad():
                leaf = output.detach().requires_grad_()
                seen = layer.to_maps(leaf)
            # What `to_maps` takes from the output, it is given back: the places of one map.
            places = torch.zeros_like(seen)
            places[torch.arange(len(part), device=places.device), channel] = 1
            (mask,) = torch.autograd.grad(seen, leaf, places)
            found = replay(image, output * (1 - mask)).to(maps.dtype).gather(1, chosen[:, image].T).T
            loss[:, image, channel] = whole[:, image] - found
        with torch.autocast(inputs.device.type, enabled=False):
            return weighted(maps, loss / whole.abs().masked_fill(whole == 0, 1.0)[..., None])
