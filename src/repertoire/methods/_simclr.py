"""SimCLR: the two views of an image find each other among all others."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from repertoire.losses import NTXent
from repertoire.methods._classifier import Classifier
from repertoire.methods._contrast import Projected
from repertoire.methods._mlp import mlp
from repertoire.methods._recipe import UNLABELLED
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["SimCLR"]


@register("methods", "simclr", paper="simclr")
class SimCLR(Projected):
    """SimCLR: pretraining without labels; the two views of an image find each other among all others of the batch.

    Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations* (2020): two augmented views of
    each image pass through backbone and projector, and NT-Xent compares them (:func:`repertoire.losses.nt_xent_loss`
    has the formula). The projector is thrown away afterwards. It wants large batches, from which the negatives come.

    A linear read-out learns beside it from detached features, as in `Embedding`.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        temperature: tau, positive; the paper's best is 0.1 on ImageNet and 0.5 on CIFAR-10.
        dimensions: width of the projector's output.
        hidden: width of the projector's hidden layer; the backbone's own width if None, as in the paper.
        batch_norm: batch normalisation inside the projector and of its output, as in the released code; the paper's
            projector is two linear layers with a ReLU between.

    Raises:
        ConfigError: a width or a temperature that is not positive.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, SimCLR
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = SimCLR(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)))
        >>> unlabelled = torch.full((4,), -1)
        >>> step = method.step(Batch((torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)), unlabelled, torch.arange(4)))
        >>> sorted(step.logs)
        ['accuracy', 'loss', 'readout_loss']
    """

    needs = replace(Projected.needs, labels="unused", loss="", defaults=UNLABELLED)

    def __init__(
        self,
        model: Classifier,
        temperature: Annotated[float, Positive] = 0.1,
        dimensions: Annotated[int, AtLeast(1)] = 128,
        hidden: Annotated[int, AtLeast(1)] | None = None,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(model, NTXent(temperature), dimensions=dimensions, hidden=hidden)
        if batch_norm:
            width = model.backbone.out_features
            self.projector = mlp(width, hidden or width, dimensions, last_norm=True)
