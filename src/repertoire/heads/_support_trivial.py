"""A classifier by prototypical parts: some near the border of a class, some far from it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.heads._base import Head
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["PrototypeSet", "SupportTrivial"]

Sets = Literal["both", "support", "trivial"]


class PrototypeSet(nn.Module):
    """K prototypical parts of each class: unit vectors that are compared with every cell of a map.

    Args:
        in_features, num_classes, per_class, width: see :class:`SupportTrivial`.

    Attributes:
        vectors: the prototypes, `[C, K, width]`; only their direction counts.
        connections: what the similarity to each prototype adds to each logit, `[C, C * K]`.
    """

    def __init__(self, in_features: int, num_classes: int, per_class: int, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Conv2d(in_features, width, 1), nn.Conv2d(width, width, 1))
        self.vectors = nn.Parameter(F.normalize(torch.randn(num_classes, per_class, width), dim=2))
        own = torch.eye(num_classes).repeat_interleave(per_class, 1)
        self.connections = nn.Parameter(own - 0.5 * (1 - own))

    def similarities(self, maps: Tensor) -> Tensor:
        """Positive part of the cosines of cells and prototypes, `[N, C, K, h, w]` of maps `[N, d, h, w]`."""
        cells = self.project(maps)
        wide = torch.promote_types(cells.dtype, torch.float32)
        cells, vectors = F.normalize(cells.to(wide), dim=1), F.normalize(self.vectors.to(wide), dim=2)
        return torch.einsum("ndhw,ckd->nckhw", cells, vectors).relu()

    def logits(self, similarities: Tensor) -> Tensor:
        """Logits `[N, C]` of what `similarities` gave: what counts is the most similar cell."""
        most = similarities.amax((3, 4)).flatten(1)
        return F.linear(most, self.connections.to(most.dtype))


@register("heads", "support-trivial", paper="st-protopnet")
class SupportTrivial(Head):
    r"""Classifier by prototypical parts: how much some cell of the map is like each part of each class.

    Wang et al., *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023). Two sets of K
    unit vectors p for each class, each with a projection g of the cells :math:`z_u` of its own (two pointwise
    convolutions):

    .. math::
        s_{ck} = \max_u \; \mathrm{ReLU} \, \cos\bigl(g(z_u), p_{ck}\bigr), \qquad
        f_j = \sum_{\text{sets}} \sum_{ck} w_{j,ck} \, s_{ck}

    where w begins as 1 for parts of class j and -0.5 for others. What makes the sets differ is how method
    `support-trivial` trains them: support prototypes lie near the border between classes, like support vectors, trivial
    ones far from it. The head looks at maps, where all others look at pooled features; features `[N, d]` are taken for
    a map of one cell.

    Args:
        in_features: d, width of the features.
        num_classes: C, width of the logits `[N, C]`.
        per_class: K, prototypes of each class in each set; 5 by default, as in the paper.
        width: of the prototypes; 64 by default, as in the paper.
        sets: "both" (default), or only the "support" or "trivial" ones.

    Shapes:
        features float `[N, d, h, w]` or `[N, d]` to logits `[N, C]`; float32 for half-precision features.

    Raises:
        ConfigError: `per_class` or `width` is not positive, or `sets` is none of the three.

    Example:
        >>> import torch
        >>> from repertoire.heads import SupportTrivial
        >>> SupportTrivial(8, 3)(torch.randn(2, 8, 4, 4)).shape
        torch.Size([2, 3])
    """

    takes_maps = True
    cannot_grow = "each of its prototypes is connected with every class, so old logits would change"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        per_class: Annotated[int, AtLeast(1)] = 5,
        width: Annotated[int, AtLeast(1)] = 64,
        sets: Sets = "both",
    ) -> None:
        super().__init__(in_features, num_classes)
        names = ("trivial", "support") if sets == "both" else (sets,)
        self.sets = nn.ModuleDict({name: PrototypeSet(in_features, num_classes, per_class, width) for name in names})

    def prototypes(self) -> dict[str, PrototypeSet]:
        """The sets by name, in the order in which they are trained."""
        return dict(self.sets.items())  # type: ignore[arg-type]

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]` of maps `[N, d, h, w]` or features `[N, d]`; targets are not looked at."""
        if features.ndim != 4:
            self.check_features(features)
        maps = features[:, :, None, None] if features.ndim == 2 else features
        logits = [part.logits(part.similarities(maps)) for part in self.prototypes().values()]
        return logits[0] if len(logits) == 1 else logits[0] + logits[1]
