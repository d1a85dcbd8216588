"""The harmonic classifier: distances to class centres, in powers."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.heads._base import Head
from repertoire.ops import transformed
from repertoire.ranges import Positive
from repertoire.registry import register

__all__ = ["Harmonic"]


@register("heads", "harmonic", paper="harmonic-loss")
class Harmonic(Head):
    r"""Harmonic classifier: a class is as likely as a negative power of the distance to its centre.

    Baek et al., *Harmonic Loss Trains Interpretable AI Models* (2025):

    .. math::
        f_k = -n \log \lVert z - w_k \rVert, \qquad
        \mathrm{softmax}(f)_k = \frac{\lVert z - w_k \rVert^{-n}}{\sum_j \lVert z - w_j \rVert^{-n}}

    Cross-entropy on these logits is the harmonic loss. It is zero at finite weights, where each class vector is the
    point that its features have moved to; the scale of features and class vectors together changes nothing.

    The released code takes a power of the squared distance that is as large as d; n = sqrt(d) is the paper's advice.

    A distance of zero would be an infinite logit, so `eps` is added to the squared distances.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        exponent: n, positive; the square root of d by default, as the paper recommends.
        eps: added to the squared distances, positive; it bounds the gradient near a centre.

    Shapes:
        features float `[N, d]` to logits `[N, C]`; float32 for half-precision features.

    Raises:
        ConfigError: the exponent or eps is not a positive number.

    Example:
        >>> import torch
        >>> from repertoire.heads import Harmonic
        >>> head = Harmonic(8, 3)
        >>> z = head.weight[1:2].detach() + 0.01
        >>> head(z).argmax(1)
        tensor([1])
    """

    per_class = ("weight",)

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        exponent: Annotated[float, Positive] | None = None,
        eps: Annotated[float, Positive] = 1e-4,
    ) -> None:
        super().__init__(in_features, num_classes)
        exponent = math.sqrt(in_features) if exponent is None else exponent
        self.exponent = exponent
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Linear

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]` of features `[N, d]`; targets are not looked at."""
        self.check_features(features)
        with torch.autocast(features.device.type, enabled=False):
            wide = torch.promote_types(torch.promote_types(features.dtype, self.weight.dtype), torch.float32)
            squares = _squared_distances(features.to(wide), self.weight.to(wide))
            return -self.exponent / 2 * torch.log(squares + self.eps)


def _squared_distances(z: Tensor, w: Tensor) -> Tensor:
    """`[N, C]`, by differences, and with derivatives of any order and in any mode.

    The product form, |z|² + |w|² - 2 zw, loses the digits of a distance that is short beside the vectors. It is used
    for derivatives only, from an origin between the centres, where there is less to lose: those of `cdist` end at the
    first.
    """
    if transformed():
        return (z[:, None] - w).square().sum(2)
    with torch.no_grad():
        # The default decides by the sizes how to compute, which torch.export cannot follow.
        exact = torch.cdist(z, w, compute_mode="donot_use_mm_for_euclid_dist").square()
    origin = w.detach().mean(0)
    z, w = z - origin, w - origin
    product = z.square().sum(1, keepdim=True) + w.square().sum(1) - 2 * F.linear(z, w)
    return exact + (product - product.detach())
