"""A classifier that is never trained: class vectors at the corners of a regular simplex."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.heads._base import Head
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["Simplex", "simplex_vectors"]


@checked
def simplex_vectors(count: Annotated[int, AtLeast(1)], dimensions: int | None = None) -> Tensor:
    r"""Unit vectors as far apart as they can be: the corners of a regular simplex around the origin.

    Every pair has the cosine :math:`-1 / (K - 1)`. The same arguments give the same vectors on every machine.

    Args:
        count: K, how many, at least 1.
        dimensions: their width, at least K - 1; the rest is zero. K - 1 if None (1 for a single vector).

    Returns:
        float32 `[K, dimensions]`.

    Raises:
        ShapeError: no vectors, or too few dimensions.

    Example:
        >>> import torch
        >>> from repertoire.heads import simplex_vectors
        >>> corners = simplex_vectors(3)
        >>> (corners @ corners.T).round(decimals=4)
        tensor([[ 1.0000, -0.5000, -0.5000],
                [-0.5000,  1.0000, -0.5000],
                [-0.5000, -0.5000,  1.0000]])
    """
    own = max(count - 1, 1)
    dimensions = own if dimensions is None else dimensions
    if dimensions < own:
        raise ShapeError(f"{count} vectors of a simplex need {own} dimensions or more, found {dimensions}")
    if count == 1:
        return F.pad(torch.ones(1, 1), (0, dimensions - 1))
    # The unit vectors and one more on their diagonal, which has the same distance from each; then about their mean.
    d = count - 1
    diagonal = torch.full((1, d), (1 - count**0.5) / d, dtype=torch.float64)
    corners = torch.cat([torch.eye(d, dtype=torch.float64), diagonal])
    return F.pad(F.normalize(corners - corners.mean(0)), (0, dimensions - d)).float()


@register("heads", "simplex", paper="d-simplex-compatibility")
class Simplex(Head):
    r"""A classifier that is never trained: class vectors at the corners of a regular simplex, with room for more.

    Biondi et al., *Stationary Representations: Optimally Approximating Compatibility and Implications for Improved
    Model Replacements* (2024):

    .. math:: f_k = s\,z \cdot w_k, \qquad w_k \cdot w_l = -\frac{1}{K - 1} \; (k \ne l), \quad \lVert w_k \rVert = 1

    for K corners, of which the first C are classes. The vectors are the same in every run, so the features of a class
    point the same way in every network that is trained with them: a new model can search what an old one has indexed.
    The corners that are not used yet are for classes to come. Keep K the same from model to model: another K is another
    simplex.

    The paper's softmax runs over all K corners; so it does here if `num_classes` is K, whatever labels occur.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        slots: K, from C to d + 1; d + 1 by default, all that the features have room for.
        scale: s, positive; 1 for features of any length, as in the paper.

    Shapes:
        features float `[N, d]` to logits `[N, C]`.

    Raises:
        ConfigError: more classes than slots, more slots than the features have room for, or a scale that is not
            positive.

    Example:
        >>> import torch
        >>> from repertoire.heads import Simplex
        >>> head = Simplex(8, 3)
        >>> list(head.parameters()), head(2 * head.weight).argmax(1)
        ([], tensor([0, 1, 2]))
    """

    weight: Tensor

    def __init__(
        self, in_features: int, num_classes: int, slots: int | None = None, scale: Annotated[float, Positive] = 1.0
    ) -> None:
        super().__init__(in_features, num_classes)
        slots = in_features + 1 if slots is None else slots
        if not num_classes <= slots <= in_features + 1:
            raise ConfigError(
                f"{in_features} features have room for {in_features + 1} vectors of a simplex; {num_classes} classes "
                f"and {slots} slots do not fit: take a wider backbone"
            )
        self.slots = slots
        self.scale = scale
        self.register_buffer("weight", simplex_vectors(slots, in_features)[:num_classes].clone())

    def _add(self, added: int) -> None:
        """Takes the next corners."""
        wanted = self.num_classes + added
        if wanted > self.slots:
            raise ConfigError(
                f"head Simplex cannot grow to {wanted} classes: it has {self.slots} slots. Give more from the start "
                f"(slots, at most {self.in_features + 1} for these features)"
            )
        self.weight = simplex_vectors(self.slots, self.in_features)[:wanted].to(self.weight)

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]` of features `[N, d]`; targets are not looked at."""
        self.check_features(features)
        return self.scale * F.linear(features, self.weight)
