"""Labels of a teacher: what a finished run says of unlabelled samples is learned beside the labels that there are."""

from __future__ import annotations

from typing import Annotated

import torch

from repertoire.data import Batch
from repertoire.losses import Loss
from repertoire.methods._base import Needs, Step, Stream
from repertoire.methods._beside import STREAM, at_ratio, unlabelled_of
from repertoire.methods._classifier import Classifier
from repertoire.methods._taught import Taught
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["TeacherLabels"]


@register("methods", "teacher-labels", paper="imbalanced-semi-self")
class TeacherLabels(Taught):
    r"""Learns from labelled samples, and from unlabelled ones with the labels that a finished run gives them.

    Yang and Xu, *Rethinking the Value of Labels for Improving Class-Imbalanced Learning* (2020). Where classes are
    rare, more samples without labels help although their labels are guessed: a first network that learned from the
    labelled samples alone (`--teacher runs/first`) names the others, and a fresh one learns from both, by any loss for
    uneven classes:

    .. math:: \ell = \frac{1}{B} \sum_b \ell\bigl(f(x_b), y_b\bigr)
        + \frac{\omega}{U} \sum_u \ell\bigl(f(x_u), \hat y_u\bigr), \qquad \hat y_u = \arg\max_c f_T(x_u)_c

    The paper finds that it matters whether unlabelled samples are of the same classes at all, and how uneven these are
    among them. The released code puts both kinds of samples into one set, five unlabelled ones for each labelled one:
    that is `ratio=5,weight=5`, up to a factor. Here the teacher looks at the same view as the network.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for both kinds of samples; it knows the frequencies of the classes among the labelled.
        teacher: a trained classifier; told by the trainer.
        weight: omega, 0 or more.
        ratio: unlabelled samples for each labelled one; above 0.

    Raises:
        ConfigError: there is no teacher, or one of another number of classes; an option out of range; a batch without
            the stream "unlabelled"; see also `Supervised`.

    Example:
        >>> import copy, torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, TeacherLabels
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = TeacherLabels(model, losses.CrossEntropy(), teacher=copy.deepcopy(model))
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> batch.streams = {"unlabelled": Batch((torch.rand(8, 1, 4, 4),), torch.full((8,), -1), torch.arange(8))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss', 'unlabelled_loss']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={STREAM: Stream(per_sample=5)},
        step="whole",
        reference="teacher",
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        teacher: Classifier | None = None,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        ratio: Annotated[float, Positive] = 5.0,
    ) -> None:
        super().__init__(model, loss, teacher, "teacher-labels")
        self.weight = weight
        self.needs = at_ratio(self.needs, ratio)

    def step(self, batch: Batch) -> Step:
        others = unlabelled_of(batch, "teacher-labels").images
        named = self.answers(others).argmax(1)
        # All samples pass together, so that batch normalisation sees them together.
        features = self.model.embed(torch.cat([batch.images, others]))
        found = self.classify(features[: len(batch)], batch.targets)
        guessed = self.classify(features[len(batch) :], named).loss
        loss = found.loss + self.weight * guessed
        return Step(loss, {**found.logs, "loss": loss.detach(), "unlabelled_loss": guessed.detach()})
