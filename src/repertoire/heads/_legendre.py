"""LegendreTron: a classifier that learns its link from scores to probabilities, and with it its loss."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.heads._base import Head
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["ConvexGradient", "Legendre"]

# softplus of it is 1
_ONE = math.log(math.e - 1)


class ConvexGradient(nn.Module):
    r"""The gradient of a strongly convex network: a monotone, invertible map of vectors.

    Huang et al., *Convex Potential Flows: Universal Probability Distributions with Optimal Transport and Convex
    Optimization* (2021):

    .. math::
        v = \nabla_z \left( \alpha \lVert z \rVert^2 / 2 + \gamma\,g(z) \right), \qquad
        g(z) = \frac{1}{H} u^\top a_L, \quad
        a_l = \mathrm{softplus}\left( W_l z + b_l + \frac{1}{H} U_l a_{l-1} \right)

    where alpha, gamma, u and U are kept positive by a softplus, which makes g convex. The gradient is written out, so
    nothing is differentiated in the forward pass. The networks of the released LegendreTron have normalised activations
    and a linear path beside; these are the plain ones of the formula.

    Args:
        width: of the vectors.
        hidden: H, units of each layer.
        depth: L, layers.

    Shapes:
        float `[N, width]` to the same.

    Raises:
        ConfigError: a size that is not positive.

    Example:
        >>> import torch
        >>> from repertoire.heads import ConvexGradient
        >>> link = ConvexGradient(3)
        >>> a, b = torch.randn(2, 1, 3)
        >>> bool(((a - b) * (link(a) - link(b))).sum() > 0)
        True
    """

    @checked
    def __init__(
        self,
        width: Annotated[int, AtLeast(1)],
        hidden: Annotated[int, AtLeast(1)] = 2,
        depth: Annotated[int, AtLeast(1)] = 4,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.inputs = nn.ModuleList(nn.Linear(width, hidden) for _ in range(depth))
        self.between = nn.ParameterList(nn.Parameter(torch.randn(hidden, hidden)) for _ in range(depth - 1))
        self.output = nn.Parameter(torch.randn(hidden))
        # As a start, the identity and a little more.
        self.raw_alpha = nn.Parameter(torch.tensor(_ONE))
        self.raw_gamma = nn.Parameter(torch.tensor(_ONE))

    def forward(self, vectors: Tensor) -> Tensor:
        """The map of vectors `[N, width]`."""
        slopes: list[Tensor] = []
        weights = [F.softplus(weight) / self.hidden for weight in self.between]
        below: Tensor | None = None
        layers = [layer for layer in self.inputs if isinstance(layer, nn.Linear)]
        for level, layer in enumerate(layers):
            before = layer(vectors)
            if below is not None:
                before = before + F.linear(below, weights[level - 1])
            slopes.append(before.sigmoid())
            below = F.softplus(before)
        gradient = torch.zeros_like(vectors)
        above = F.softplus(self.output) / self.hidden
        for level in reversed(range(len(slopes))):
            arriving = above * slopes[level]
            gradient = gradient + arriving @ layers[level].weight
            if level:
                above = arriving @ weights[level - 1]
        return F.softplus(self.raw_alpha) * vectors + F.softplus(self.raw_gamma) * gradient


@register("heads", "legendre", paper="legendretron")
class Legendre(Head):
    r"""A linear classifier that learns its link from scores to probabilities, and with it its proper loss.

    Lam et al., *LegendreTron: Uprising Proper Multiclass Loss Learning* (2023):

    .. math::
        p_k = \frac{e^{v_k}}{1 + \sum_{j < C} e^{v_j}} \; (k < C), \qquad v = v_B \circ \dots \circ v_1 (W z + b)
        \in \mathbb{R}^{C - 1}

    where each of the blocks is the gradient of a strongly convex network (:class:`repertoire.heads.ConvexGradient`).
    Trained with cross-entropy, the map from scores to probabilities fits the data together with the scores: the loss of
    the scores is learned. It is proper whatever is learned, because the log-likelihood is and the map is invertible.

    The paper wants the whole map to be the gradient of a convex function too, which makes the loss canonical. Each
    block is one, but a composition of gradients need not be; as in the released code, nothing enforces it.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`, at least 2.
        blocks: B; none leaves multinomial logistic regression. 2, with 4 layers of 2 units, is what the authors use.
        hidden: units of each layer of a block.
        depth: layers of a block.

    Shapes:
        features float `[N, d]` to logits `[N, C]`, of which the last is zero.

    Raises:
        ConfigError: fewer than two classes, or a size out of range.

    Example:
        >>> import torch
        >>> from repertoire.heads import Legendre
        >>> Legendre(8, 3)(torch.randn(2, 8)).shape
        torch.Size([2, 3])
    """

    cannot_grow = "its link maps all classes together, so old logits would change"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        blocks: Annotated[int, AtLeast(0)] = 2,
        hidden: Annotated[int, AtLeast(1)] = 2,
        depth: Annotated[int, AtLeast(1)] = 4,
    ) -> None:
        super().__init__(in_features, num_classes)
        if num_classes < 2:
            raise ConfigError(
                f"num_classes must be 2 or more, found {num_classes}: of one class nothing is to be learned"
            )
        self.linear = nn.Linear(in_features, num_classes - 1)
        self.link = nn.Sequential(*(ConvexGradient(num_classes - 1, hidden, depth) for _ in range(blocks)))

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]` of features `[N, d]`; targets are not looked at."""
        self.check_features(features)
        return F.pad(self.link(self.linear(features)), (0, 1))
