"""NormGrad: places by how much they contribute to a change of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.explain._arguments import at_least, one_of
from repertoire.explain._explainer import every_row
from repertoire.explain._layers import Layer
from repertoire.explain.cam._activation import ActivationMap, Combine, Recorded, record
from repertoire.registry import register

__all__ = ["NormGrad"]


@register("explainers", "normgrad", paper="normgrad")
class NormGrad(ActivationMap):
    r"""NormGrad: each place by its part in the gradient of weights that could stand at the layer. Works at any layer.

    Rebuffi et al., *There and Back Again: Revisiting Backpropagation Saliency Methods* (2020). Behind a layer with
    features :math:`x_u` at place u, and the gradient :math:`g_u` of the score there, imagine one more layer that
    changes nothing: a 1x1 convolution with the identity for its weights. Their gradient is a sum over places of
    :math:`g_u x_u^\top`, and a place counts as much as the Frobenius norm of its term:

    .. math:: L_u = \lVert g_u x_u^\top \rVert_F = \lVert g_u \rVert \lVert x_u \rVert

    Other layers that change nothing give other terms: a k x k convolution, :math:`\lVert g_u \rVert` times the norm of
    the features in the window around u; a scale for each map, :math:`\lVert g_u \odot x_u \rVert`; a bias,
    :math:`\lVert g_u \rVert`.

    A map of it depends little on the class. The paper's remedy, for any explainer, is to explain the network after one
    step of training on the image with the class in question as its label:

    .. math:: \theta' = \theta - \eta\, \nabla_\theta\, \ell(\theta)

    with the cross-entropy :math:`\ell`. With `step` (:math:`\eta`) above zero the gradient is that of the changed
    network, of first order: the change is not differentiated through. Since each image and class then has weights of
    its own, they are explained one by one, with two passes each; the weights of the model itself are not touched.

    Args:
        identity: the imagined layer: "convolution" (default), "scale" or "bias".
        kernel: side of the convolution's window, 1 by default; odd.
        step: :math:`\eta`, the length of the training step, 0 (none) by default; the authors' program has 1e-4, for
            networks trained on ImageNet.
        of: what is differentiated at the layer: the "score" of the class (default), as in the authors' program, or the
            "loss", the cross-entropy with that class as the label, whose gradient is what training would use.
        combine: what becomes of the maps of several layers: "product" (default), their geometric mean as in the paper;
            "mean" or "max".
        normalize: divide each map by its largest value. Without it, maps are in units of the score (or the loss).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import NormGrad
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> NormGrad("0,1", step=0.01)(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        layer: str | Any = None,
        identity: Literal["convolution", "scale", "bias"] = "convolution",
        kernel: int = 1,
        step: float = 0.0,
        of: Literal["score", "loss"] = "score",
        combine: Combine = "product",
        normalize: bool = True,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(layer, combine, normalize, output)
        one_of(identity=(identity, ("convolution", "scale", "bias")), of=(of, ("score", "loss")))
        at_least(0, step=step)
        if kernel < 1 or kernel % 2 == 0 or (kernel > 1 and identity != "convolution"):
            raise ConfigError(f"kernel must be odd, and 1 unless identity is convolution, found {kernel}")
        self.identity = identity
        self.kernel = kernel
        self.step = step
        self.of = of
        self._objective = _of_loss if of == "loss" else None

    def _heats(self, model: nn.Module, layers: Sequence[Layer], inputs: Tensor, recorded: Recorded) -> list[Tensor]:
        if not self.step:
            return super()._heats(model, layers, inputs, recorded)
        assert recorded.chosen is not None
        each = [
            [
                self._stepped(model, layers, image[None], target[None], number[None])
                for number, image, target in zip(every_row(inputs), inputs, row, strict=True)
            ]
            for row in recorded.chosen
        ]
        return [torch.stack([torch.cat([heats[i][0] for heats in row]) for row in each]) for i in range(len(layers))]

    def _stepped(
        self, model: nn.Module, layers: Sequence[Layer], image: Tensor, target: Tensor, number: Tensor
    ) -> list[Tensor]:
        """The maps of one image, each `[1, 1, h, w]`, after a step of training on it."""
        weights = {
            name: weight.detach().requires_grad_()
            for name, weight in model.named_parameters()
            if weight.is_floating_point()
        }
        with torch.enable_grad():
            scores = self.scores(model, functional_call(model, weights, (image,)), number)
            gradients = torch.autograd.grad(F.cross_entropy(scores, target), list(weights.values()), allow_unused=True)
        changed = {
            name: weight.detach() - self.step * gradient
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            if gradient is not None
        }
        run = partial(_with_weights, model, changed)
        after = record(self, model, layers, image, target, run=run, objective=self._objective, rows=number)
        return super()._heats(model, layers, image, after)

    def _heat(self, maps: Tensor, slopes: Tensor) -> Tensor:
        if self.identity == "bias":
            return slopes.norm(dim=2)
        if self.identity == "scale":
            return (slopes * maps).norm(dim=2)
        size = maps.norm(dim=1)
        if self.kernel > 1:
            total = F.avg_pool2d(size.square()[:, None], self.kernel, 1, self.kernel // 2, divisor_override=1)
            size = total[:, 0].sqrt()
        return slopes.norm(dim=2) * size


def _of_loss(scores: Tensor, ones: Tensor) -> Tensor:
    """The gradient of the cross-entropy in the scores."""
    return scores.softmax(1) - ones


def _with_weights(model: nn.Module, weights: dict[str, Tensor], inputs: Tensor) -> Any:
    return functional_call(model, weights, (inputs,))
