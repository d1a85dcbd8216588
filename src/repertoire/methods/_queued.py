"""The base of MoCo and its descendants: contrast with a queue of keys that a slow copy made of earlier batches."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from repertoire.methods._classifier import Classifier
from repertoire.methods._mlp import mlp
from repertoire.methods._precision import at_least_float32
from repertoire.methods._two_networks import TwoNetworks
from repertoire.ops import Queue
from repertoire.ranges import AtLeast, Positive, Share

__all__ = ["Queued"]


class Queued(TwoNetworks):
    """Base of methods that contrast queries with the keys of the other view and with a queue of earlier keys.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        temperature: positive.
        momentum: of the teacher, in [0, 1].
        queue: keys to remember.
        dimensions: width of the embeddings.
        hidden: width of the projector's hidden layer; the backbone's own width if None.

    Raises:
        ConfigError: a width, a queue or a temperature that is not positive, or a momentum out of range.
    """

    def __init__(
        self,
        model: Classifier,
        temperature: Annotated[float, Positive] = 0.2,
        momentum: Annotated[float, Share] = 0.999,
        queue: Annotated[int, AtLeast(1)] = 4096,
        dimensions: Annotated[int, AtLeast(1)] = 128,
        hidden: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        width = model.backbone.out_features
        super().__init__(model, mlp(width, hidden or width, dimensions, batch_norm=False), momentum)
        self.temperature = temperature
        self.queue = Queue(queue, dimensions)

    def compare(self, views: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        features = self.model.embed(views[0])
        keys = F.normalize(at_least_float32(self.teacher(views[1])))
        self.queue.see(keys)
        return self.contrast(at_least_float32(self.projector(features)), keys), features

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The loss of queries and keys `[N, d]`; without a queue, which begins empty, of the keys alone."""
        raise NotImplementedError
