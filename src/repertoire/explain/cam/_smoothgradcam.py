"""Grad-CAM++ of several noisy copies of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError
from repertoire.explain._arguments import at_least, check_seed, one_of
from repertoire.explain._layers import Layer
from repertoire.explain.cam._activation import ActivationMap, Combine, Recorded, record
from repertoire.explain.cam._gradcam_variants import weighted
from repertoire.registry import register

__all__ = ["SmoothGradCAMPlusPlus"]


@register("explainers", "smooth-grad-cam-plus-plus", paper="smooth-grad-cam-plus-plus")
class SmoothGradCAMPlusPlus(ActivationMap):
    r"""Smooth Grad-CAM++: the weights of Grad-CAM++ from gradients averaged over noisy copies of the image.

    Omeiza et al., *Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional Neural
    Network Models* (2019). With :math:`A^k` the maps of a layer for the image itself, :math:`g^k` the gradient of the
    score with respect to them for each of n copies :math:`x + \epsilon`, and :math:`D_m` the mean of
    :math:`(g^k)^m` over the copies:

    .. math::
        \alpha^k_{ij} = \frac{D_2}{2 D_2 + \sum_{ab} A^k_{ab}\, D_3}, \qquad
        w_k = \sum_{ij} \alpha^k_{ij}\, \mathrm{ReLU}(D_1), \qquad
        L = \mathrm{ReLU}\Big( \sum_k w_k A^k \Big)

    Powers of the gradient stand for higher derivatives, as in Grad-CAM++, whose class probability is the exponential of
    the score. The paper prints :math:`D_1` in the numerator of :math:`\alpha`; without noise that would not be
    Grad-CAM++, and the unit of a map would not be that of the score, so this is taken for a slip, as others who
    implemented it did. `numerator="first"` gives what is printed.

    All images of a batch get the same noise, so that none depends on the others, and each call draws the same again.
    Where only an average and a linear classifier follow the layer, the gradient is the same for every image, noise
    changes nothing, and this is :class:`GradCAMPlusPlus`: look at an earlier layer.

    Args:
        samples: n, how many noisy copies, 8 by default; each costs a forward pass and a backward pass to the layer.
        noise: standard deviation of the noise as a share of each image's range (largest value less smallest), 0.15 by
            default.
        maps: indices of the feature maps to restrict the sum to; all by default.
        neurons: places of the layer's grid, counted row by row, to restrict weights and map to; all by default.
        numerator: the power of the gradient in the numerator: "second" (default) or "first", see above.
        seed: of the noise.

    Raises:
        ConfigError: an option out of range, or a map or neuron that the layer does not have; and as :class:`GradCAM`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import SmoothGradCAMPlusPlus
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> SmoothGradCAMPlusPlus(samples=4)(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        layer: str | Any = None,
        samples: int = 8,
        noise: float = 0.15,
        maps: list[int] | None = None,
        neurons: list[int] | None = None,
        numerator: Literal["first", "second"] = "second",
        seed: int = 0,
        combine: Combine = "mean",
        normalize: bool = True,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(layer, combine, normalize, output)
        at_least(1, samples=samples)
        at_least(0, noise=noise)
        check_seed(seed)
        one_of(numerator=(numerator, ("first", "second")))
        self.samples = samples
        self.noise = noise
        self.maps = maps
        self.neurons = neurons
        self.numerator = numerator
        self.seed = seed

    def _heats(self, model: nn.Module, layers: Sequence[Layer], inputs: Tensor, recorded: Recorded) -> list[Tensor]:
        assert recorded.chosen is not None
        generator = torch.Generator().manual_seed(self.seed)
        spread = self.noise * (inputs.amax((1, 2, 3), keepdim=True) - inputs.amin((1, 2, 3), keepdim=True))
        targets = recorded.chosen.T  # of the images themselves: a noisy copy may look like another class
        powers = [[torch.zeros_like(slope) for _ in range(3)] for slope in recorded.slopes]
        for _ in range(self.samples):
            noise = torch.randn(inputs.shape[1:], generator=generator).to(inputs)
            noisy = record(self, model, layers, inputs + spread * noise, targets)
            for sums, slope in zip(powers, noisy.slopes, strict=True):
                square = slope.square()
                sums[0].add_(slope, alpha=1 / self.samples)
                sums[1].add_(square, alpha=1 / self.samples)
                sums[2].addcmul_(square, slope, value=1 / self.samples)
        with torch.autocast(inputs.device.type, enabled=False):
            return [
                self._smoothed(layer, maps, *sums)
                for layer, maps, sums in zip(layers, recorded.maps, powers, strict=True)
            ]

    def _smoothed(self, layer: Layer, maps: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        denominator = 2 * second + maps.sum((2, 3), keepdim=True) * third
        numerator = first if self.numerator == "first" else second
        weights = numerator * first.clamp_min(0) / denominator.masked_fill_(denominator == 0, 1.0)
        if self.neurons is not None:
            kept = _chosen("neurons", self.neurons, maps[0, 0].numel(), layer, maps).unflatten(0, maps.shape[2:])
            weights, maps = weights * kept, maps * kept
        if self.maps is not None:
            maps = maps * _chosen("maps", self.maps, maps.shape[1], layer, maps)[:, None, None]
        return weighted(maps, weights.sum((3, 4)))


def _chosen(name: str, indices: list[int], count: int, layer: Layer, like: Tensor) -> Tensor:
    """Ones at some indices and zeros elsewhere, `[count]`."""
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong or not indices:
        raise ConfigError(
            f"{name} must be indices from 0 to {count - 1} for layer {layer.name!r}, found {wrong or indices}"
        )
    kept = like.new_zeros(count)
    kept[indices] = 1.0
    return kept
