"""Training an embedding with a loss on embeddings or on views, and reading the classes out of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import EmbeddingLoss, LogitsLoss, Loss
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._readout import read_out
from repertoire.registry import register

__all__ = ["Embedding"]


@register("methods", "embedding")
class Embedding(Method):
    """Trains backbone and projector with a contrastive loss, and a linear read-out that sends no gradient back.

    As in Khosla et al., *Supervised Contrastive Learning* (2020), the loss sees the output of a two-layer projector
    which is thrown away afterwards, and classes are read out of the backbone's features. The paper trains the read-out
    in a second stage; here it learns beside the encoder from detached features, which gives `predict` at any time and
    changes nothing for the encoder.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        loss: a loss on embeddings (it gets the labels) or on views (it does not).
        dimensions: width of the projector's output.
        hidden: width of the projector's hidden layer; the backbone's own width if None.

    Raises:
        ConfigError: the loss is one on logits, or needs to know more of a sample than its number in the data set.

    Example:
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.methods import Classifier, Embedding, Normalize
        >>> net = backbones.resnet20()
        >>> model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 10))
        >>> import torch
        >>> from repertoire.data import Batch
        >>> method = Embedding(model, losses.SupCon())
        >>> views = (torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32))
        >>> sorted(method.step(Batch(views, torch.tensor([0, 0, 1, 1]), torch.arange(4))).logs)
        ['accuracy', 'loss', 'readout_loss']
    """

    needs = Needs(views=2, labels="used", per_sample=False, augmentation="simclr")

    def __init__(self, model: Classifier, loss: Loss, dimensions: int = 128, hidden: int | None = None) -> None:
        super().__init__()
        if isinstance(loss, LogitsLoss):
            raise ConfigError(
                "method 'embedding' needs a loss on embeddings or on views; use method 'supervised' for this one"
            )
        unknown = [name for name in loss.wants if name != "index"]
        if unknown:
            raise ConfigError(
                f"this loss needs the {' and the '.join(unknown)} of every sample, which images do not come with; use "
                "the loss in a loop of your own"
            )
        if dimensions < 1 or (hidden is not None and hidden < 1):
            raise ConfigError(f"dimensions and hidden must be positive, found {dimensions} and {hidden}")
        self.model = model
        self.loss = loss
        self.needs = replace(self.needs, views=max(2, loss.views))
        loss.prepare(dimensions)
        width = model.backbone.out_features
        hidden = hidden or width
        self.projector = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, dimensions))

    def objective(self, features: Tensor, batch: Batch) -> Step:
        projected = self.projector(features)
        count = len(batch.views)
        labels = batch.targets.repeat(count)
        if isinstance(self.loss, EmbeddingLoss):
            # An unlabelled sample is a class of its own, in the memory of a loss too: its views are its only positives.
            own = -1 - batch.index.to(labels.device).repeat(count)
            known = {"index": batch.index.repeat(count)} if "index" in self.loss.wants else {}
            loss = self.loss(projected, torch.where(labels < 0, own, labels), **known)
        else:
            known = {"index": batch.index} if "index" in self.loss.wants else {}
            loss = self.loss(*projected.chunk(count), **known)
        readout, logs = read_out(self.model.head, features, labels)
        return Step(loss + readout, {"loss": loss.detach(), **logs})

    def after_update(self) -> None:
        super().after_update()
        self.loss.after_update()
