"""Several classifiers on the same features, whose mean answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.heads._base import Head
from repertoire.ranges import AtLeast, Share
from repertoire.registry import register

__all__ = ["Experts"]


@register("heads", "experts")
class Experts(Head):
    r"""Several classifiers, each with a hidden layer of its own, whose mean answers.

    .. math:: f(z) = \frac{1}{E} \sum_{e=1}^{E} f_e(z), \qquad f_e(z) = W_e\,\mathrm{relu}(V_e z + a_e) + b_e

    What the experts are trained to differ in is the affair of the method (:class:`repertoire.methods.Experts`); one
    that knows nothing of them trains each as if it were alone, by `outputs`.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        count: E, 1 or more.
        hidden: width of the hidden layer of each, 0 for none: W on the features themselves.
        dropout: share of the features that an expert does not see in training, in [0, 1].

    Example:
        >>> import torch
        >>> from repertoire.heads import Experts
        >>> head, z = Experts(8, 3, count=2, hidden=4), torch.randn(5, 8)
        >>> head.each(z).shape, torch.equal(head(z), head.each(z).mean(0))
        (torch.Size([2, 5, 3]), True)
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        count: Annotated[int, AtLeast(1)] = 3,
        hidden: Annotated[int, AtLeast(0)] = 128,
        dropout: Annotated[float, Share] = 0.0,
    ) -> None:
        super().__init__(in_features, num_classes)
        self.count = count
        self.experts = nn.ModuleList(_expert(in_features, hidden, num_classes, dropout) for _ in range(count))
        last = len(self.experts[0]) - 1  # type: ignore[arg-type]
        self.per_class = [f"experts.{e}.{last}.{own}" for e in range(count) for own in ("weight", "bias")]

    def each(self, features: Tensor) -> Tensor:
        """Logits of every expert, `[E, N, C]`."""
        self.check_features(features)
        return torch.stack([expert(features) for expert in self.experts])

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        return self.each(features).mean(0)

    def outputs(self, features: Tensor, targets: Tensor | None = None) -> Sequence[tuple[float, Tensor]]:
        """The mean, which answers and is not trained, and the logits of each expert."""
        each = self.each(features)
        return [(0.0, each.mean(0)), *((1.0, logits) for logits in each)]


def _expert(width: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
    if hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden or width, classes))
