"""Mean teacher: a network agrees with the moving average of itself about samples that nobody labelled."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from repertoire.data import Batch
from repertoire.errors import ConfigError, plural
from repertoire.losses import Loss, reduce
from repertoire.methods._base import Needs, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._precision import at_least_float32
from repertoire.methods._teacher import Teacher
from repertoire.ranges import AtLeast, Positive, Share
from repertoire.registry import register

__all__ = ["MeanTeacher"]

STREAM = "unlabelled"


@register("methods", "mean-teacher")
class MeanTeacher(Classifying):
    r"""Mean teacher: a classifier learns from labels, and from what a slow copy of it says of other views.

    Tarvainen and Valpola, *Mean Teachers Are Better Role Models: Weight-averaged Consistency Targets Improve
    Semi-supervised Deep Learning Results* (2017). With the student f, the teacher f' whose weights are a moving average
    of the student's, and two views of every sample of a batch, labelled or not, of K classes:

    .. math:: \ell = \frac{1}{B} \sum_b \ell\bigl(f(x_b^1), y_b\bigr) + w(t)\,\frac{1}{N K} \sum_i
        \bigl\lVert \mathrm{softmax} f(x_i^1) - \mathrm{softmax} f'(x_i^2) \bigr\rVert^2, \qquad
        w(t) = \lambda\,e^{-5 (1 - \min(1, t / T))^2}

    The weight of agreement rises over the first T updates, before which the teacher knows nothing. What is left when
    training is over is the student; the paper also evaluates the teacher, which is about what the trainer's option
    `ema` keeps.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for the labelled samples.
        weight: lambda, 0 or more; 100 in the released code for CIFAR-10.
        ramp_up: T, in updates, 0 or more; the released code takes 5 epochs on CIFAR-10.
        momentum: of the teacher, in [0, 1]; the paper has 0.99 in the beginning and 0.999 later.
        ratio: unlabelled samples for each labelled one; above 0. The released code has about three.

    Raises:
        ConfigError: an option out of range; a batch with fewer than two views, or without the stream "unlabelled"; see
            also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, MeanTeacher, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = MeanTeacher(model, losses.CrossEntropy())
        >>> images = torch.rand(4, 1, 4, 4)
        >>> batch = Batch((images, images), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> batch.streams = {"unlabelled": Batch((images, images), torch.full((4,), -1), torch.arange(4))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'consistency_loss', 'loss']
    """

    needs = Needs(
        views=2,
        labels="required",
        targets=frozenset({"classes"}),
        streams={STREAM: Stream(per_sample=3, views=2)},
        step="whole",
        augmentation="crop-flip",
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        weight: Annotated[float, AtLeast(0)] = 100.0,
        ramp_up: Annotated[int, AtLeast(0)] = 2000,
        momentum: Annotated[float, Share] = 0.999,
        ratio: Annotated[float, Positive] = 3.0,
    ) -> None:
        super().__init__(model, loss)
        self.weight = weight
        self.ramp_up = ramp_up
        self.needs = replace(self.needs, streams={STREAM: replace(self.needs.streams[STREAM], per_sample=ratio)})
        self.teacher = Teacher(model, momentum)

    def step(self, batch: Batch) -> Step:
        if STREAM not in batch.streams or len(batch.views) < 2:
            raise ConfigError(
                "method 'mean-teacher' needs two views of each sample and unlabelled samples, and the batch has "
                f"{plural(len(batch.views), 'view')} and the streams {', '.join(batch.streams) or 'none'}: give the "
                "loader views=2 and a stream 'unlabelled', or use method 'supervised'"
            )
        unlabelled = batch.streams[STREAM]
        first, second = (torch.cat([batch.views[v], unlabelled.views[v]]) for v in (0, 1))
        features = self.model.embed(first)
        found = self.classify(features[: len(batch)], batch.targets)
        answers = at_least_float32(self.model.head(features)).softmax(1)
        targets = at_least_float32(self.teacher(second)).softmax(1)
        consistency = reduce((answers - targets).square(), "mean")
        loss = found.loss + self.ramp() * consistency
        return Step(loss, {**found.logs, "loss": loss.detach(), "consistency_loss": consistency.detach()})

    def ramp(self) -> Tensor:
        """The weight of agreement, w(t), float `[]`; on the device, so that nothing waits for it."""
        share = (self.teacher.updates / max(1, self.ramp_up)).clamp(max=1) if self.ramp_up else torch.ones(())
        return self.weight * (-5 * (1 - share) ** 2).exp()

    def after_update(self) -> None:
        super().after_update()
        self.teacher.follow(self.model)
