"""Supervised training that is told where to look."""

from __future__ import annotations

from typing import Annotated

import torch

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss, attention_alignment, reduce
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["Guided"]


@register("methods", "guided", paper="au-guided-fer")
class Guided(Classifying):
    r"""Trains a classifier that is also told where to look: the attention of a layer follows the objects' masks.

    Belharbi et al., *Guided Interpretable Facial Expression Recognition via Spatial Action Unit Cues* (2024). To a loss
    on logits it adds, for one stage of the backbone, :func:`repertoire.losses.attention_alignment` of its maps with the
    masks that come with the images:

    .. math:: \ell + \lambda \bigl(1 - \cos(\frac{1}{K} \sum_k A^k,\, H)\bigr)

    The paper draws its heat maps from what is known of facial expressions; any mask of what matters will do. Images
    whose mask is empty are trained on as usual, with an alignment of zero. Nothing is added to the network, and masks
    are not needed afterwards. They move with the images, so the augmentation must be one that says how it moves pixels
    (`crop-flip`, say).

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        weight: lambda, 0 or more.
        stage: which stage of the backbone is told, from 1; the last by default.

    Raises:
        ConfigError: a loss that method `supervised` would refuse, a weight out of range, a stage that is not there, or
            a batch without masks.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Guided, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> masks = (torch.ones(4, 8, 8).triu(),)
        >>> batch = Batch((torch.rand(4, 1, 8, 8),), torch.tensor([0, 1, 0, 1]), torch.arange(4), {"mask": masks})
        >>> sorted(Guided(model, losses.CrossEntropy()).step(batch).logs)
        ['accuracy', 'alignment_loss', 'loss']
    """

    needs = Needs(labels="required", fields=frozenset({"mask"}), step="whole")

    def __init__(
        self, model: Classifier, loss: Loss, weight: Annotated[float, AtLeast(0)] = 1.0, stage: int | None = None
    ) -> None:
        super().__init__(model, loss)
        ends = model.backbone.stage_ends
        if stage is not None and not 1 <= stage <= len(ends):
            raise ConfigError(f"stage must be from 1 to {len(ends)}, the stages of the backbone; found {stage}")
        self.weight = weight
        self.block = ends[-1 if stage is None else stage - 1]

    def step(self, batch: Batch) -> Step:
        masks = batch.fields.get("mask")
        if not isinstance(masks, tuple):
            raise ConfigError(
                "method 'guided' needs the masks of the objects, and the batch has none: load data that comes with "
                "masks, and give the loader fields=('mask',)"
            )
        backbone = self.model.backbone
        x = self.model.normalize(batch.images)
        seen = x
        for number, block in enumerate(backbone.blocks):
            x = block(x)
            if number == self.block:
                seen = backbone.grid(x)
        step = self.classify(backbone.pool(x), batch.targets)
        with torch.autocast(x.device.type, enabled=False):
            # Over all images, so that the loss of a batch is the mean of those of its pieces.
            alignment = reduce(attention_alignment(seen, masks[0], reduction="none"), "mean")
        loss = step.loss + self.weight * alignment
        return Step(loss, {**step.logs, "loss": loss.detach(), "alignment_loss": alignment.detach()})
