"""State that follows training: queues, banks, centres, running means, and when they may move."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Self
from weakref import WeakSet

import torch
from torch import Tensor, distributed, nn

from repertoire.errors import RepertoireWarning
from repertoire.ops._ranks import of_all_ranks, ranks_of

__all__ = ["Memory", "commit_memories", "discard_memories", "frozen_memories", "sees_all_ranks"]


_ALIVE: WeakSet[Memory] = WeakSet()
"""All memories: where there are none, no network need be searched for them in each step. One is noted when it is
made, not when it sees something, which compiled code would not note."""


_MANY = 1000
"""Pieces of a batch that no loop has any use for: whoever has seen so many was never told of an update."""


class Memory(nn.Module):
    """Base of modules whose buffers move once for each update of the weights, and never in between.

    A queue of earlier embeddings, a centre, a running second moment, a temperature of each sample: what they hold next
    depends on the batch, and a training step may look at a batch more than once (sharpness-aware minimisation), in
    pieces (accumulation, gradient caching), or in vain (an overflow in float16). So `forward` changes no buffer. It
    calls `remember`, which keeps what was seen aside; when the weights have changed, `commit` gets everything that was
    seen in this step, by all ranks, and writes it. Where the update did not happen, or a value is not finite, what was
    seen is dropped and the buffers stay as they were.

    A subclass declares in `remembers` what it keeps and how pieces and ranks are put together:

    - "rows": one row a sample; pieces follow each other, and the ranks follow each other;
    - "mean": one value a batch; the mean over pieces and ranks, weighted by the number of samples.

    Nothing is remembered in evaluation mode. All state is in buffers, so `state_dict` is complete.

    Example:
        >>> import torch
        >>> from repertoire.ops import Memory
        >>> class Centre(Memory):
        ...     remembers = {"mean": "mean"}
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.register_buffer("centre", torch.zeros(2))
        ...     def forward(self, z):
        ...         self.remember(len(z), mean=z.mean(0))
        ...         return (z - self.centre).pow(2).sum()
        ...     def commit(self, mean):
        ...         self.centre.lerp_(mean, 0.5)
        >>> module = Centre()
        >>> _ = module(torch.ones(4, 2))
        >>> module.centre  # not before the weights have changed
        tensor([0., 0.])
        >>> module.after_update()
        >>> module.centre
        tensor([0.5000, 0.5000])
    """

    remembers: ClassVar[dict[str, Literal["rows", "mean"]]] = {}
    #: Names of buffers that are about one training set, a row for each of its samples, say: a next stage has its own.
    begins_anew: ClassVar[frozenset[str]] = frozenset()
    _frozen: bool = False
    #: Whether what is seen just now is of all ranks already (`sees_all_ranks`).
    _whole: bool = False

    def __new__(cls, *args: Any, **options: Any) -> Self:
        made = super().__new__(cls)
        _ALIVE.add(made)
        return made

    def remember(self, count: int, **values: Tensor) -> None:
        """Keeps what was seen, detached, until the weights have changed. To be called in `forward`.

        Args:
            count: samples that the values are of.
            values: as declared in `remembers`; all of them.
        """
        if not self.training or self._frozen:
            return
        if values.keys() != self.remembers.keys():
            raise TypeError(f"{type(self).__name__} remembers {sorted(self.remembers)}, found {sorted(values)}")
        pending = self.__dict__.setdefault("_pending", [])
        pending.append((count, {name: value.detach() for name, value in values.items()}, self._whole))
        if len(pending) == _MANY and not torch.compiler.is_compiling():
            warnings.warn(
                f"{type(self).__name__} has seen {_MANY} batches or pieces of them, and no update of the weights: call "
                "its after_update() after each step of the optimiser, or nothing is remembered and all of it is kept",
                RepertoireWarning,
                stacklevel=2,
            )

    def commit(self, *args: Any, **values: Any) -> None:
        """Writes what was seen in one step, by all pieces and ranks, into the buffers. A subclass takes the tensors
        that it declares in `remembers`, by name."""
        raise NotImplementedError

    @torch.no_grad()
    def after_update(self) -> None:
        """Commits what was remembered since the last update, in this module and in those inside it."""
        commit_memories(self)

    def _take(self) -> dict[str, Tensor] | None:
        """Takes what was remembered out, put together over pieces and ranks; None where there is nothing."""
        pending = self._drop()
        if not pending:
            return None
        counts = [count for count, _, _ in pending]
        # The same on every rank, so that all of them ask the others, or none.
        parallel = ranks_of() > 1 and not all(whole for _, _, whole in pending)
        together: dict[str, Tensor] = {}
        for name, how in self.remembers.items():
            pieces = [values[name] for _, values, _ in pending]
            if how == "rows":
                rows = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
                together[name] = of_all_ranks(rows) if parallel else rows
            else:
                together[name] = _mean(pieces, counts, parallel)
        return together

    def _drop(self) -> list[tuple[int, dict[str, Tensor], bool]]:
        """Forgets what was remembered, and gives it."""
        found: list[tuple[int, dict[str, Tensor], bool]] = self.__dict__.pop("_pending", [])
        return found

    def __getstate__(self) -> dict[str, object]:
        # A copy has seen nothing yet.
        return {name: value for name, value in self.__dict__.items() if name != "_pending"}


def _mean(pieces: list[Tensor], counts: list[int], parallel: bool) -> Tensor:
    if len(pieces) == 1 and not parallel:
        return pieces[0]
    total = torch.stack([piece * count for piece, count in zip(pieces, counts, strict=True)]).sum(0)
    number = torch.tensor(float(sum(counts)), device=total.device, dtype=total.dtype)
    if parallel:
        distributed.all_reduce(total)
        distributed.all_reduce(number)
    return total / number.clamp_min(1)


def _memories(module: nn.Module) -> list[Memory]:
    return [found for found in module.modules() if isinstance(found, Memory)]


@torch.no_grad()
def commit_memories(module: nn.Module) -> None:
    """Commits what every memory inside a module has remembered. To be called when the weights have changed.

    Where any value is not finite, nothing is committed: the step that it comes from was spoilt.
    """
    if not _ALIVE:
        return
    taken = [(memory, memory._take()) for memory in _memories(module)]
    seen = [(memory, values) for memory, values in taken if values is not None]
    finite = [v.isfinite().all() for _, values in seen for v in values.values() if v.is_floating_point()]
    # Every rank has the same values here, so that all of them decide alike; and all memories wait for one look.
    if finite and not bool(torch.stack([flag.to(finite[0].device) for flag in finite]).all()):
        return
    for memory, values in seen:
        memory.commit(**values)


def discard_memories(module: nn.Module) -> None:
    """Drops what the memories inside a module have remembered: the update of the weights did not happen."""
    for memory in _memories(module) if _ALIVE else ():
        memory._drop()


@contextmanager
def frozen_memories(module: nn.Module) -> Iterator[None]:
    """The memories inside a module remember nothing for a while: for passes that look at a batch again."""
    held = [memory for memory in _memories(module) if not memory._frozen]
    for memory in held:
        memory._frozen = True
    try:
        yield
    finally:
        for memory in held:
            memory._frozen = False


@contextmanager
def sees_all_ranks(module: nn.Module) -> Iterator[None]:
    """The memories inside a module are shown the samples of all ranks for a while, the same ones on every rank, so that
    they need not ask the others for theirs."""
    held = [memory for memory in _memories(module) if not memory._whole]
    for memory in held:
        memory._whole = True
    try:
        yield
    finally:
        for memory in held:
            memory._whole = False
