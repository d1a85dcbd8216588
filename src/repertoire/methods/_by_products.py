"""Learning from what annotators left behind: where they clicked is predicted beside the class."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import Loss, reduce
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._precision import at_least_float32
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["ByProducts", "spots_of"]


def spots_of(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Where spots are in images: the centre of what each mask marks.

    Args:
        masks: `[N, H, W]` of any dtype, none of it negative.

    Returns:
        Centres float `[N, 2]`, from the left and from the top, as shares of the width and of the height; and which
        masks mark anything at all, bool `[N]`. The centre of those that do not is 0.

    Raises:
        ShapeError: masks of another shape.

    Example:
        >>> import torch
        >>> from repertoire.methods import spots_of
        >>> masks = torch.zeros(2, 4, 4)
        >>> masks[0, 1, 3] = 1
        >>> spots_of(masks)
        (tensor([[0.8750, 0.3750],
                [0.0000, 0.0000]]), tensor([ True, False]))
    """
    if masks.ndim != 3:
        raise ShapeError(f"masks must be [N, H, W], found {list(masks.shape)}")
    weights = masks if masks.is_floating_point() else masks.float()
    total = weights.sum((1, 2))
    height, width = masks.shape[1:]
    across = (torch.arange(width, device=masks.device).to(weights) + 0.5) / width
    down = (torch.arange(height, device=masks.device).to(weights) + 0.5) / height
    places = torch.stack([(weights.sum(1) * across).sum(1), (weights.sum(2) * down).sum(1)], 1)
    return places / torch.where(total > 0, total, 1)[:, None], total > 0


@register("methods", "by-products", paper="luab")
class ByProducts(Classifying):
    r"""Trains a classifier that also says where the annotator clicked, and so has to look at the object.

    Han et al., *Neglected Free Lunch: Learning Image Classifiers Using Annotation Byproducts* (2023). Whoever labels
    images leaves traces: where the mouse went, and where it clicked. To a loss on logits it adds the squared distance
    of the place :math:`\hat z` that a second head reads out of the features from the click z, both in [0, 1]²:

    .. math:: \ell + \lambda\,\lVert \hat z - z \rVert^2

    The head is thrown away afterwards. A click comes as the mask of its image: a spot where the annotator clicked, in
    a picture of the folder `masks/`, whose centre is the click (:func:`repertoire.methods.spots_of`); of a mask of the
    whole object, it is the middle of the object. Masks move with the images, so the augmentation must be one that says
    how it moves pixels (`crop-flip`, say), and a click that was cropped away counts for nothing.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        weight: lambda, 0 or more.

    Attributes:
        place: features `[N, d]` to the place, before a sigmoid.

    Raises:
        ConfigError: a loss that method `supervised` would refuse, a weight out of range, or a batch without masks.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import ByProducts, Classifier, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> clicks = torch.zeros(4, 8, 8)
        >>> clicks[:, 2, 5] = 1
        >>> batch = Batch((torch.rand(4, 1, 8, 8),), torch.tensor([0, 1, 0, 1]), torch.arange(4), {"mask": (clicks,)})
        >>> sorted(ByProducts(model, losses.CrossEntropy()).step(batch).logs)
        ['accuracy', 'loss', 'place_loss']
    """

    needs = Needs(labels="required", fields=frozenset({"mask"}), step="objective")

    def __init__(self, model: Classifier, loss: Loss, weight: Annotated[float, AtLeast(0)] = 1.0) -> None:
        super().__init__(model, loss)
        self.weight = weight
        self.place = nn.Linear(model.backbone.out_features, 2)

    def objective(self, features: Tensor, batch: Batch) -> Step:
        masks = batch.fields.get("mask")
        if not isinstance(masks, tuple):
            raise ConfigError(
                "method 'by-products' needs the clicks of the annotators, and the batch has no masks: load data that "
                "comes with masks, and give the loader fields=('mask',); or use method 'supervised'"
            )
        step = self.classify(features, batch.targets)
        found = at_least_float32(self.place(features)).sigmoid()
        places, known = spots_of(masks[0].to(found))
        # Over all images, so that the loss of a batch is the mean of those of its pieces.
        missed = reduce((found - places).square().sum(1) * known, "mean")
        loss = step.loss + self.weight * missed
        return Step(loss, {**step.logs, "loss": loss.detach(), "place_loss": missed.detach()})
