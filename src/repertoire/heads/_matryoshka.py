"""Nested classifiers, each on a prefix of the features."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.heads._base import Head
from repertoire.ops import unit_rows
from repertoire.registry import register

__all__ = ["Matryoshka", "nested_sizes"]

SMALLEST = 8
"""Where the paper stops halving."""


def nested_sizes(width: int) -> tuple[int, ...]:
    """The paper's nested sizes of an embedding, increasing: its width, halved for as long as 8 coordinates are left.

    >>> nested_sizes(64)
    (8, 16, 32, 64)
    >>> nested_sizes(6)
    (6,)
    """
    sizes = [width]
    while sizes[-1] // 2 >= SMALLEST:
        sizes.append(sizes[-1] // 2)
    return tuple(reversed(sizes))


@register("heads", "matryoshka", paper="mrl")
class Matryoshka(Head):
    r"""Nested linear classifiers on prefixes of the features, so that an embedding can be cut to any of their sizes.

    Kusupati et al., *Matryoshka Representation Learning* (2022). With L the loss on logits, z the features and
    :math:`\mathcal{M}` the nested sizes, training minimises

    .. math::
        \sum_{m \in \mathcal{M}} c_m \, L(W_m z_{1:m} + b_m, y)

    The classifiers are separate, or tied (:math:`W_m = W_{:, 1:m}` and one b; MRL-E in the paper). Tied ones share the
    work too: the logits of a size are those of the size before plus the product of the coordinates in between, so all
    of them together cost one full product.

    `forward` gives the logits of the largest size, and `outputs` those of all sizes with their weights, the largest
    first. For retrieval take `prefix` of the features.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        sizes: the nested sizes, from 1 to d, none twice; by default d, d/2, d/4, ... down to 8 (:func:`nested_sizes`).
        weights: the c_m, in the order of `sizes`, not negative and not all zero; 1 each by default, as in the paper.
            Without `sizes` they go with the default ones in increasing order.
        tied: one weight matrix for all sizes instead of one for each.
        bias: whether there are b.

    Attributes:
        sizes: the nested sizes, increasing.
        weights: the c_m in that order.

    Raises:
        ConfigError: sizes that are out of range or repeated; weights that do not fit them.

    Example:
        >>> import torch
        >>> from repertoire.heads import Matryoshka
        >>> head = Matryoshka(32, 10)
        >>> head.sizes
        (8, 16, 32)
        >>> z = torch.randn(4, 32)
        >>> loss = sum(c * torch.nn.functional.cross_entropy(y, torch.arange(4)) for c, y in head.outputs(z))
        >>> head.logits_at(z, 16).shape, head.prefix(z, 16).shape
        (torch.Size([4, 10]), torch.Size([4, 16]))
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        sizes: tuple[int, ...] | None = None,
        weights: tuple[float, ...] | None = None,
        tied: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__(in_features, num_classes)
        sizes = nested_sizes(in_features) if sizes is None else tuple(sizes)
        weights = (1.0,) * len(sizes) if weights is None else tuple(weights)
        _check_sizes(sizes, weights, in_features)
        pairs = sorted(zip(sizes, weights, strict=True))
        self.sizes = tuple(size for size, _ in pairs)
        self.weights = tuple(weight for _, weight in pairs)
        self.tied = tied
        if tied:
            self.classifier = nn.Linear(self.sizes[-1], num_classes, bias=bias)
        else:
            # A module's name may hold no dot, but a number it may be: state dictionaries say `classifiers.16.weight`.
            self.classifiers = nn.ModuleDict({str(m): nn.Linear(m, num_classes, bias=bias) for m in self.sizes})

        linears = ["classifier"] if tied else [f"classifiers.{m}" for m in self.sizes]
        self.per_class = [f"{name}.{own}" for name in linears for own in (("weight", "bias") if bias else ("weight",))]

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]` of the largest size; targets are not looked at."""
        return self.logits_at(features, self.sizes[-1])

    def outputs(self, features: Tensor, targets: Tensor | None = None) -> Sequence[tuple[float, Tensor]]:
        """The c_m and the logits `[N, C]` of every size, the largest size first."""
        self._check(features, self.sizes[-1])
        if self.tied:
            logits = self._tied_logits(features)
        else:
            logits = [self.logits_at(features, m) for m in self.sizes]
        return list(zip(reversed(self.weights), reversed(logits), strict=True))

    def logits_at(self, features: Tensor, size: int) -> Tensor:
        """Logits `[N, C]` from the first `size` of the features `[N, d]`, of which only those need be there.

        Raises:
            ShapeError: no classifier has that size (tied classifiers have every size up to the largest), or the
                features are narrower.
        """
        self._check(features, size)
        if self.tied:
            if not 1 <= size <= self.sizes[-1]:
                raise ShapeError(f"size must be from 1 to {self.sizes[-1]}, found {size}")
            return F.linear(features[:, :size], self.classifier.weight[:, :size], self.classifier.bias)
        if size not in self.sizes:
            raise ShapeError(f"size must be one of {', '.join(map(str, self.sizes))}, found {size}")
        return self.classifiers[str(size)](features[:, :size])

    def prefix(self, features: Tensor, size: int, normalize: bool = True) -> Tensor:
        """The first `size` of the features `[N, d]`, scaled to unit length unless told otherwise: what to compare by
        cosine or store in an index. Normalised prefixes of half-precision features are float32.

        Raises:
            ShapeError: the size is not from 1 to d, or the features are narrower.
        """
        if not 1 <= size <= self.in_features:
            raise ShapeError(f"size must be from 1 to {self.in_features}, found {size}")
        self._check(features, size)
        cut = features[:, :size]
        return unit_rows(cut) if normalize else cut

    def _tied_logits(self, features: Tensor) -> list[Tensor]:
        """Logits of every size, each from the one before it."""
        weight = self.classifier.weight
        logits: list[Tensor] = []
        for start, end in itertools.pairwise((0, *self.sizes)):
            part = F.linear(features[:, start:end], weight[:, start:end])
            logits.append(logits[-1] + part if logits else part)
        bias = self.classifier.bias
        return logits if bias is None else [each + bias for each in logits]

    def _check(self, features: Tensor, least: int) -> None:
        width = features.shape[-1] if features.ndim == 2 and features.is_floating_point() else 0
        if not least <= width <= self.in_features:
            raise ShapeError(
                f"features must be a floating point [N, {self.in_features}], found {features.dtype} "
                f"{list(features.shape)}"
            )


def _check_sizes(sizes: Sequence[int], weights: Sequence[float], width: int) -> None:
    if not sizes:
        raise ConfigError("sizes is empty; leave it out for the default ones")
    wrong = [size for size in sizes if not 1 <= size <= width]
    if wrong:
        raise ConfigError(f"sizes must be from 1 to {width}, the width of the features; found {wrong}")
    if len(set(sizes)) < len(sizes):
        raise ConfigError(f"sizes has a size twice: {list(sizes)}")
    if len(weights) != len(sizes):
        raise ConfigError(f"weights has {len(weights)} numbers for {len(sizes)} sizes")
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ConfigError(f"weights must be finite and not negative, one of them positive; found {list(weights)}")
