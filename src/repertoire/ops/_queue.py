"""A first-in, first-out memory of rows, with their labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops._ranks import of_all_ranks

__all__ = ["Queue"]


class Queue(nn.Module):
    """The rows that were pushed last, and their labels: a first-in, first-out memory in a ring buffer.

    The memory of He et al., *Momentum Contrast for Unsupervised Visual Representation Learning* (MoCo, 2020): negatives
    from earlier batches, so that their number does not depend on the batch. There it begins with random rows; here it
    begins empty and grows, so that nothing is contrasted with noise.

    All state is in buffers: a method that owns a queue resumes exactly, and a copy of it copies the queue. With several
    ranks every rank pushes the rows of all of them, so that all queues stay the same.

    `rows` and `labels` are views of the memory, not copies. Push when the backward pass is over, in
    `Method.after_update`: a push before it changes what the backward pass needs, which autograd refuses.

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
    """

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
        self._seen: tuple[int, int] | None = None

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
        rows, labels = of_all_ranks(rows.detach().to(self.memory.dtype)), of_all_ranks(labels.to(torch.int64))
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
        self._seen = (self.pushed._version, end)

    def _total(self) -> int:
        """Rows ever pushed, as a number: read from the buffer only when something else has written to it, because to
        read it waits for the device."""
        version = self.pushed._version
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, int(self.pushed))
        return self._seen[1]

    def __getstate__(self) -> dict[str, object]:
        # The buffers of a copy count their versions anew.
        return {**self.__dict__, "_seen": None}

    def _apply(self, *args: object, **kwargs: object) -> Queue:
        self._seen = None
        return super()._apply(*args, **kwargs)

    def extra_repr(self) -> str:
        return f"size={len(self.memory)}, dimensions={self.memory.shape[1]}"
