"""How many bytes of tensors are alive at once, counted operation by operation."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the memory of what operations give, as long as a tensor of it is alive. What files are mapped to does not
    count."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, tuple[int, int]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if torch.is_tensor(leaf):
                place = leaf.untyped_storage().data_ptr()
                if place in self.held or place not in given:
                    self._hold(leaf, place)
        return result

    def _hold(self, tensor: torch.Tensor, place: int) -> None:
        size, users = self.held.get(place, (tensor.untyped_storage().nbytes(), 0))
        if users == 0:
            self.now += size
            self.peak = max(self.peak, self.now)
        self.held[place] = size, users + 1
        weakref.finalize(tensor, self._release, place)

    def _release(self, place: int) -> None:
        size, users = self.held.pop(place)
        if users > 1:
            self.held[place] = size, users - 1
        else:
            self.now -= size


@contextmanager
def live_bytes() -> Iterator[Live]:
    with Live() as seen:
        yield seen
