"""Knowledge distillation: a small network learns what a finished run says, beside the labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import Loss, norm_direction, reduce
from repertoire.methods._base import Needs, Stage, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._precision import at_least_float32
from repertoire.methods._taught import Taught
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["Distil", "class_means"]


@torch.no_grad()
def class_means(model: Classifier, batches: Iterable[Batch]) -> Tensor:
    """The means of a network's features of each class, in evaluation mode.

    Args:
        model: a classifier, which stays in the mode that it is in.
        batches: on the network's device, as evaluation sees them; samples without a class count for nothing.

    Returns:
        `[K, d]`, for the K classes that the network knows, summed in float64 and of the features' dtype; zero for a
        class without samples.

    Raises:
        ShapeError: a target that is no class of the network.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, class_means
        >>> net = backbones.Identity(in_channels=2)
        >>> model = Classifier(Normalize([0.0, 0.0], [1.0, 1.0]), net, heads.Linear(2, 2))
        >>> rows = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
        >>> class_means(model, [Batch((rows,), torch.tensor([0, 0, 1]), torch.arange(3))])
        tensor([[2., 0.],
                [0., 5.]])
    """
    classes, training = model.head.num_classes, model.training
    model.eval()
    try:
        sums = counts = None
        dtype = torch.float32
        for batch in batches:
            known = batch.targets >= 0
            features, targets = model.embed(batch.images)[known], batch.targets[known].long()
            if len(targets) and (most := int(targets.max())) >= classes:
                raise ShapeError(f"targets must lie in 0..{classes - 1}, the classes of the network, found {most}")
            if sums is None or counts is None:
                dtype = features.dtype
                sums = features.new_zeros(classes, features.shape[1], dtype=torch.float64)
                counts = features.new_zeros(classes, dtype=torch.float64)
            sums.index_add_(0, targets, features.double())
            counts += targets.bincount(minlength=classes)
        if sums is None or counts is None:
            raise ShapeError("there are no batches to take the means of")
        return (sums / counts.clamp_min(1)[:, None]).to(dtype)
    finally:
        model.train(training)


@register("methods", "distil")
class Distil(Taught):
    r"""Learns the labels, and the soft answers of a finished run: a small network in the place of a large one.

    Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network* (2015). What a trained network
    (`--teacher runs/large`) thinks of the wrong classes says which are alike. With logits z of the student and v of the
    teacher, and a temperature T that makes both softer, to a loss on logits is added

    .. math:: \lambda\,T^2\,\mathrm{KL}\bigl(\mathrm{softmax}(v / T) \,\|\, \mathrm{softmax}(z / T)\bigr)

    where the factor T² keeps the gradient of one size. The teacher looks at the same view as the student.

    With `norm_direction` it adds, so many times, :func:`repertoire.losses.norm_direction` of Wang et al., *Improving
    Knowledge Distillation via Regularizing Feature Norm and Direction* (2023): the features before the head turn to the
    teacher's mean of their class over the training set, and become as long as the teacher's. Where they are not as
    wide, they are normalised and projected first, which learns with the rest and is not part of the network. Paper and
    released code use a temperature of 4, `weight` from 1 to 4 and `norm_direction` from 0.5 to 2 on CIFAR-100. The code
    also lets the weight grow from nothing over the first 20 of 240 epochs, and leaves out half of what is projected,
    which is not done here.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for the labels.
        teacher: a trained classifier of the same classes; told by the trainer.
        temperature: T, positive.
        weight: lambda, 0 or more.
        norm_direction: weight of norm and direction, 0 or more; without it by default.

    Raises:
        ConfigError: there is no teacher, or one of another number of classes; an option out of range; see also
            `Supervised`.

    Example:
        >>> import copy, torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Distil, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = Distil(model, losses.CrossEntropy(), teacher=copy.deepcopy(model))
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss', 'teacher_loss']
    """

    needs = Needs(labels="required", targets=frozenset({"classes"}), step="whole", reference="teacher")
    class_means: Tensor

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        teacher: Classifier | None = None,
        temperature: Annotated[float, Positive] = 4.0,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        norm_direction: Annotated[float, AtLeast(0)] = 0.0,
    ) -> None:
        super().__init__(model, loss, teacher, "distil")
        self.temperature = temperature
        self.weight = weight
        self.norm_direction = norm_direction
        if not norm_direction:
            return
        own, wide = model.backbone.out_features, self.teacher.backbone.out_features
        self.register_buffer("class_means", torch.zeros(model.head.num_classes, wide))
        self.projection = nn.Sequential(nn.BatchNorm1d(own), nn.Linear(own, wide)) if own != wide else nn.Identity()

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        from repertoire import backbones, heads
        from repertoire.methods._classifier import Normalize

        net = backbones.ConvNet(in_channels=1, image_size=8, width=6, depth=2)
        teacher = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 4))
        return {"teacher": teacher, "norm_direction": 1.0}

    def begin(self, stage: Stage) -> None:
        """Takes the means of the teacher's features of each class over the training set."""
        if self.norm_direction:
            self.class_means = class_means(self.teacher, stage.batches())

    def step(self, batch: Batch) -> Step:
        with torch.no_grad():
            told, answers = self.teacher.embed_and_score(batch.images)
        pooled = self.model.embed(batch.images)
        step, logits = self.classify(pooled, batch.targets), self.model.head(pooled)
        if logits.shape != answers.shape:
            raise ConfigError(
                f"the loss gives {logits.shape[1]} scores, and the teacher {answers.shape[1]}: use a loss with a score "
                "for each class, such as cross-entropy"
            )
        softer = at_least_float32(logits).div(self.temperature).log_softmax(1)
        wanted = at_least_float32(answers).div(self.temperature).log_softmax(1)
        apart = F.kl_div(softer, wanted, reduction="none", log_target=True).sum(1)
        # Over all samples, so that the loss of a batch is the mean of those of its pieces.
        taught = self.temperature**2 * reduce(apart, "mean")
        loss = step.loss + self.weight * taught
        logs = {**step.logs, "teacher_loss": taught.detach()}
        if self.norm_direction:
            turned = norm_direction(self.projection(pooled), told, self.class_means, batch.targets, reduction="none")
            off = reduce(turned, "mean")
            loss = loss + self.norm_direction * off
            logs["norm_direction_loss"] = off.detach()
        return Step(loss, {**logs, "loss": loss.detach()})
