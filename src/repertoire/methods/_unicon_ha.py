"""UniCon-HA: normal images gather, images that were turned round scatter, at every stage of the network."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import UnilateralAggregation
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._mlp import mlp
from repertoire.methods._readout import read_out
from repertoire.methods._recipe import UNLABELLED
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["UniConHA"]

_TURNS = 4
"""The image itself, and three that are turned by quarters: the virtual outliers."""


def _weaker(stage: int, stages: int) -> str:
    """The augmentation of a stage before the last, from weak to strong: half as strong as that of a run at most."""
    share = stage / stages
    return f"simclr:scale=({1 - 0.8 * share:.3g},1),strength={0.5 * share:.3g},grey={0.2 * share:.3g},blur=0"


@register("methods", "unicon-ha", paper="unicon-ha")
class UniConHA(Method):
    r"""Anomaly detection from random weights: normal images gather in the features, and those turned round scatter.

    Wang et al., *Unilaterally Aggregated Contrastive Learning with Hierarchical Augmentation for Anomaly Detection*
    (2023). Two views of each image, and of the image turned by 90, 180 and 270 degrees, pass through the network. All
    views of images as they were are of one class; a turned image is of a class of its own, which its two views share
    (:func:`repertoire.losses.unilateral_aggregation_loss` has the formula, and the weights of the views at the last
    stage). The same is asked of the last S stages of the network, each behind a pooled map and a small projector of its
    own, and each of other views: those of early stages are hardly augmented, those of the last one as the run says:

    .. math:: \ell = \frac{1}{S} \sum_{s=1}^{S} \text{UniCLR}\bigl(g_s(f_s(T_s(x)))\bigr)

    The projectors are thrown away. New images are scored by the largest cosine with a training image, for which there
    is the novelty score `knn:neighbours=1`. Classes whose images look alike when they are turned (a flower from above)
    have no such outliers.

    The paper says that crop, colours, flip and grey are of the same kinds at every stage and grow stronger; how strong
    they are stands in its supplement, which was not at hand, and no code of the authors was found. Here they grow
    evenly from stage to stage, and at the last one, where the run says how strong, there may be blur as well. Its
    weights of the stages are 1 here. Its formula has four stages, and the best row of its ablation the last three.

    A step passes eight images through the network for each image and stage, of which early stages need a part only.
    A read-out learns beside it from detached features where there are labels, as in `Embedding`.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        image_size: side of the images in pixels; told by the trainer.
        stages: S, 1 or more; 4 as in the paper, and all of a network that has fewer.
        temperature: tau, positive; the paper uses 0.5.
        soft: whether views at the last stage are weighed by how typical they are.
        normal: which normal images gather: "together" all of them; "by-class" those of a label, the paper's labelled
            setting, where images without a label gather by themselves; "apart" none, which is SimCLR with turned images
            among the others, to compare with.
        dimensions: width of the projectors' outputs, 1 or more.

    Raises:
        ConfigError: an option out of range, no images, or in the first step no square ones, which alone can be turned.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, UniConHA
        >>> net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = UniConHA(model, image_size=8)
        >>> list(method.needs.views)
        ['stage 1, first', 'stage 1, second', 'stage 2, first', 'stage 2, second']
        >>> batch = Batch(tuple(torch.rand(4, 4, 1, 8, 8)), torch.full((4,), -1), torch.arange(4))
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss', 'readout_loss', 'stage_1_loss', 'stage_2_loss']
    """

    needs = Needs(views=8, step="whole", per_sample=False, augmentation="simclr", defaults=UNLABELLED)

    def __init__(
        self,
        model: Classifier,
        image_size: int | None,
        stages: Annotated[int, AtLeast(1)] = 4,
        temperature: Annotated[float, Positive] = 0.5,
        soft: bool = True,
        normal: Literal["together", "by-class", "apart"] = "together",
        dimensions: Annotated[int, AtLeast(1)] = 128,
    ) -> None:
        super().__init__()
        if image_size is None:
            raise ConfigError(
                "unicon-ha turns images, and this data holds vectors of features: for these there is method "
                "mean-shifted, or the novelty score deep-svdd"
            )
        self.model = model
        self.normal = normal
        self.ends = tuple(model.backbone.stage_ends[-stages:])
        count = len(self.ends)
        specs = [_weaker(number, count) for number in range(1, count)] + [""]
        views = {
            f"stage {number}, {which}": spec for number, spec in enumerate(specs, 1) for which in ("first", "second")
        }
        self.needs = Needs(
            views=views,
            labels="used" if normal == "by-class" else "unused",
            step="whole",
            per_sample=False,
            augmentation="simclr",
            defaults=UNLABELLED,
        )
        widths = _widths(model, image_size)[-count:]
        self.projectors = nn.ModuleList(mlp(width, width, dimensions, batch_norm=False) for width in widths)
        weighing = [None] * (count - 1) + [0.5 if soft else None]
        self.losses = nn.ModuleList(UnilateralAggregation(temperature, each) for each in weighing)

    def step(self, batch: Batch) -> Step:
        if batch.images.ndim != 4 or batch.images.shape[2] != batch.images.shape[3]:
            raise ConfigError(
                f"unicon-ha turns images, which have to be square [N, C, S, S], found {list(batch.images.shape)}: for "
                "others there is the novelty score deep-svdd, or method mean-shifted"
            )
        labels = self._labels(batch)
        parts, features = [], batch.images
        for number, (end, projector, loss) in enumerate(zip(self.ends, self.projectors, self.losses, strict=True)):
            views = torch.cat(batch.views[2 * number : 2 * number + 2])
            features = self._pooled(torch.cat([views.rot90(turn, (2, 3)) for turn in range(_TURNS)]), end)
            parts.append(loss(projector(features), labels))
        total = torch.stack(parts).mean()
        readout, logs = read_out(self.model.head, features[: 2 * len(batch)], batch.targets.repeat(2))
        named = {f"stage_{number}_loss": part.detach() for number, part in enumerate(parts, 1)}
        return Step(total + readout, {"loss": total.detach(), **named, **logs})

    def _labels(self, batch: Batch) -> Tensor:
        """The label of each view: that of normal images, or one of the turned image's own."""
        if self.normal == "apart":
            normal = -2 - batch.index * _TURNS
        else:
            # No label of any turned image, also where an image has none.
            classes = batch.targets.long() if self.normal == "by-class" else torch.zeros_like(batch.index)
            normal = classes.clamp_min(-1)
        turned = [-2 - (batch.index * _TURNS + turn) for turn in range(1, _TURNS)]
        return torch.cat([each.repeat(2) for each in (normal, *turned)])

    def _pooled(self, images: Tensor, end: int) -> Tensor:
        """Features after a block: those of the network where it is the last."""
        backbone = self.model.backbone
        x = self.model.normalize(images)
        for block in backbone.blocks[: end + 1]:
            x = block(x)
        return backbone.pool(x) if end == len(backbone.blocks) - 1 else backbone.grid(x).mean((2, 3))


@torch.no_grad()
def _widths(model: Classifier, image_size: int) -> list[int]:
    """Channels of the maps at the end of each stage; of the last one, the width of the features."""
    backbone, training = model.backbone, model.backbone.training
    mean = model.normalize.mean
    x, found = torch.zeros(1, mean.shape[1], image_size, image_size).to(mean), []
    backbone.eval()
    for number, block in enumerate(backbone.blocks):
        x = block(x)
        if number in backbone.stage_ends:
            found.append(backbone.grid(x).shape[1])
    backbone.train(training)
    return [*found[:-1], backbone.out_features]
