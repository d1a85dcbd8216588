"""Layer-wise relevance propagation: which pixels a score is made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError
from repertoire.explain._explainer import Explainer, classes, every_row
from repertoire.explain._frozen import frozen
from repertoire.explain._relevance import Relevance
from repertoire.registry import register

__all__ = ["LRP"]


@register("explainers", "lrp")
class LRP(Explainer):
    r"""Layer-wise relevance propagation (LRP): a score handed back, layer by layer, to what it was made of.

    Bach et al., *On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation*
    (2015), with the rules for normalisation and attention of Ali et al., *XAI for Transformers: Better Explanations
    through Conservative Propagation* (2022). What reaches a unit is shared among its inputs by what each adds to it:

    .. math:: R_i = \sum_j \frac{x_i w_{ij}}{z_j + \epsilon \, \operatorname{sign}(z_j)} R_j

    Activations pass relevance on as it is, scales of normalisations and attention weights are constants, products share
    by halves. The map of an image is the positive part of the sum over the channels of what the first layer reads
    (images after the network's own normalisation); of features `[N, D]` it is the relevance itself, with its signs.
    With :math:`\epsilon = 0`, no relevance is lost but to biases; and for a network of ReLU and linear maps it is then
    the gradient times the input, as noisy as that is. Larger ones leave out what nearly cancels.

    Args:
        epsilon: in units of the root mean square of z; 0.25 by default.

    Raises:
        ConfigError: epsilon out of range, or scores that do not depend on the images but for constants.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import LRP
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> LRP()(net, torch.rand(2, 3, 16, 16), torch.tensor([0, 4])).shape
        torch.Size([2, 16, 16])
    """

    takes_features = True

    def __init__(
        self,
        epsilon: float = 0.25,
        normalize: bool = True,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(normalize, output)
        Relevance(epsilon)  # refuses what is out of range
        self.epsilon = epsilon

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        mode = Relevance(self.epsilon)
        with frozen(model), torch.enable_grad():
            # A copy, because the network may write into what it is given.
            images = inputs.detach().clone().requires_grad_()
            with mode:
                result = model(images * 1.0)
            scores = self.scores(model, result, every_row(inputs))
            chosen = classes(targets, scores)
            entrance = mode.entrance
            point = entrance if entrance is not None and entrance.shape == images.shape else images
            maps = [self._shared(model, row, scores, point) for row in chosen]
        return torch.stack(maps)

    def _shared(self, model: nn.Module, row: Tensor, scores: Tensor, point: Tensor) -> Tensor:
        """The relevance of each pixel for one class of each image, `[N, H, W]`."""
        slope = None
        if scores.requires_grad:
            total = scores.gather(1, row[:, None]).sum()
            (slope,) = torch.autograd.grad(total, point, retain_graph=True, allow_unused=True)
        if slope is None:
            raise ConfigError(
                f"the scores of the {type(model).__name__} do not depend on the images but for what relevance takes as "
                "constant; if it returns probabilities, give the logits with output="
            )
        wide = torch.promote_types(slope.dtype, torch.float32)
        relevance = point.detach().to(wide) * slope.to(wide)
        return relevance.sum(1).relu() if relevance.ndim == 4 else relevance
