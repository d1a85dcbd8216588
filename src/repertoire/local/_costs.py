"""Costs of a unit, predicted without computing anything."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from repertoire.local._units import Chain
from repertoire.ops import keeping_modes

__all__ = ["costs_of", "saved_bytes", "work_of"]

OPERATIONS_PER_BYTE = 10.0
"""Arithmetic that a machine does in the time in which it moves a byte to or from memory: 180 GFLOP/s against about 20
GB/s on two cores, 60 TFLOP/s against 3.3 TB/s in float32 on a large GPU. Only ratios between units depend on it."""


def costs_of(chain: Chain, balance: Literal["memory", "time"]) -> list[float]:
    """The cost of each unit: bytes that it saves for its backward pass, or the work that its time should follow."""
    cost = saved_bytes if balance == "memory" else work_of
    return [float(cost(unit.module, unit.entering)) for unit in chain.units]


def work_of(module: nn.Module, entering: tuple[int, ...], batch: int = 2) -> float:
    """Operations an image of a forward pass, with each byte that is moved counted as the operations it could have been.

    The backward pass takes about twice that in every unit, so it changes no ratio.
    """
    weights = _meta(module)
    with _Work() as counter:
        _forward(module, entering, batch, weights)
    return (counter.operations + OPERATIONS_PER_BYTE * counter.bytes) / batch


class _Work(TorchDispatchMode):
    """Counts operations of matrix products and convolutions, and the bytes that any operator reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        view = any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns)
        if read and not view:
            moved = [*read, *(t for t in tree_leaves(out) if isinstance(t, Tensor))]
            self.bytes += sum(t.numel() * t.element_size() for t in moved)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=out)
        return out


def _meta(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module, without memory behind them."""
    return {
        name: torch.empty_like(value, device="meta").requires_grad_(value.requires_grad)
        for name, value in (*module.named_parameters(), *module.named_buffers())
    }


def _forward(module: nn.Module, entering: tuple[int, ...], batch: int, weights: dict[str, Tensor]) -> None:
    """A forward pass in training mode that computes nothing."""
    with keeping_modes(module):
        dtype = next((value.dtype for value in weights.values() if value.is_floating_point()), None)
        functional_call(module.train(), weights, torch.empty(batch, *entering, device="meta", dtype=dtype))


def saved_bytes(module: nn.Module, entering: tuple[int, ...], batch: int = 2) -> int:
    """Bytes an image of all that a module keeps for its backward pass, its weights aside."""
    meta = _meta(module)
    weights = {value.untyped_storage()._cdata for value in meta.values()}
    held: dict[int, int] = {}
    keep = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            held[storage._cdata] = storage.nbytes()
            keep.append(storage)  # as long as it lives, its address is its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _forward(module, entering, batch, meta)
    return sum(held.values()) // batch
