"""Contrastive training whose classes end up at right angles, however uneven their sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._contrast import Projected
from repertoire.ops import Memory
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["ReLUEmbedding"]


@register("methods", "relu-embedding", paper="scl-relu-geometry")
class ReLUEmbedding(Projected, Memory):
    """Contrastive training of embeddings without negative entries, with a fixed example of each class in every batch.

    Kini, Vakilian, Behnia, Gill and Thrampoulidis, *Symmetric Neural-Collapse Representations with Supervised
    Contrastive Loss: The Impact of ReLU and Batching* (2023). Two changes to `Embedding`:

    - the projector ends with a ReLU: the embeddings that minimise the supervised contrastive loss then lie at right
      angles, one direction for each class, whatever the sizes of the classes;
    - **batch binding**: one fixed example of each class is appended to every batch, so that all batches have the same
      minimisers.

    The fixed example of a class is the first one that was seen of it, in the view it was seen in; all classes are there
    after the first steps. The examples are part of the state, and the same on every rank.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        loss: a loss on embeddings or on views; the paper uses `supcon`.
        image_size: side of the images in pixels. Needed for binding only.
        bind: append the fixed examples.
        dimensions: width of the projector's output, as many as there are classes or more: so many right angles fit.
        hidden: width of the projector's hidden layer; the backbone's own width if None.

    Attributes:
        bound: float `[C, channels, size, size]`, the examples.
        bound_index: int64 `[C]`, their numbers in the data set; -1 where none was seen yet.

    Raises:
        ConfigError: fewer dimensions than classes, or binding without an image size; see also `Embedding`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, ReLUEmbedding
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = ReLUEmbedding(model, losses.SupCon(), image_size=4)
        >>> batch = Batch((torch.rand(4, 1, 4, 4),) * 2, torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> loss = method.step(batch).loss
        >>> method.after_update()
        >>> method.bound_index
        tensor([0, 2])
    """

    bound: Tensor
    bound_index: Tensor
    # The fixed examples are samples of a training set, by their numbers in it.
    begins_anew = frozenset({"bound", "bound_index"})
    needs = Needs(views=2, labels="used", step="whole", per_sample=False, augmentation="simclr", loss="supcon")
    known = ("index",)
    remembers: ClassVar = {"images": "rows", "index": "rows"}

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        image_size: Annotated[int, AtLeast(1)] | None = None,
        bind: bool = True,
        dimensions: Annotated[int, AtLeast(1)] = 128,
        hidden: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        super().__init__(model, loss, dimensions=dimensions, hidden=hidden)
        classes = model.head.num_classes
        if dimensions < classes:
            raise ConfigError(f"dimensions must be {classes}, the number of classes, or more, found {dimensions}")
        if bind and image_size is None:
            raise ConfigError("binding needs image_size, the side of the images in pixels; give it, or bind=false")
        self.projector.append(nn.ReLU())
        self.bind = bind
        if bind:
            channels = model.normalize.mean.shape[1]
            self.register_buffer("bound", torch.zeros(classes, channels, image_size or 0, image_size or 0))
            self.register_buffer("bound_index", torch.full((classes,), -1, dtype=torch.int64))

    def step(self, batch: Batch) -> Step:
        """The loss of one batch and of the fixed examples."""
        if not self.bind:
            return super().step(batch)
        if batch.images.shape[1:] != self.bound.shape[1:]:
            raise ConfigError(
                f"binding keeps images of {list(self.bound.shape[1:])}, found {list(batch.images.shape[1:])}; give "
                "image_size, or bind=false"
            )
        there = (self.bound_index >= 0).nonzero().squeeze(1)
        if len(there) < len(self.bound_index) and len(batch):
            self._look_for_examples(batch)
        fixed = Batch((self.bound[there],) * len(batch.views), there, self.bound_index[there])
        return super().step(replace(batch, fields={}).join(fixed))

    def _look_for_examples(self, batch: Batch) -> None:
        """Remembers the first sample of each class: one row a class, with the number -1 where there is none."""
        classes, count = len(self.bound_index), len(batch)
        known = batch.targets >= 0
        place = torch.arange(count, device=batch.targets.device)[known]
        first = torch.full_like(self.bound_index, count).scatter_reduce_(0, batch.targets[known].long(), place, "amin")
        row = first.clamp(max=count - 1)
        self.remember(
            classes,
            images=batch.images[row].to(self.bound),
            index=torch.where(first < count, batch.index[row].to(self.bound_index), -1),
        )

    def commit(self, images: Tensor, index: Tensor) -> None:
        """Keeps the first example of each class that had none; rows are the classes, once a piece and rank."""
        candidates = index.view(-1, len(self.bound_index))
        there = candidates >= 0
        first = there.int().argmax(0)
        found = ((self.bound_index < 0) & there.any(0)).nonzero().squeeze(1)
        self.bound[found] = images.unflatten(0, candidates.shape)[first[found], found]
        self.bound_index[found] = candidates[first[found], found]
