"""Losses on embeddings that compare with a queue of earlier embeddings as well."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._function import derive
from repertoire.losses.contracts._positives import check_dimensions
from repertoire.ops import Queue
from repertoire.ranges import AtLeast

__all__ = ["MemoryLoss"]


class MemoryLoss(EmbeddingLoss):
    """Base of losses with an optional queue of the embeddings of earlier batches and their labels.

    The queue is part of the state. What a training step has seen is pushed when the weights have changed, in
    `after_update`. The function gets the queue as a part of its reference set, and `exclude`, int64 `[N]`: where in the
    reference set each embedding is itself, -1 if nowhere.
    """

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> None:
        def option(name: str, default: Any, annotation: Any) -> inspect.Parameter:
            return inspect.Parameter(
                name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation
            )

        derive(
            cls,
            function,
            after=[
                option("queue", 0, Annotated[int, AtLeast(0)]),
                option("dimensions", None, Annotated[int, AtLeast(1)] | None),
            ],
            texts={
                "queue": "embeddings of earlier batches to compare with as well; 0 for none.",
                "dimensions": "d; told by the method if None. Needed only with a queue.",
            },
        )

    def make(self, values: dict[str, Any]) -> None:
        self.queue_size: int = values.pop("queue")
        dimensions = values.pop("dimensions")
        super().make(values)
        self.queue: Queue | None = None
        if dimensions is not None:
            self.prepare(dimensions)

    def prepare(self, dimensions: int) -> None:
        """Makes the queue, empty."""
        check_dimensions(dimensions, None if self.queue is None else self.queue.memory.shape[1])
        if self.queue_size and self.queue is None:
            self.queue = Queue(self.queue_size, dimensions)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Tensor | None = None,
        reference_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings `[N, d]` with labels `[N]`, among themselves or against a reference set."""
        check_embeddings(embeddings, labels, reference, reference_labels)
        if self.queue_size and self.queue is None:
            raise ConfigError("dimensions of the embeddings are not known yet: give dimensions, or call prepare")
        exclude = None
        if self.queue is not None and len(self.queue):
            if reference is None or reference_labels is None:
                reference, reference_labels = embeddings, labels
                exclude = torch.arange(len(embeddings), device=embeddings.device)
            width = self.queue.memory.shape[1]
            if embeddings.shape[1] != width:
                raise ShapeError(
                    f"embeddings must be [N, {width}] like those of earlier batches, found {list(embeddings.shape)}"
                )
            reference = torch.cat([reference, self.queue.rows.to(embeddings.dtype)])
            reference_labels = torch.cat([reference_labels.long(), self.queue.labels])
        if self.queue is not None:
            self.queue.see(embeddings, labels)
        return self.call(embeddings, labels, reference=reference, reference_labels=reference_labels, exclude=exclude)
