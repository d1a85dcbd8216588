"""Supervised training with a term that asks something of what the network says of unlabelled samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch

from repertoire import registry
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss, PredictionsLoss
from repertoire.methods._base import Needs, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._mix import Mix
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["UnlabelledLoss"]

STREAM = "unlabelled"


@register("methods", "unlabelled-loss", paper="lerm")
class UnlabelledLoss(Classifying):
    r"""Supervised training with a loss on what the network says of unlabelled samples.

    With B labelled samples in a batch, M unlabelled ones, and a loss R on predictions without targets
    (:class:`repertoire.losses.PredictionsLoss`):

    .. math:: \ell = \frac{1}{B} \sum_b \ell\bigl(f(x_b), y_b\bigr) + \lambda\,R\bigl(f(u_1), \dots, f(u_M)\bigr)

    The default term is that of Zhang et al., *Rethinking Guidance Information to Utilize Unlabeled Samples: A Label
    Encoding Perspective* (2024; :func:`repertoire.losses.label_encoding_risk`); `entropy` is entropy minimisation. All
    samples pass through the network together, so that batch normalisation sees them together.

    A term such as the label-encoding risk compares the samples of a batch, so there should be several times as many
    unlabelled samples in it as classes.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for the labelled samples.
        term: R, the name of a loss on predictions.
        weight: lambda, 0 or more; from 0.1 (CIFAR-10 with four labels a class) to 1 in the released code.
        ratio: unlabelled samples for each labelled one; above 0.
        mix: what becomes of the labelled samples: "none" (default), "mixup" or "cutmix".
        alpha: of the Beta distribution of the mixing, positive.

    Raises:
        ConfigError: a term that is no loss on predictions, an option out of range, or a batch without the stream
            "unlabelled"; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, UnlabelledLoss
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = UnlabelledLoss(model, losses.CrossEntropy(), weight=0.1)
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> batch.streams = {"unlabelled": Batch((torch.rand(8, 1, 4, 4),), torch.full((8,), -1), torch.arange(8))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss', 'unlabelled_loss']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={STREAM: Stream(per_sample=7)},
        step="whole",
        per_sample=False,
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        term: str = "label-encoding",
        weight: Annotated[float, AtLeast(0)] = 1.0,
        ratio: Annotated[float, Positive] = 7.0,
        mix: Mix = "none",
        alpha: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(model, loss, mix, alpha)
        built = registry.build("losses", term)
        if not isinstance(built, PredictionsLoss):
            known = [e.name for e in registry.entries("losses") if issubclass(e.factory, PredictionsLoss)]  # type: ignore[arg-type]
            raise ConfigError(
                f"term must be a loss on predictions ({', '.join(known)}), and {term!r} is one on {built.contract}"
            )
        if getattr(built, "reduction", "mean") == "none":
            raise ConfigError(f"term {term!r} must give one number: use reduction=mean")
        self.term = built
        self.weight = weight
        self.needs = replace(self.needs, streams={STREAM: replace(self.needs.streams[STREAM], per_sample=ratio)})

    def step(self, batch: Batch) -> Step:
        if STREAM not in batch.streams:
            raise ConfigError(
                "method 'unlabelled-loss' needs unlabelled samples, and the batch has no stream 'unlabelled': give the "
                "loader one, or use method 'supervised'"
            )
        batch = self.transform(batch)
        features = self.model.embed(torch.cat([batch.images, batch.streams[STREAM].images]))
        found = self.classify(features[: len(batch)], batch.targets)
        guess = self.term(self.model.head(features[len(batch) :]))
        loss = found.loss + self.weight * guess
        return Step(loss, {**found.logs, "loss": loss.detach(), "unlabelled_loss": guess.detach()})
