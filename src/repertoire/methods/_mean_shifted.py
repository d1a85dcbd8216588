"""Mean-shifted contrast: a pretrained network learns what one kind of image has in common."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.data import Batch
from repertoire.losses import Loss, MeanShiftedContrast
from repertoire.methods._base import Method, Needs, Stage, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._readout import read_out
from repertoire.ops import unit_rows
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["MeanShifted"]


@register("methods", "mean-shifted", paper="msc-anomaly")
class MeanShifted(Method):
    r"""Anomaly detection: fine-tunes a pretrained network on normal images alone, without labels.

    Reiss and Hoshen, *Mean-Shifted Contrastive Loss for Anomaly Detection* (2021). Two views of each image are told
    from those of other images by their directions from c, the mean of the unit features of all training images, which
    is computed once, before training (:func:`repertoire.losses.mean_shifted_loss` has the formula). There is no
    projector: it is the features themselves that are compared, and that score new images afterwards, by the cosine
    distance to the nearest of the training images: `knn:neighbours=2`, where the paper adds up the distances to the two
    nearest. Of a network with random weights nothing is to be expected.

    Batch normalisation keeps the statistics of published weights, as in the released code. That code also freezes the
    first two stages and learns at a rate of 1e-5; here the rate falls from layer to layer (`layer_decay`), and is
    small, but not as small: half of the usual one, as wherever all of a pretrained network learns, which is 2.5e-4 for
    batches of 32. Two pilots, each with 100 photographs of a class of CIFAR-10, 3 epochs and lite0, speak for smaller
    rates rather than larger ones: 1e-3 made both classes harder to tell from others than they were to the network as
    it was, 2.5e-4 one harder and one easier, and 5e-5, tried on the latter, a little easier. Where the network tells
    them well already there is little to gain: compare with a rate of next to nothing, on images of other kinds.

    A read-out learns beside it from detached features where there are labels, as in `Embedding`.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        temperature: tau, positive; the paper uses 0.25.
        angular: weight of the term that keeps features near the direction of the centre, 0 or more; 1 as in the paper,
            whose best results have it. In the released code, where it is an option, 4 would be its weight.
        centred: whether directions are from the centre; False is plain NT-Xent of the features, to compare with, and
            leaves nothing to be near to.

    Attributes:
        loss: with the centre, which is zero, so that the loss is NT-Xent, until a stage of training begins.

    Raises:
        ConfigError: a temperature that is not positive, or a negative weight.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, MeanShifted, Normalize, Stage
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = MeanShifted(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)))
        >>> images, unlabelled, index = torch.rand(4, 1, 4, 4), torch.full((4,), -1), torch.arange(4)
        >>> method.begin(Stage(batches=lambda: [Batch((images,), unlabelled, index)]))
        >>> bool((method.loss.centre > 0).any())
        True
        >>> sorted(method.step(Batch((images, images), unlabelled, index)).logs)
        ['accuracy', 'loss', 'readout_loss']
    """

    needs = Needs(views=2, per_sample=False, augmentation="simclr:scale=(0.2,1),strength=0.5")
    begins_anew = frozenset({"loss.centre"})

    def __init__(
        self,
        model: Classifier,
        temperature: Annotated[float, Positive] = 0.25,
        angular: Annotated[float, AtLeast(0)] = 1.0,
        centred: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.centred = centred
        centre = torch.zeros(model.backbone.out_features)
        self.loss = MeanShiftedContrast(centre, temperature, angular)
        model.keeps_statistics = model.keeps_statistics or model.backbone.preset is not None

    @torch.no_grad()
    def begin(self, stage: Stage) -> None:
        """Takes the centre of the training set, as the network sees it now."""
        if not self.centred:
            return
        training = self.training
        self.eval()
        centre = self.loss.get_buffer("centre")
        summed, count = torch.zeros_like(centre, dtype=torch.float64), 0
        for batch in stage.batches():
            summed += unit_rows(self.model.embed(batch.images)).sum(0)
            count += len(batch)
        self.train(training)
        centre.copy_(summed / max(count, 1))

    @property
    def block_loss(self) -> Loss:
        return self.loss

    def objective(self, features: Tensor, batch: Batch) -> Step:
        loss = self.loss(*features.chunk(len(batch.views)))
        readout, logs = read_out(self.model.head, features, batch.targets.repeat(len(batch.views)))
        return Step(loss + readout, {"loss": loss.detach(), **logs})
