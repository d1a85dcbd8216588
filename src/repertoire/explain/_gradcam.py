"""Grad-CAM: where a network looked when it chose a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain._layers import Layer, choose_layers, evaluating
from repertoire.registry import register

__all__ = ["GradCAM"]


@register("explainers", "grad-cam", paper="grad-cam")
class GradCAM:
    r"""Grad-CAM: feature maps of a late layer, weighted by how much the score of a class grows with each.

    Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization* (2016). With
    :math:`A^k` the K maps of a layer, each of Z pixels, and :math:`y^c` the score of class c before the softmax:

    .. math::
        \alpha_k = \frac{1}{Z} \sum_{i,j} \frac{\partial y^c}{\partial A^k_{ij}}, \qquad
        L = \mathrm{ReLU}\Big( \sum_k \alpha_k A^k \Big)

    L is enlarged bilinearly to the size of the images. For a network that ends with a global average and a linear
    classifier, it is the positive part of the class activation map (CAM), divided by Z.

    The network runs once and as cheaply as it can: without a graph up to the layer, with one from there to the scores,
    and backward over that part only. It runs in evaluation mode, so that neither its statistics nor its weights change;
    the caller's modes, gradients and hooks are left as they were, also when the network fails.

    Args:
        layer: the layer to look at: a module of the model, or its name ("layer4", "backbone.blocks.9"). By default the
            last block of a Repertoire backbone (for a class token, which has no gradient on the last map, the block
            before it), and of another network the module that is last to give a map of more than one pixel.
        normalize: divide each map by its largest value, so that maps lie in [0, 1]; zero stays zero, which means no
            evidence. Without it, maps are in units of the score.
        output: what to take as the scores `[N, C]` of what the model returns. By default the tensor itself, the value
            under "logits" of a mapping, or the first of a tuple or list.

    Raises:
        ConfigError: `layer` or `output` is of no use, when it is built or called: the layer is not part of the model
            (:class:`~repertoire.errors.UnknownName` for a name), does not run, runs twice, gives no maps, or the scores
            do not depend on it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> maps = GradCAM()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4]))
        >>> maps.shape
        torch.Size([2, 16, 16])
    """

    # `layer` is str | nn.Module | None; Any, because the registry checks options by type and knows no modules.
    def __init__(
        self,
        layer: str | Any = None,
        normalize: bool = True,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if not (layer is None or isinstance(layer, str | nn.Module)):
            raise ConfigError(f"layer must be a module or its name, found {type(layer).__name__}")
        self.layer: str | nn.Module | None = layer
        self.normalize = normalize
        self.output = output

    def __call__(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None = None) -> Tensor:
        """Heat maps, one for each image.

        Args:
            model: images to scores `[N, C]`. Frozen weights are no hindrance.
            inputs: float `[N, C, H, W]`; moved to the model's device if they are elsewhere.
            targets: the classes to explain, int64 `[N]`, or one for all; by default each image's predicted class.

        Returns:
            `[N, H, W]` on the model's device, none of it negative; float32, or float64 if the layer's output is.

        Raises:
            ConfigError: see above.
            ShapeError: inputs, scores or targets that do not fit.
        """
        if inputs.ndim != 4 or not inputs.is_floating_point():
            raise ShapeError(
                f"inputs must be floating point images [N, C, H, W], found {inputs.dtype} {list(inputs.shape)}"
            )
        device = next((t.device for tensors in (model.parameters(), model.buffers()) for t in tensors), inputs.device)
        # Tensors made under inference mode cannot enter a graph, so it is left for the while.
        with torch.inference_mode(False), torch.no_grad(), evaluating(model):
            inputs = inputs.detach().to(device)
            if len(inputs) == 0:
                return torch.zeros_like(inputs[:, 0], dtype=torch.promote_types(inputs.dtype, torch.float32))
            for layer in choose_layers(model, self.layer, inputs):
                maps, slopes = _spatial(layer, *self._differentiate(model, layer, inputs, targets))
                if slopes.any():
                    break
            with torch.autocast(device.type, enabled=False):
                heat = torch.einsum("nk,nkhw->nhw", slopes.mean((2, 3)), maps).relu_()
            heat = F.interpolate(heat[:, None], inputs.shape[2:], mode="bilinear", align_corners=False)[:, 0]
            return _to_unit_range(heat) if self.normalize else heat

    def _differentiate(
        self, model: nn.Module, layer: Layer, inputs: Tensor, targets: Tensor | int | None
    ) -> tuple[Tensor, Tensor]:
        """A layer's output, and the gradient of each image's score with respect to it."""
        outputs: list[Tensor] = []

        def cut(module: nn.Module, args: Any, output: Any) -> Tensor:
            if outputs:
                raise ConfigError(
                    f"layer {layer.name!r} runs more than once in a forward pass; choose one that runs once"
                )
            if not isinstance(output, Tensor) or not output.is_floating_point():
                raise ConfigError(f"layer {layer.name!r} gives a {_kind(output)}, not a tensor of feature maps")
            output = output.detach()
            outputs.append((output.clone() if output.is_inference() else output).requires_grad_())
            # From here on a graph is recorded. What follows gets a copy, which it may overwrite (ReLU in place).
            torch.set_grad_enabled(True)
            return outputs[0].clone()

        handle = layer.module.register_forward_hook(cut)
        try:
            result = model(inputs)
        finally:
            handle.remove()
            torch.set_grad_enabled(False)
        if not outputs:
            raise ConfigError(f"layer {layer.name!r} does not run in the forward pass of the {type(model).__name__}")
        with torch.enable_grad():  # `output` may compute
            scores = self._scores(model, result, len(inputs))
        # A matrix of ones and zeros rather than indexing: it needs nothing kept of targets made in inference mode.
        chosen = torch.zeros_like(scores).scatter_(1, _indices(targets, scores)[:, None], 1.0)
        gradient = None
        if scores.requires_grad:
            (gradient,) = torch.autograd.grad(scores, outputs[0], chosen, allow_unused=True)
        if gradient is None:
            raise ConfigError(
                f"the scores do not depend on layer {layer.name!r}, or the model computes them without gradients; "
                "choose another layer"
            )
        return outputs[0].detach(), gradient

    def _scores(self, model: nn.Module, result: Any, count: int) -> Tensor:
        if self.output is not None:
            result = self.output(result)
        elif isinstance(result, Mapping):
            result = result.get("logits", result)
        elif isinstance(result, tuple | list):
            result = next((item for item in result if isinstance(item, Tensor)), result)
        if not isinstance(result, Tensor):
            raise ConfigError(
                f"the {type(model).__name__} returns a {_kind(result)}; say where the scores are with output=, "
                "a function from what it returns to a tensor [N, C]"
            )
        if result.ndim != 2 or len(result) != count or not result.is_floating_point():
            raise ShapeError(
                f"the scores of the {type(model).__name__} must be floating point [{count}, C], found {result.dtype} "
                f"{list(result.shape)}; output= may turn them into that"
            )
        return result


def _kind(value: Any) -> str:
    return f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _indices(targets: Tensor | int | None, scores: Tensor) -> Tensor:
    """The class of each image, int64 `[N]`."""
    count, classes = scores.shape
    if targets is None:
        return scores.argmax(1)
    if isinstance(targets, int):
        targets = torch.full((count,), targets)
    if targets.shape != (count,) or targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ShapeError(f"targets must be int64 [{count}], found {targets.dtype} {list(targets.shape)}")
    least, most = (int(bound) for bound in targets.aminmax())
    if least < 0 or most >= classes:
        raise ShapeError(f"targets must be classes from 0 to {classes - 1}, found {least if least < 0 else most}")
    return targets.to(scores.device, torch.int64)


def _spatial(layer: Layer, activation: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Both as maps `[N, K, h, w]`, in single precision at least."""
    maps, slopes = layer.to_maps(activation), layer.to_maps(gradient)
    if maps.ndim != 4 or maps.shape[2:].numel() < 2:
        raise ConfigError(
            f"layer {layer.name!r} gives {list(maps.shape)}; Grad-CAM needs maps [N, K, h, w] of more than one pixel"
        )
    wide = torch.promote_types(maps.dtype, torch.float32)
    return maps.to(wide), slopes.to(wide)


def _to_unit_range(heat: Tensor) -> Tensor:
    largest = heat.amax((1, 2), keepdim=True)
    return heat / largest.masked_fill(largest == 0, 1.0)
