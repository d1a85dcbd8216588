"""Losses that are another loss on views plus a term."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.losses.contracts._base import Loss, ViewsLoss
from repertoire.losses.contracts._views import check_views, check_weights

__all__ = ["AddedTerm"]


class AddedTerm(ViewsLoss):
    """A loss on views plus a weighted term. To derive from: the derived class says what the term is.

    Args:
        base: the loss, or its name with options: "nt-xent:temperature=0.5".
        weight: of the term, 0 or more.

    Raises:
        ConfigError: the base is no loss on views.
        ValueError: the weight is negative.
    """

    def __init__(self, base: str | Loss, weight: float) -> None:
        super().__init__()
        check_weights(weight=weight)
        loss = registry.build("losses", base) if isinstance(base, str) else base
        if not isinstance(loss, ViewsLoss):
            raise ConfigError(f"base must be a loss on views, found {base!r}, which is one on {loss.contract}")
        self.base = loss
        self.weight = weight
        self.views = max(self.views, loss.views)
        self.wants = loss.wants

    def prepare(self, dimensions: int) -> None:
        """Tells the base how wide the embeddings will be."""
        self.base.prepare(dimensions)

    def term(self, *views: Tensor) -> Tensor:
        """What is added, before it is weighted."""
        raise NotImplementedError

    def forward(self, *views: Tensor, **known: Any) -> Tensor:
        """The loss of two or more views `[N, d]`; `known` is what the base wants."""
        check_views(views)
        return self.base(*views, **known) + self.weight * self.term(*views)
