"""FixMatch: what the network is sure of in an easy view is the label of a hard one."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss
from repertoire.methods._base import Needs, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._mix import Mix
from repertoire.methods._precision import at_least_float32
from repertoire.methods._pseudo import Alignment, ClassThresholds, Policy, PseudoLabels, SelfThresholds, Threshold
from repertoire.ranges import AtLeast, Positive, Share
from repertoire.registry import register

__all__ = ["FixMatch"]

STREAM = "unlabelled"


@register("methods", "fixmatch")
class FixMatch(Classifying):
    r"""FixMatch: a few labelled samples and many without, whose labels the network gives itself where it is sure.

    Sohn et al., *FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence* (2020). Beside B
    labelled samples a batch holds :math:`\mu B` unlabelled ones, each in a weak view and a strong one. With the
    probabilities q of the weak view, which take no gradient:

    .. math:: \ell = \frac{1}{B} \sum_b \ell\bigl(f(x_b), y_b\bigr) + \frac{\lambda}{\mu B} \sum_u
        [\max_c q_{uc} \ge \tau]\; \mathrm{CE}\bigl(f(x_u^\text{strong}),\; \arg\max_c q_{uc}\bigr)

    All samples pass through the network together, so that batch normalisation sees them together, as in the released
    code. Other policies take the place of the fixed threshold: `class-adaptive` is that of FlexMatch (Zhang et al.,
    2021; :class:`repertoire.methods.ClassThresholds`), and `self-adaptive` that of FreeMatch (Wang et al., 2023;
    :class:`repertoire.methods.SelfThresholds`), without FreeMatch's term for fairness. `align` moves the answers
    towards the labelled classes' shares first (:class:`repertoire.methods.Alignment`).

    The paper evaluates a moving average of the weights, which is the trainer's option `ema`, asks for SGD with Nesterov
    momentum at a learning rate of 0.03, and trains for about a million steps.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for the labelled samples.
        threshold: tau, in [0, 1]; the self-adaptive policy has none.
        weight: lambda, 0 or more.
        ratio: mu, unlabelled samples for each labelled one; above 0.
        policy: "fixed" (default), "class-adaptive" or "self-adaptive".
        align: align the answers with the labelled classes' shares.
        unlabelled: how many unlabelled samples there are; told by the trainer. Needed by the class-adaptive policy.
        counts: labelled samples of each class; told by the trainer. All classes alike if None.
        mix: what becomes of the labelled samples: "none" (default), "mixup" or "cutmix".
        alpha: of the Beta distribution of the mixing, positive.

    Raises:
        ConfigError: an option out of range; the class-adaptive policy without the number of unlabelled samples; a batch
            without the stream "unlabelled"; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, FixMatch, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = FixMatch(model, losses.CrossEntropy(), ratio=2)
        >>> weak, strong = torch.rand(8, 1, 4, 4), torch.rand(8, 1, 4, 4)
        >>> unlabelled = Batch((weak, strong), torch.full((8,), -1), torch.arange(8), names=("weak", "strong"))
        >>> labelled = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> labelled.streams = {"unlabelled": unlabelled}
        >>> sorted(method.step(labelled).logs)
        ['accuracy', 'confident', 'loss', 'unlabelled_loss']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={STREAM: Stream(per_sample=7, views={"weak": "crop-flip", "strong": "strong"})},
        step="whole",
        augmentation="crop-flip",
        defaults={"optimizer": "sgd", "lr": 0.03, "batch_size": 64, "ema": 0.999},
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        threshold: Annotated[float, Share] = 0.95,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        ratio: Annotated[float, Positive] = 7.0,
        policy: Policy = "fixed",
        align: bool = False,
        unlabelled: Annotated[int, AtLeast(1)] | None = None,
        counts: Tensor | None = None,
        mix: Mix = "none",
        alpha: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(model, loss, mix, alpha)
        self.weight = weight
        stream = replace(self.needs.streams[STREAM], per_sample=ratio)
        self.needs = replace(self.needs, streams={STREAM: stream})
        classes = model.head.num_classes
        shares = torch.ones(classes) if counts is None else torch.as_tensor(counts).float().clamp_min(1)
        alignment = Alignment(shares) if align else None
        self.pseudo = PseudoLabels(_policy(policy, classes, threshold, unlabelled), alignment)

    def step(self, batch: Batch) -> Step:
        if STREAM not in batch.streams:
            raise ConfigError(
                "method 'fixmatch' needs unlabelled samples, and the batch has no stream 'unlabelled': give the loader "
                "one, or use method 'supervised'"
            )
        batch = self.transform(batch)
        unlabelled = batch.streams[STREAM]
        weak, strong = unlabelled.view("weak"), unlabelled.view("strong")
        features = self.model.embed(torch.cat([batch.images, strong, weak]))
        labelled, hard, easy = features.split([len(batch), len(strong), len(weak)])
        with torch.no_grad():
            answers = self.model.head(easy)
        labels, sure = self.pseudo(answers, unlabelled.index)
        found = self.classify(labelled, batch.targets)
        outputs = self.model.head.outputs(hard, labels)
        losses = torch.stack(
            [w * F.cross_entropy(at_least_float32(z), labels, reduction="none") for w, z in outputs]
        ).sum(0)
        consistency = (losses * sure).sum() / max(1, len(labels))
        loss = found.loss + self.weight * consistency
        logs = {"unlabelled_loss": consistency.detach(), "confident": sure.float().mean()}
        return Step(loss, {**found.logs, "loss": loss.detach(), **logs})


def _policy(policy: Policy, classes: int, threshold: float, unlabelled: int | None) -> Threshold:
    if policy == "fixed":
        return Threshold(threshold)
    if policy == "self-adaptive":
        return SelfThresholds(classes)
    if unlabelled is None:
        raise ConfigError(
            "the class-adaptive policy keeps the last answer for each unlabelled sample: give their number, unlabelled"
        )
    return ClassThresholds(classes, unlabelled, threshold)
