"""Supervised contrast between passes with different dropout, in place of augmented images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._contrast import Projected
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["DropoutViews"]

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@register("methods", "dropout-views", paper="supcl-seq")
class DropoutViews(Projected):
    """SupCL-Seq: the views of a sample are passes of it through the network with different dropout.

    Sedghamiz et al., *SupCL-Seq: Supervised Contrastive Learning for Downstream Optimized Sequence Representations*
    (2021): where an augmentation could change what a sample means, as with a sentence, the same input passes through
    the encoder once for each dropout rate, and a supervised contrastive loss sees all passes and the labels.

    The rate is set in every dropout layer of the backbone. A backbone that has none gets dropout on its features, and
    one pass is enough. Outside training there is no dropout, and the views are equal.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        loss: a loss on embeddings or on views; the paper uses `supcon` with a temperature of 0.05.
        rates: the dropout rate of each view, two or more in [0, 1). The released code takes 0.0, 0.05 and 0.2 beside a
            pass with the rate that the encoder came with, 0.1.
        dimensions: width of the projector's output.
        hidden: width of the projector's hidden layer; the backbone's own width if None.

    Raises:
        ConfigError: fewer than two rates, or one out of range; see also `Embedding`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, DropoutViews, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = DropoutViews(model, losses.SupCon(), rates=(0.0, 0.1, 0.2))
        >>> sorted(method.step(Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))).logs)
        ['accuracy', 'loss', 'readout_loss']
    """

    needs = Needs(labels="used", step="whole", per_sample=False, loss="supcon:temperature=0.05")
    known = ("index",)

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        rates: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2),
        dimensions: Annotated[int, AtLeast(1)] = 128,
        hidden: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        super().__init__(model, loss, dimensions=dimensions, hidden=hidden)
        if len(rates) < 2 or not all(0 <= rate < 1 for rate in rates):
            raise ConfigError(f"rates must be two or more dropout rates in [0, 1), found {rates}")
        self.rates = tuple(rates)

    def _views(self, loss: Loss) -> int:
        return 1

    def step(self, batch: Batch) -> Step:
        """The loss of one batch, of which only the first view is used."""
        images = batch.images
        layers: list[nn.Module] = [module for module in self.model.backbone.modules() if isinstance(module, _DROPOUT)]
        if layers:
            features = torch.cat([self._embed(images, layers, rate) for rate in self.rates])
        else:
            plain = self.model.embed(images)
            features = torch.cat([F.dropout(plain, rate, self.training) for rate in self.rates])
        return self.objective(features, replace(batch, views=(images,) * len(self.rates), names=()))

    def _embed(self, images: Tensor, layers: list[nn.Module], rate: float) -> Tensor:
        with _rate(layers, rate):
            return self.model.embed(images)


@contextmanager
def _rate(layers: list[nn.Module], rate: float) -> Iterator[None]:
    """The dropout layers with one rate; with their own again afterwards."""
    kept = [layer.p for layer in layers]
    try:
        for layer in layers:
            layer.p = rate  # type: ignore[assignment]
        yield
    finally:
        for layer, own in zip(layers, kept, strict=True):
            layer.p = own
