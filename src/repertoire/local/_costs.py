"""What a unit costs, predicted without computing anything."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from repertoire.local._units import Chain

__all__ = ["costs_of", "saved_bytes"]


def costs_of(chain: Chain, balance: Literal["memory", "time"]) -> list[float]:
    """The cost of each unit: bytes that it saves for its backward pass, or seconds that it may take."""
    return [float(saved_bytes(unit.module, unit.entering)) for unit in chain.units]


def saved_bytes(module: nn.Module, entering: tuple[int, ...], batch: int = 2) -> int:
    """Bytes an image of all that a module keeps for its backward pass, its weights aside."""
    meta = {
        name: torch.empty_like(value, device="meta").requires_grad_(value.requires_grad)
        for name, value in (*module.named_parameters(), *module.named_buffers())
    }
    weights = {value.untyped_storage()._cdata for value in meta.values()}
    held: dict[int, int] = {}
    keep = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            held[storage._cdata] = storage.nbytes()
            keep.append(storage)  # as long as it lives, its address is its own
        return tensor

    modes = [(m, m.training) for m in module.modules()]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            functional_call(module.train(), meta, torch.empty(batch, *entering, device="meta"))
    finally:
        for m, mode in modes:
            m.training = mode
    return sum(held.values()) // batch
