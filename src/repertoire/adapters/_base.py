"""The contract of adapters: a change of a layer's weight that begins as none."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from repertoire.ranges import checked

__all__ = ["Adapter", "Change"]


class Change(nn.Module):
    """`change(weight) -> weight`: the weight of one layer, changed by parameters of its own.

    With fresh parameters it gives the weight itself. It is a parametrisation of torch, so the layer stays what it is (a
    subclass of `nn.Conv2d` that pads in its own way, say), and nothing has to know that it is adapted.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight, of the same shape."""
        raise NotImplementedError


class Adapter:
    """Rule for the layers of a network that are adapted, and how the weight of each changes.

    A subclass is registered under the kind "adapters" and says how the weight of a layer changes; it may also choose
    the layers.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    def wants(self, layer: nn.Linear | nn.Conv2d) -> bool:
        """True if a layer is to be adapted; all of them are by default."""
        return True

    def change(self, weight: Tensor) -> Change:
        """The change of a weight, with fresh parameters from torch's random state, of its dtype and on its device."""
        raise NotImplementedError
