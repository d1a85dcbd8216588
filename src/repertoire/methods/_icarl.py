"""iCaRL: a memory of exemplars, distillation of the old classes' answers, and the nearest mean of exemplars."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError, option
from repertoire.heads import NearestMean
from repertoire.losses import reduce
from repertoire.methods._base import REPLAY, Method, Needs, Stage, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._kept_means import tell_means
from repertoire.methods._precision import at_least_float32
from repertoire.methods._staged import as_it_was, softened_divergence
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["ICaRL"]


@register("methods", "icarl")
class ICaRL(Method):
    r"""iCaRL: learns new classes beside remembered samples and old answers, and predicts by the nearest class mean.

    Rebuffi et al., *iCaRL: Incremental Classifier and Representation Learning* (2017). The samples are the new ones and
    those of the memory, together D. With g the outputs of the network through a sigmoid, q those of a copy of it as it
    was before the stage, and s - 1 classes known before of t:

    .. math:: \ell = -\frac{1}{|D|} \sum_{(x, y) \in D} \biggl( \sum_{k=s}^{t} \mathrm{b}\bigl([y = k],\, g_k(x)\bigr)
              + \lambda \sum_{k=1}^{s-1} \mathrm{b}\bigl(q_k(x),\, g_k(x)\bigr) \biggr), \qquad
              \mathrm{b}(p, g) = p \log g + (1 - p) \log (1 - g)

    so that of the old classes only the old answers are learned. With `outputs=softmax`, as many have it since, the loss
    is the cross-entropy over all classes plus lambda times the KL divergence of the old classes' answers, both at a
    temperature of 2.

    At the end of a stage the head (:class:`repertoire.heads.NearestMean`, which this method brings) is told the mean of
    each class: of old ones, that of what the memory holds of them, in the new features; of new ones, that of all their
    samples, which those that are kept are chosen to come near to. In the paper it is the mean of the latter. The paper
    keeps the memory by herding: `--protocol classes:step=2,memory=200,keep=herding`. In a run that is no stage of
    several the linear classifier answers, and so it does with a moving average of the weights (`--ema`).

    Args:
        model: normalisation, backbone and head.
        outputs: "sigmoid" (default), as in the paper, or "softmax".
        weight: lambda, 0 or more; 1 in the paper.
        ratio: remembered samples for each new one, above 0; in the paper both are one set, and a batch is drawn of it.

    Raises:
        ConfigError: another head, or an option out of range.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, ICaRL, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = ICaRL(Classifier(Normalize([0.5], [0.25]), net, heads.NearestMean(net.out_features, 4)))
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([2, 2, 3, 3]), torch.arange(4))
        >>> batch.streams = {"replay": Batch((torch.rand(2, 1, 4, 4),), torch.tensor([0, 1]), torch.arange(2))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={REPLAY: Stream(optional=True, labels=True)},
        step="whole",
        head="nearest-mean",
    )

    def __init__(
        self,
        model: Classifier,
        outputs: Literal["sigmoid", "softmax"] = "sigmoid",
        weight: Annotated[float, AtLeast(0)] = 1.0,
        ratio: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(model.head, NearestMean):
            raise ConfigError(
                f"method 'icarl' predicts by the nearest mean, and head {type(model.head).__name__} knows none: leave "
                f"{option('head')} out, or use {option('head', 'nearest-mean')}"
            )
        self.model = model
        self.outputs = outputs
        self.weight = weight
        self.known = 0
        self.teacher: Classifier | None
        self.register_module("teacher", None)
        self.needs = replace(self.needs, streams={REPLAY: replace(self.needs.streams[REPLAY], per_sample=ratio)})

    def train(self, mode: bool = True) -> Self:
        """The copy stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def begin(self, stage: Stage) -> None:
        assert isinstance(self.model.head, NearestMean)
        self.known = len(stage.classes) - len(stage.new)
        # The linear classifier of the copy is what was trained to be distilled, and its means are of other features.
        self.model.head.set_means(None)
        self.teacher = as_it_was(self.model) if self.known else None

    def end(self, stage: Stage) -> None:
        tell_means(self.model, stage)

    def step(self, batch: Batch) -> Step:
        if REPLAY in batch.streams:
            batch = batch.join(batch.streams[REPLAY])
        assert isinstance(self.model.head, NearestMean)
        logits = at_least_float32(self.model.head.linear(self.model.embed(batch.images)))
        targets, before = batch.targets.long(), None
        if self.teacher is not None:
            with torch.no_grad():
                assert isinstance(self.teacher.head, NearestMean)
                before = self.teacher.head.linear(self.teacher.embed(batch.images))[:, : self.known]
        loss = (
            self._sigmoid(logits, targets, before)
            if self.outputs == "sigmoid"
            else self._softmax(logits, targets, before)
        )
        accuracy = (logits.detach().argmax(1) == targets).sum() / max(1, len(targets))
        return Step(loss, {"loss": loss.detach(), "accuracy": accuracy})

    def _sigmoid(self, logits: Tensor, targets: Tensor, before: Tensor | None) -> Tensor:
        wanted = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
        weight = logits.new_ones(logits.shape[1])
        if before is not None:
            wanted = torch.cat([before.to(logits.dtype).sigmoid(), wanted[:, self.known :]], 1)
            weight[: self.known] = self.weight
        each = F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="none")
        return reduce(each.sum(1), "mean")

    def _softmax(self, logits: Tensor, targets: Tensor, before: Tensor | None) -> Tensor:
        loss = reduce(F.cross_entropy(logits, targets, reduction="none"), "mean")
        if before is None:
            return loss
        return loss + self.weight * softened_divergence(logits[:, : self.known], before, 2.0)
