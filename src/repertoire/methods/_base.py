"""The contract of methods: what is optimised."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.methods._classifier import Classifier

__all__ = ["Method", "Step"]


@dataclass
class Step:
    """What one batch gives: the scalar to minimise, and scalars to log (detached)."""

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


class Method(nn.Module):
    """Owns modules and turns a batch into a loss.

    All state is in parameters and buffers, so that `state_dict` is a complete checkpoint. A method knows nothing of
    optimisers, devices or epochs; a learning rule turns its loss into changed weights.

    Attributes:
        model: the classifier inside: what is left when training is over.
        views: how many augmented views of each sample `step` wants.
        augmentation: the augmentation it was designed for, or None for whatever suits the data.
        needs_labels: whether images without a label are of no use to it.
        needs_masks: whether it wants the masks of the objects in `batch.masks`; then only data that has them will do.
        head: spec of the head that it brings where the user names none; empty for any.
        separable: whether the loss of a batch is the mean of the losses of its samples, so that a batch may be
            processed in pieces. Not so where samples are compared with each other.
    """

    model: Classifier
    views: int = 1
    augmentation: str | None = None
    needs_labels: bool = False
    needs_masks: bool = False
    head: str = ""
    separable: bool = True

    def step(self, batch: Batch) -> Step:
        """The loss of one batch: that of the features of all its views."""
        images = torch.cat(batch.views) if len(batch.views) > 1 else batch.images
        return self.objective(self.model.embed(images), batch)

    def objective(self, features: Tensor, batch: Batch) -> Step:
        """The loss of a batch, given the features `[V * N, d]` of its V views, one after the other.

        Apart from `step` so that a rule can train the network piece by piece. A method that needs more than one pass
        through its network overrides `step` instead.
        """
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """Features `[N, d]` of images `[N, C, H, W]` in [0, 1]."""
        return self.model.embed(images)

    def predict(self, images: Tensor) -> Tensor:
        """Logits `[N, K]` of images `[N, C, H, W]` in [0, 1]."""
        return self.model(images)

    def after_update(self) -> None:
        """Called when the weights have changed: the place for EMA teachers and queues. Does nothing by default."""

    def forward(self, batch: Batch) -> Step:
        """`step`; what wrappers such as DistributedDataParallel call."""
        return self.step(batch)
