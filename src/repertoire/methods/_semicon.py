"""SemiCon: a stream of which few samples have labels, learned by one contrastive loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from repertoire.data import Batch
from repertoire.errors import ConfigError, option
from repertoire.heads import NearestMean
from repertoire.losses import SemiCon
from repertoire.methods._base import REPLAY, Method, Needs, Stage, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._kept_means import tell_means
from repertoire.methods._mlp import mlp
from repertoire.methods._readout import read_out
from repertoire.ranges import AtLeast, Between, Positive
from repertoire.registry import register

__all__ = ["SemiConReplay"]


@register("methods", "semicon", paper="semicon")
class SemiConReplay(Method):
    r"""Learns a stream of samples of which few are ever labelled: those that go into the memory.

    Michel et al., *Contrastive Learning for Online Semi-Supervised General Continual Learning* (2022): views of
    remembered samples, which have labels, and of new ones, which have none, share one contrastive loss
    (:func:`repertoire.losses.semicon_loss` has the formula) through a projector. The answer is the class whose mean
    over the labelled samples is nearest in the features (:class:`repertoire.heads.NearestMean`, which this method
    brings).

    In the paper the stream is seen once, and a sample is labelled when it enters the memory, which changes with every
    batch. Here the memory looks at a stage when that is over (:class:`repertoire.protocols.Memory`). What the oracle is
    asked for in the meantime is a share of the stage's samples, drawn by the seed; of all others the labels are not
    looked at until the memory keeps them. So many labels are used: `share` of all samples, and those that the memory
    ever kept. The means of the stage's own classes are of the samples that were asked for.

    In a run that is no stage of several a linear classifier answers, that learns from detached features of labelled
    samples; so it does with a moving average of the weights (`--ema`).

    Args:
        model: normalisation, backbone and head.
        samples: size of the training set; told by the trainer. Without it all labels that there are count.
        share: of the stage's samples whose label is asked for, above 0 and up to 1.
        alpha: weight of samples without a label, 0 or more; with 0 they are negatives and nothing else.
        unlabelled: whether samples without a label take part; without them it is SupCon on the labelled ones.
        temperature: tau, positive.
        ratio: remembered samples for each new one, above 0; the paper has batches of 10 new and 100 remembered ones.
        dimensions: width of the projector's output.
        hidden: width of the projector's hidden layer; the backbone's own width if None.

    Raises:
        ConfigError: another head, or an option out of range.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, SemiConReplay
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = SemiConReplay(Classifier(Normalize([0.5], [0.25]), net, heads.NearestMean(net.out_features, 4)))
        >>> views = torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)
        >>> batch = Batch(views, torch.tensor([2, 2, -1, -1]), torch.arange(4))
        >>> batch.streams = {"replay": Batch(views, torch.tensor([0, 1, 0, 1]), torch.arange(4))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss', 'readout_loss']
    """

    needs = Needs(
        views=2,
        labels="required",
        targets=frozenset({"classes"}),
        streams={REPLAY: Stream(views=2, optional=True, labels=True)},
        step="whole",
        per_sample=False,
        head="nearest-mean",
        augmentation="simclr",
    )
    begins_anew = frozenset({"asked"})
    asked: Tensor

    def __init__(
        self,
        model: Classifier,
        samples: int | None = None,
        share: Annotated[float, Between(0, 1, "(]")] = 0.05,
        alpha: Annotated[float, AtLeast(0)] = 1.0,
        unlabelled: bool = True,
        temperature: Annotated[float, Positive] = 0.1,
        ratio: Annotated[float, Positive] = 1.0,
        dimensions: Annotated[int, AtLeast(1)] = 128,
        hidden: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model.head, NearestMean):
            raise ConfigError(
                f"method 'semicon' predicts by the nearest mean, and head {type(model.head).__name__} knows none: "
                f"leave {option('head')} out, or use {option('head', 'nearest-mean')}"
            )
        self.model = model
        self.loss = SemiCon(temperature, alpha)
        self.unlabelled = unlabelled
        width = model.backbone.out_features
        self.projector = mlp(width, hidden or width, dimensions, batch_norm=False)
        self.needs = replace(self.needs, streams={REPLAY: replace(self.needs.streams[REPLAY], per_sample=ratio)})
        chosen = torch.zeros(samples or 0, dtype=torch.bool)
        chosen[torch.randperm(len(chosen))[: max(1, round(share * len(chosen)))]] = True
        self.register_buffer("asked", chosen)

    def begin(self, stage: Stage) -> None:
        assert isinstance(self.model.head, NearestMean)
        self.model.head.set_means(None)

    def end(self, stage: Stage) -> None:
        tell_means(self.model, stage, self._labelled)

    def _labelled(self, batch: Batch) -> Tensor:
        """Which samples of a stage have a label, bool `[N]`."""
        known = batch.targets >= 0
        return known & self.asked[batch.index] if len(self.asked) else known

    def step(self, batch: Batch) -> Step:
        labels = batch.targets.long().where(self._labelled(batch), -1)
        views = batch.views
        # To the loss a sample without a label is a class of its own.
        own = labels.where(labels >= 0, -1 - batch.index)
        if REPLAY in batch.streams:
            kept = batch.streams[REPLAY]
            views = tuple(torch.cat(pair) for pair in zip(views, kept.views, strict=True))
            labels, own = (torch.cat([each, kept.targets.long()]) for each in (labels, own))
        if not self.unlabelled:
            views, own, labels = tuple(view[labels >= 0] for view in views), own[labels >= 0], labels[labels >= 0]
        features = self.model.embed(torch.cat(views))
        loss = self.loss(self.projector(features), own.repeat(len(views)))
        readout, logs = read_out(self.model.head, features, labels.repeat(len(views)))
        return Step(loss + readout, {"loss": loss.detach(), **logs})
