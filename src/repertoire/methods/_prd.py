"""PRD: new classes by supervised contrast, and old prototypes that keep their relations to the samples at hand."""

from __future__ import annotations

from typing import Annotated, Self

import torch
from torch import Tensor

from repertoire.data import Batch
from repertoire.errors import ConfigError, option
from repertoire.heads import Cosine, Head, NormalizedSoftmax
from repertoire.losses import SupCon, cross_entropy, relation_distillation
from repertoire.methods._base import Method, Needs, Stage, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._mlp import mlp
from repertoire.methods._staged import as_it_was
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["PRD"]


@register("methods", "prd", paper="prd")
class PRD(Method):
    r"""PRD: learns new classes without a memory of samples, and lets class prototypes follow the features.

    Asadi et al., *Prototype-Sample Relation Distillation: Towards Replay-Free Continual Learning* (2023):

    .. math:: \ell = \ell_\mathrm{SupCon} + \alpha\,\ell_\mathrm{proto} + \beta\,\ell_\mathrm{PRD}

    SupCon learns features of the samples of the stage, through a projector. The prototypes of the classes are the head
    (:class:`repertoire.heads.NormalizedSoftmax`, which this method brings), so that an answer is the nearest by cosine:
    those of the stage's classes learn by cross-entropy among themselves, of features that get no gradient of it. Those
    of earlier classes learn by the third term alone, :func:`repertoire.losses.relation_distillation`, which features
    learn by too: each has to see the samples of the batch as it did before the stage, by the network that there was.

    The batch is what that term's distributions are over: 128 samples or more, which is the default. What is kept
    between stages is the network, and nothing of the samples. In the authors' code the second term is one less the
    cosine to the prototype of the class; the weights are those of their commands.

    Args:
        model: normalisation, backbone and head.
        alpha: weight of the prototypes' loss, 0 or more.
        beta: weight of the relations, 0 or more; with 0 it is SupCon with a read-out by prototypes.
        temperature: of SupCon, positive.
        relation_temperature: of the relations, positive.
        dimensions: width of the projector's output.
        hidden: width of the projector's hidden layer; the backbone's own width if None.

    Raises:
        ConfigError: a head without prototypes that are compared by cosine, or an option out of range.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import PRD, Classifier, Normalize, Stage
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.NormalizedSoftmax(net.out_features, 2))
        >>> method = PRD(model)
        >>> model.head.grow(4)
        >>> method.begin(Stage(1, 2, ("a", "b", "c", "d"), new=(2, 3)))
        >>> views = torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)
        >>> sorted(method.step(Batch(views, torch.tensor([2, 2, 3, 3]), torch.arange(4))).logs)
        ['accuracy', 'loss', 'prototype_loss', 'relation_loss']
    """

    needs = Needs(
        views=2,
        labels="required",
        targets=frozenset({"classes"}),
        step="whole",
        per_sample=False,
        within_rank=True,
        head="normalized-softmax:temperature=0.1",
        augmentation="simclr",
        defaults={"batch_size": 128},
    )

    def __init__(
        self,
        model: Classifier,
        alpha: Annotated[float, AtLeast(0)] = 2.0,
        beta: Annotated[float, AtLeast(0)] = 4.0,
        temperature: Annotated[float, Positive] = 0.1,
        relation_temperature: Annotated[float, Positive] = 1.0,
        dimensions: Annotated[int, AtLeast(1)] = 128,
        hidden: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        super().__init__()
        _prototypes(model.head)
        self.model = model
        self.alpha = alpha
        self.beta = beta
        self.relation_temperature = relation_temperature
        self.loss = SupCon(temperature)
        width = model.backbone.out_features
        self.projector = mlp(width, hidden or width, dimensions, batch_norm=False)
        self.known = self.first = 0
        self.teacher: Classifier | None
        self.register_module("teacher", None)

    def train(self, mode: bool = True) -> Self:
        """The copy stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def begin(self, stage: Stage) -> None:
        self.known = len(stage.classes) - len(stage.new)
        # Where samples of earlier classes come again, all classes learn from them.
        least = [int(batch.targets.min()) for batch in stage.batches()]
        self.first = min([self.known if stage.new else 0, *least])
        self.teacher = as_it_was(self.model) if self.known and self.beta else None

    def step(self, batch: Batch) -> Step:
        images = torch.cat(batch.views)
        labels = batch.targets.long().repeat(len(batch.views))
        features = self.model.embed(images)
        contrast = self.loss(self.projector(features), labels)
        scores, among = self.model.head(features.detach())[:, self.first :], labels - self.first
        prototypes = cross_entropy(scores, among)
        loss = contrast + self.alpha * prototypes
        logs = {"prototype_loss": prototypes.detach()}
        if self.teacher is not None:
            with torch.no_grad():
                before = self.teacher.embed(images)
            moved = relation_distillation(
                features,
                _prototypes(self.model.head)[: self.known],
                before,
                _prototypes(self.teacher.head)[: self.known],
                temperature=self.relation_temperature,
            )
            loss, logs["relation_loss"] = loss + self.beta * moved, moved.detach()
        accuracy = (scores.detach().argmax(1) == among).sum() / max(1, len(labels))
        return Step(loss, {**logs, "loss": loss.detach(), "accuracy": accuracy})


def _prototypes(head: Head) -> Tensor:
    """The class vectors `[C, d]` of a head that compares by cosine.

    Raises:
        ConfigError: there are none.
    """
    if not isinstance(head, Cosine | NormalizedSoftmax):
        raise ConfigError(
            f"method 'prd' compares features with prototypes by cosine, and head {type(head).__name__} does not: leave "
            f"{option('head')} out, or use {option('head', 'normalized-softmax')}"
        )
    return head.weight
