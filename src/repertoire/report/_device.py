"""Where a network is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import device, nn

__all__ = ["device_of"]


def device_of(model: nn.Module) -> device:
    """The device of a network's first parameter; the processor for one that has none."""
    import torch

    return next((p.device for p in model.parameters()), torch.device("cpu"))
