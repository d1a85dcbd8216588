"""A first-in, first-out memory of rows, with their labels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops._memory import Memory

__all__ = ["Queue"]


class Queue(Memory):
    """The rows that were pushed last, and their labels: a first-in, first-out memory in a ring buffer.

    The memory of He et al., *Momentum Contrast for Unsupervised Visual Representation Learning* (MoCo, 2020): negatives
    from earlier batches, so that their number does not depend on the batch. There it begins with random rows; here it
    begins empty and grows, so that nothing is contrasted with noise.

    All state is in buffers: a method that owns a queue resumes exactly, and a copy of it copies the queue.

    `rows` and `labels` are views of the memory, not copies: a `push` before the backward pass is over changes what that
    pass needs, which autograd refuses. In a method or a loss, `see` keeps rows aside in `forward`, and they are pushed
    when the weights have changed, those of all ranks, so that all queues stay the same
    (:class:`repertoire.ops.Memory`). `push` itself, for a memory that holds a queue and for loops of one's own, pushes
    what it is given and asks no other rank.

    Args:
        size: rows to remember, positive.
        dimensions: width of a row, positive.

    Attributes:
        memory: float `[size, dimensions]`, the ring; rows not yet written are zero.
        memory_labels: int64 `[size]`; -1 where not yet written, or pushed without a label.
        pushed: int64 `[]`, rows ever pushed.

    Raises:
        ConfigError: a size that is not positive.

    Example:
        >>> import torch
        >>> from repertoire.ops import Queue
        >>> queue = Queue(size=3, dimensions=2)
        >>> queue.push(torch.eye(2), torch.tensor([5, 6]))
        >>> len(queue), queue.labels
        (2, tensor([5, 6]))
        >>> queue.push(torch.ones(2, 2), torch.tensor([7, 8]))  # the oldest row makes room
        >>> queue.labels
        tensor([8, 6, 7])
        >>> queue.see(torch.ones(1, 2))  # nothing moves before the weights have changed
        >>> len(queue), int(queue.pushed)
        (3, 4)
        >>> queue.after_update()
        >>> int(queue.pushed)
        5
    """

    remembers: ClassVar = {"rows": "rows", "labels": "rows"}

    memory: Tensor
    memory_labels: Tensor
    pushed: Tensor

    def __init__(self, size: int, dimensions: int) -> None:
        super().__init__()
        if size < 1 or dimensions < 1:
            raise ConfigError(f"size and dimensions of a queue must be positive, found {size} and {dimensions}")
        self.register_buffer("memory", torch.zeros(size, dimensions))
        self.register_buffer("memory_labels", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))
        self._seen: tuple[Tensor, int, int] | None = None

    @property
    def rows(self) -> Tensor:
        """The remembered rows, float `[n, dimensions]` with n up to `size`, in no particular order."""
        return self.memory[: len(self)]

    @property
    def labels(self) -> Tensor:
        """The labels of `rows`, int64 `[n]`."""
        return self.memory_labels[: len(self)]

    def __len__(self) -> int:
        return min(self._total(), len(self.memory))

    def see(self, rows: Tensor, labels: Tensor | None = None) -> None:
        """Keeps rows aside, to be pushed when the weights have changed; in training only.

        Args:
            rows: float `[N, dimensions]`.
            labels: integers `[N]`; -1 if None.
        """
        if labels is None:
            labels = self.pushed.new_full((len(rows),), -1)
        self.remember(len(rows), rows=rows, labels=labels)

    def commit(self, rows: Tensor, labels: Tensor) -> None:
        self.push(rows, labels)

    @torch.no_grad()
    def push(self, rows: Tensor, labels: Tensor | None = None) -> None:
        """Remembers rows, detached, in place of the oldest ones.

        Args:
            rows: float `[N, dimensions]` of any floating point dtype; of more than `size` rows the last ones stay.
            labels: integers `[N]`; -1 if None.

        Raises:
            ShapeError: shapes or dtypes that do not fit.
        """
        size, width = self.memory.shape
        if rows.ndim != 2 or rows.shape[1] != width or not rows.is_floating_point():
            raise ShapeError(f"rows must be a floating point [N, {width}], found {rows.dtype} {list(rows.shape)}")
        if labels is None:
            labels = rows.new_full((len(rows),), -1, dtype=torch.int64)
        elif labels.shape != rows.shape[:1] or labels.is_floating_point() or labels.is_complex():
            raise ShapeError(f"labels must be integers [{len(rows)}], found {labels.dtype} {list(labels.shape)}")
        rows, labels = rows.detach().to(self.memory.dtype), labels.to(torch.int64)
        total = self._total()
        end = total + len(rows)
        # Of more rows than there is room for, the last ones; their place is where they would have ended up.
        rows, labels = rows[-size:], labels[-size:]
        start = (end - len(rows)) % size
        ahead = min(len(rows), size - start)
        for memory, values in ((self.memory, rows), (self.memory_labels, labels)):
            memory[start : start + ahead] = values[:ahead]
            memory[: len(values) - ahead] = values[ahead:]
        self.pushed.fill_(end)
        self._seen = (self.pushed, self.pushed._version, end)

    def _total(self) -> int:
        """Rows ever pushed, as a number: read from the buffer only when something else has written to it, because to
        read it waits for the device.

        Anything may write to it unseen through `.data`, which counts no version; on the CPU, where a look costs
        nothing, it is always read.
        """
        if self.pushed.device.type == "cpu":
            return int(self.pushed)
        seen = self._seen
        if seen is None or seen[0] is not self.pushed or seen[1] != self.pushed._version:
            self._seen = seen = (self.pushed, self.pushed._version, int(self.pushed))
        return seen[2]

    def __getstate__(self) -> dict[str, object]:
        # The buffers of a copy are others.
        return {**super().__getstate__(), "_seen": None}

    def extra_repr(self) -> str:
        return f"size={len(self.memory)}, dimensions={self.memory.shape[1]}"
