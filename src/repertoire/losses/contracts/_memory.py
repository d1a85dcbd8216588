"""Losses on embeddings that compare with a queue of earlier embeddings as well."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import EmbeddingLoss
from repertoire.losses.contracts._positives import check_dimensions
from repertoire.ops import Queue

__all__ = ["Candidates", "MemoryLoss"]


class Candidates(NamedTuple):
    """What embeddings are compared with. `reference` is None where that is each other and nothing else."""

    reference: Tensor | None
    labels: Tensor | None
    exclude: Tensor | None
    """int64 `[N]`: where in the reference each embedding is itself, or None if it is not there."""


class MemoryLoss(EmbeddingLoss):
    """Base of losses with an optional queue of the embeddings of earlier batches and their labels.

    The queue is part of the state. While training, `after_update` pushes the embeddings of the last call.

    Args:
        queue: embeddings to remember; 0 for none.
        dimensions: d; told by the method if None. Needed only with a queue.

    Raises:
        ConfigError: a size out of range.
    """

    def __init__(self, queue: int = 0, dimensions: int | None = None) -> None:
        super().__init__()
        if queue < 0:
            raise ConfigError(f"queue must be 0, for none, or more, found {queue}")
        self.queue_size = queue
        self.queue: Queue | None = None
        self._pending: tuple[Tensor, Tensor] | None = None
        if dimensions is not None:
            self.prepare(dimensions)

    def prepare(self, dimensions: int) -> None:
        """Makes the queue, empty."""
        check_dimensions(dimensions, None if self.queue is None else self.queue.memory.shape[1])
        if self.queue_size and self.queue is None:
            self.queue = Queue(self.queue_size, dimensions)

    def candidates(
        self, embeddings: Tensor, labels: Tensor, reference: Tensor | None, reference_labels: Tensor | None
    ) -> Candidates:
        """What to compare the embeddings with: the reference set, or else each other; and the queue."""
        if self.queue_size and self.queue is None:
            raise ConfigError("dimensions of the embeddings are not known yet: give dimensions, or call prepare")
        if self.queue is None or not len(self.queue):
            found = Candidates(reference, reference_labels, None)
        else:
            exclude = None
            if reference is None or reference_labels is None:
                reference, reference_labels = embeddings, labels
                exclude = torch.arange(len(embeddings), device=embeddings.device)
            width = self.queue.memory.shape[1]
            if embeddings.shape[1] != width:
                raise ShapeError(
                    f"embeddings must be [N, {width}] like those of earlier batches, found {list(embeddings.shape)}"
                )
            rows = self.queue.rows.to(embeddings.dtype)
            found = Candidates(
                torch.cat([reference, rows]), torch.cat([reference_labels.long(), self.queue.labels]), exclude
            )
        if self.queue is not None and self.training:
            self._pending = embeddings.detach(), labels
        return found

    def after_update(self) -> None:
        """Pushes the embeddings of the last call into the queue."""
        if self.queue is not None and self._pending is not None:
            self.queue.push(*self._pending)
        self._pending = None
