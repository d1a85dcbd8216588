"""Distillation in the shape of a Y: the old head looks at the features that are being learned."""

from __future__ import annotations

import copy
from typing import Annotated, Literal, Self

import torch

from repertoire.data import Batch
from repertoire.heads import Head
from repertoire.losses import Loss
from repertoire.methods._base import Stage, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._staged import Among, Preserving, Weights, softened_divergence
from repertoire.ranges import AtLeast, Positive, Share
from repertoire.registry import register
from repertoire.weights import interpolate

__all__ = ["YDistil"]


@register("methods", "y-distil", paper="dynamic-y-kd")
class YDistil(Preserving):
    r"""Learns new classes while the old head teaches the new one on the features that both share.

    Pagé Fortin and Chaib-draa, *Dynamic Y-KD: A Hybrid Approach to Continual Instance Segmentation* (2023). A teacher
    that is a copy of the whole old network holds features back. Here teacher and student are the two arms of a Y: the
    trunk f learns, the old head v is frozen, and on the current features it says what the new head z is to say of old
    classes:

    .. math:: \ell\bigl(z(f(x)), y\bigr) + \lambda\,\mathrm{KL}\bigl(\mathrm{softmax}(v(f(x)) / T) \,\|\,
        \mathrm{softmax}(z(f(x)) / T)\bigr)

    over the classes known before the stage. The gradient flows into the trunk through both heads, and into the new head
    alone. After the stage, "kept" heads are those of the paper, where each class is scored by the head that it came
    with; with "learned", the student's head scores all of them. Then the weights go back a part of the way to those
    before the stage, :math:`\theta \leftarrow (1 - \alpha)\,\theta_{t-1} + \alpha\,\theta_t` (statistics of
    normalisation with them), which sets old classes against new ones by hand; new rows of the head stay.

    In a classifier the loss of new samples pushes all old logits down alike, which a softmax over old classes hardly
    sees: in pilots on letters the weight changed little, and the heads that are kept did what there was to gain.

    The paper segments instances, with a branch of the network for each task. This is its classification: one trunk, and
    a head whose rows are the branches. A step costs a pass of the head more than supervised training. What is kept is a
    copy of the head, and, with `alpha` below 1, of the weights.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        weight: lambda, 0 or more.
        temperature: T, positive.
        heads: who scores old classes after the stage: "kept" (default), the rows of the head that they came with;
            "learned", those that the student learned.
        alpha: how far the weights go, from 0 (they stay at those before the stage) to 1 (default, all the way).
        among: which classes compete in the student's loss of a later stage: "known" (default), all; "stage", those that
            occur in it, where its rows for old classes have no reason to leave the teacher's, and nothing is distilled.

    Attributes:
        teacher_head: the old head, in the stages after the first.

    Raises:
        ConfigError: an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, Stage, YDistil
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = YDistil(model, losses.CrossEntropy())
        >>> model.head.grow(4)
        >>> method.begin(Stage(1, 2, ("a", "b", "c", "d"), new=(2, 3)))
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([2, 2, 3, 3]), torch.arange(4))
        >>> method.step(batch).logs["distillation_loss"]  # the two heads are still the same
        tensor(0.)
    """

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        temperature: Annotated[float, Positive] = 2.0,
        heads: Literal["kept", "learned"] = "kept",
        alpha: Annotated[float, Share] = 1.0,
        among: Among = "known",
    ) -> None:
        super().__init__(model, loss, among)
        self.weight = weight
        self.temperature = temperature
        self.heads = heads
        self.alpha = alpha
        self.teacher_head: Head | None
        self.before: Weights | None
        self.register_module("teacher_head", None)
        self.register_module("before", None)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.teacher_head is not None:
            self.teacher_head.eval()
        return self

    def begin(self, stage: Stage) -> None:
        super().begin(stage)
        self.teacher_head = self.before = None
        if self.known:
            self.teacher_head = copy.deepcopy(self.model.head).requires_grad_(False).eval()
            if self.alpha < 1:
                self.before = Weights(self._moving())

    def _moving(self) -> dict[str, torch.Tensor]:
        """What can go back: weights that learn, and statistics, without the rows of new classes."""
        frozen = {name for name, weight in self.model.named_parameters() if not weight.requires_grad}
        return {
            name: value[self.old_rows(name)]
            for name, value in self.model.state_dict().items()
            if name not in frozen and value.is_floating_point() and not name.startswith("normalize.")
        }

    def step(self, batch: Batch) -> Step:
        features = self.model.embed(batch.images)
        found = self.classify(features, batch.targets)
        if self.teacher_head is None:
            return found
        # Nothing is detached: through the old head too, the features learn.
        told = self.teacher_head(features)[:, : self.known]
        apart = softened_divergence(self.model.head(features)[:, : self.known], told, self.temperature)
        loss = found.loss + self.weight * apart
        return Step(loss, {**found.logs, "loss": loss.detach(), "distillation_loss": apart.detach()})

    @torch.no_grad()
    def end(self, stage: Stage) -> None:
        if self.teacher_head is None:
            return
        if self.heads == "kept":
            for path in self.model.head.per_class:
                self.model.head.get_parameter(path)[: self.known] = self.teacher_head.get_parameter(path)[: self.known]
        if self.before is not None:
            pre = {name: self.before[name] for name in self.before.names}
            moved = interpolate(pre, self._moving(), self.alpha)
            state = self.model.state_dict()
            for name, value in moved.items():
                state[name][self.old_rows(name)] = value
