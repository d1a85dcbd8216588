"""Back-propagation."""

from __future__ import annotations

from torch import Tensor

from repertoire.data import Batch
from repertoire.methods import Method
from repertoire.registry import register
from repertoire.rules._base import Rule

__all__ = ["Backprop", "Direct"]


class Direct(Rule):
    """Base of rules that take one step of one optimiser along the gradient of the method's loss."""

    pieces_alike = True

    def step(self, method: Method, batch: Batch) -> dict[str, Tensor]:
        logs = self._gradients(method, batch)
        self._update(method)
        return logs


@register("rules", "backprop")
class Backprop(Direct):
    """End-to-end back-propagation: one forward pass, one backward pass, one step of the optimiser.

    Example:
        >>> from repertoire.rules import Backprop
        >>> Backprop().requires
        'whole'
    """

    supports_sharding = True
