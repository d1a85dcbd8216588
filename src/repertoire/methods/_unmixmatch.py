"""UnMixMatch: learning from unlabelled images that may come from anywhere, without guessing their labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import Loss, nt_xent_loss
from repertoire.methods._base import Needs, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._mix import Mix
from repertoire.methods._mlp import mlp
from repertoire.methods._precision import at_least_float32
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["UnMixMatch"]

STREAM = "unlabelled"


@register("methods", "unmixmatch", paper="unmixmatch")
class UnMixMatch(Classifying):
    r"""UnMixMatch: a classifier of labelled images that are augmented hard, and contrast and rotations of the others.

    Roy and Etemad, *Scaling Up Semi-supervised Learning with Unconstrained Unlabelled Data* (2023). Unlabelled images
    of other classes, or of another source, mislead methods that guess labels. Here nothing is guessed: with labelled
    images x that are augmented hard and mixed with each other, a weak and a strong view of each unlabelled image u,
    their projections z, and one of four quarter turns r of the strong view, of which a linear head tells the number:

    .. math:: \ell = \mathrm{CE}\bigl(f(\tilde x), \tilde y\bigr)
              + \beta\,\text{NT-Xent}\bigl(z(u^\text{weak}), z(u^\text{strong})\bigr)
              + \gamma\,\mathrm{CE}\bigl(h(R_r\,u^\text{strong}), r\bigr)

    The released code differs: it contrasts two strong views, and the weak one with both on request; it mixes labelled
    images with unlabelled ones too, whose soft guesses then take part in the targets; and it has
    :math:`\beta = 0.1`, :math:`\gamma = 10`, a temperature of 0.07 and alpha = 0.1 for CIFAR-10, which are the defaults
    here. Projector and rotation head are thrown away after training. A rotation says nothing about images that look the
    same turned, which the logged `turns_told` shows.

    All samples pass through the network together, and the turned ones by themselves.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits that takes soft targets, for the labelled samples.
        contrast: beta, 0 or more.
        rotation: gamma, 0 or more.
        temperature: of the contrast, positive.
        dimensions: width of the projections.
        ratio: unlabelled samples for each labelled one; above 0.
        weak, strong: augmentations of the two views.
        mix: what becomes of the labelled samples: "mixup" (default), "cutmix" or "none".
        alpha: of the Beta distribution of the mixing, positive.

    Raises:
        ConfigError: an option out of range; a batch without the stream "unlabelled"; see also `Supervised`.
        ShapeError: images that are not square, which cannot be turned.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, UnMixMatch
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = UnMixMatch(model, losses.CrossEntropy())
        >>> weak, strong = torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)
        >>> unlabelled = Batch((weak, strong), torch.full((4,), -1), torch.arange(4), names=("weak", "strong"))
        >>> labelled = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> labelled.streams = {"unlabelled": unlabelled}
        >>> sorted(method.step(labelled).logs)
        ['accuracy', 'contrast_loss', 'loss', 'rotation_loss', 'turns_told']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={STREAM: Stream(per_sample=1, views={"weak": "crop-flip", "strong": "strong"})},
        step="whole",
        per_sample=False,
        within_rank=True,
        augmentation="strong",
        defaults={"optimizer": "sgd", "lr": 0.03, "batch_size": 64, "ema": 0.999},
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        contrast: Annotated[float, AtLeast(0)] = 0.1,
        rotation: Annotated[float, AtLeast(0)] = 10.0,
        temperature: Annotated[float, Positive] = 0.07,
        dimensions: Annotated[int, AtLeast(1)] = 128,
        ratio: Annotated[float, Positive] = 1.0,
        weak: str = "crop-flip",
        strong: str = "strong",
        mix: Mix = "mixup",
        alpha: Annotated[float, Positive] = 0.1,
    ) -> None:
        super().__init__(model, loss, mix, alpha)
        self.contrast, self.rotation, self.temperature = contrast, rotation, temperature
        views = {"weak": weak, "strong": strong}
        stream = replace(self.needs.streams[STREAM], per_sample=ratio, views=views)
        self.needs = replace(self.needs, streams={STREAM: stream})
        width = model.backbone.out_features
        self.projector = mlp(width, width, dimensions)
        self.turns = nn.Linear(width, 4)

    def step(self, batch: Batch) -> Step:
        if STREAM not in batch.streams:
            raise ConfigError(
                "method 'unmixmatch' needs unlabelled images, and the batch has no stream 'unlabelled': give the "
                "loader one, or use method 'supervised'"
            )
        batch = self.transform(batch)
        weak, strong = (batch.streams[STREAM].view(name) for name in ("weak", "strong"))
        features = self.model.embed(torch.cat([batch.images, weak, strong]))
        labelled, *views = features.split([len(batch), len(weak), len(strong)])
        found = self.classify(labelled, batch.targets)
        contrast = nt_xent_loss(*self.projector(torch.cat(views)).chunk(2), temperature=self.temperature)
        turned, number = turn(strong)
        told = at_least_float32(self.turns(self.model.embed(turned)))
        rotation = F.cross_entropy(told, number, reduction="sum") / max(1, len(number))
        loss = found.loss + self.contrast * contrast + self.rotation * rotation
        return Step(
            loss,
            {
                **found.logs,
                "loss": loss.detach(),
                "contrast_loss": contrast.detach(),
                "rotation_loss": rotation.detach(),
                "turns_told": (told.detach().argmax(1) == number).sum() / max(1, len(number)),
            },
        )


def turn(images: Tensor) -> tuple[Tensor, Tensor]:
    """Images `[N, C, S, S]`, each turned by a number of quarters from torch's random state, and these, int64 `[N]`."""
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ShapeError(f"quarter turns are of square images [N, C, S, S], found {list(images.shape)}")
    number = torch.randint(4, (len(images),), device=images.device)
    turned = images.clone()
    for quarters in range(1, 4):
        chosen = (number == quarters)[:, None, None, None]
        turned = torch.where(chosen, images.rot90(quarters, (2, 3)), turned)
    return turned.contiguous(memory_format=torch.channels_last), number
