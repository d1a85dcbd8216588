"""Guided back-propagation, and Grad-CAM guided by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from repertoire.errors import ConfigError
from repertoire.explain._explainer import Explainer, classes, every_row
from repertoire.explain.cam._activation import ActivationMap, Combine
from repertoire.explain.cam._gradcam import GradCAM
from repertoire.registry import register

__all__ = ["GuidedBackprop", "GuidedGradCAM"]

_RELU = {"threshold_backward", "hardtanh_backward"}
_SMOOTH = {
    "gelu_backward", "silu_backward", "mish_backward", "hardswish_backward", "elu_backward", "leaky_relu_backward",
    "softplus_backward",
}  # fmt: skip


@register("explainers", "guided-backprop")
class GuidedBackprop(Explainer):
    r"""Guided back-propagation: the gradient in the pixels, of which activations let only the positive part pass.

    Springenberg et al., *Striving for Simplicity: The All Convolutional Net* (2015). On its way back through an
    activation :math:`y = f(x)`, the gradient :math:`g_y` becomes

    .. math:: g_x = f'(x)\, \mathrm{ReLU}(g_y)

    which for the ReLU is the paper's rule: pass on what is positive, where the input was. The map of an image is the
    largest absolute value over its channels; of features `[N, D]` it is the gradient with its signs.

    The rule is the paper's for the ReLU alone. Networks with smooth activations have hardly any, and the gradient would
    come through as it is; so here it also holds for GELU, SiLU, Mish, Hardswish, ELU, leaky ReLU and softplus, with the
    derivative that they have. `smooth=False` leaves those alone. Activations are found as the gradient reaches them, so
    it does not matter whether they are modules or functions or work in place; but one that is written out in other
    operations (`x.clamp(min=0)`, `x * x.sigmoid()`) is none.

    What it shows are edges, and hardly more than edges: it depends little on the class, and little on what the last
    layers have learned (Nie et al., *A Theoretical Explanation for Perplexing Behaviors of Backpropagation-based
    Visualizations*, 2018; Adebayo et al., *Sanity Checks for Saliency Maps*, 2018).

    Args:
        smooth: whether the rule holds for activations other than ReLU and ReLU6; True by default.

    Raises:
        ConfigError: the gradient meets no activation, or does not reach the images.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GuidedBackprop
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> GuidedBackprop()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    takes_features = True

    def __init__(
        self, smooth: bool = True, normalize: bool = True, output: Callable[..., Tensor] | None = None
    ) -> None:
        super().__init__(normalize, output)
        self.smooth = smooth

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        with torch.enable_grad():
            leaf = inputs.requires_grad_()
            scores = self.scores(model, model(leaf), every_row(inputs))
        chosen = classes(targets, scores)
        if not scores.requires_grad:
            raise ConfigError(f"the {type(model).__name__} computes its scores without gradients")
        maps = []
        # One class at a time: gradients of several at once are tensors that no rule of ours can look into.
        for row in chosen:
            ones = torch.zeros_like(scores).scatter(1, row[:, None], 1.0)
            with _Guided(_RELU | _SMOOTH if self.smooth else _RELU) as guided:
                (gradient,) = torch.autograd.grad(scores, leaf, ones, allow_unused=True, retain_graph=True)
            if gradient is None:
                raise ConfigError(f"the scores of the {type(model).__name__} do not depend on the images")
            if not guided.met:
                what = "activation" if self.smooth else "ReLU"
                raise ConfigError(
                    f"the gradient meets no {what} in the {type(model).__name__}, so guided back-propagation would be "
                    "the plain gradient"
                )
            maps.append(gradient.abs().amax(1) if gradient.ndim == 4 else gradient)
        stack = torch.stack(maps)
        return stack.to(torch.promote_types(stack.dtype, torch.float32))


@register("explainers", "guided-grad-cam", paper="grad-cam")
class GuidedGradCAM(ActivationMap):
    r"""Guided Grad-CAM: Grad-CAM for where, times guided back-propagation for the detail.

    Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization* (2016). The map
    of :class:`GradCAM`, enlarged to the size of the images, is multiplied pixel by pixel with that of
    :class:`GuidedBackprop`.

    Args:
        smooth: whether gradients are rectified at other activations than ReLU and ReLU6 too; True by default.

    Raises:
        ConfigError: as :class:`GradCAM` and :class:`GuidedBackprop`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GuidedGradCAM
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> GuidedGradCAM()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        layer: str | Any = None,
        smooth: bool = True,
        combine: Combine = "mean",
        normalize: bool = True,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(layer, combine, normalize, output)
        self._parts = (GradCAM(layer, combine, normalize, output), GuidedBackprop(smooth, normalize, output))

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        where, detail = (part._explain(model, inputs, targets) for part in self._parts)
        return where * detail


class _Guided(TorchDispatchMode):
    """Lets only the positive part of a gradient into the backward functions of some activations."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self.names = names
        self.met = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.names:
            self.met += 1
            gradient, *rest = args
            args = (gradient.clamp_min(0), *rest)
        return func(*args, **(kwargs or {}))
