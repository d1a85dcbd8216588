"""The base of methods that train a head with a loss on logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.heads import Head
from repertoire.losses import LogitsLoss, Loss, check_dense, dense_loss
from repertoire.methods._apply import right_answers
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._mix import Mix, cutmix, mixup
from repertoire.ranges import Positive

__all__ = ["Classifying"]


class Classifying(Method):
    """Base of methods whose head learns from targets, by a loss on logits.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits that gives one number.
        mix: what becomes of a labelled batch: "none", "mixup" or "cutmix".
        alpha: of the Beta distribution of the mixing, positive.

    Raises:
        ConfigError: the loss is not one on logits, is for other targets, or does not reduce to a scalar; a loss without
            soft targets is to get mixed ones; or an option out of range.
    """

    loss: LogitsLoss

    def __init__(
        self, model: Classifier, loss: Loss, mix: Mix = "none", alpha: Annotated[float, Positive] = 1.0
    ) -> None:
        super().__init__()
        if not isinstance(loss, LogitsLoss):
            other = "unlabelled-loss:term=..." if loss.contract == "predictions" else "embedding"
            raise ConfigError(
                f"this method needs a loss on logits, and {type(loss).__name__} is one on {loss.contract}: use method "
                f"{other!r} for it, or another loss"
            )
        if loss.reduction == "none":
            raise ConfigError("a method minimises one number: reduction must be 'mean' or 'sum', not 'none'")
        own = type(self).needs
        assert isinstance(own, Needs)
        kinds = frozenset(loss.targets) & (own.targets or frozenset(loss.targets))
        if not kinds:
            raise ConfigError(
                f"this method learns {' or '.join(sorted(own.targets))}, and loss {type(loss).__name__} is for "
                f"targets of another kind ({', '.join(loss.targets)}): use cross-entropy, or method 'supervised'"
            )
        if mix != "none" and not (loss.soft and "classes" in kinds):
            raise ConfigError(
                f"mix={mix} makes soft targets, which loss {type(loss).__name__} does not take: use cross-entropy, or "
                "mix=none"
            )
        self.model = model
        self.loss = loss
        self.mix = mix
        self.alpha = alpha
        # The sum over a batch is not the mean of the sums over its parts, nor is what looks at all of it, nor what is
        # drawn once for all of it.
        across = model.head.looks_across or any(isinstance(part, Loss) and part.random for part in loss.modules())
        per_sample = own.per_sample and loss.reduction == "mean" and not across
        self.needs = replace(own, targets=kinds, per_sample=per_sample, within_rank=own.within_rank or across)
        if model.head.dense:
            check_dense(loss)
            if mix != "none":
                raise ConfigError(
                    f"mix={mix} mixes the classes of samples, and maps have one for each pixel: use mix=none"
                )
            # The mean over pixels is not that of the means of images, which know more or less of them; and a rule that
            # runs the network in pieces gives pooled features.
            self.needs = replace(self.needs, targets=frozenset({"maps"}), per_sample=False, step="whole")

    def transform(self, batch: Batch) -> Batch:
        if self.mix == "none" or not self.training:
            return batch
        mixed: Callable[..., Batch] = mixup if self.mix == "mixup" else cutmix
        return mixed(batch, self.model.head.num_classes, self.alpha)

    @property
    def block_loss(self) -> Loss:
        return self.loss

    def classify(self, features: Tensor, targets: Tensor, head: Head | None = None) -> Step:
        """The loss of features `[N, d]`, or maps, over all classifiers that a head trains, the model's by default; of
        classes, the accuracy too."""
        head = self.model.head if head is None else head
        outputs = head.outputs(features, targets)
        call = partial(dense_loss, self.loss) if head.dense else self.loss
        loss = torch.stack([weight * call(logits, targets) for weight, logits in outputs]).sum()
        if head.dense:
            known = targets >= 0
            right = ((outputs[0][1].detach().argmax(1) == targets) & known).sum() / known.sum().clamp(min=1)
            return Step(loss, {"loss": loss.detach(), "accuracy": right})
        return Step(loss, {"loss": loss.detach(), **right_answers(self.loss, outputs[0][1], targets)})
