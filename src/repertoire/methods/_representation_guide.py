"""Guidance: layers of a network learn to see the samples of a batch as alike as the layers of another network do."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Self

import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.backbones import Backbone
from repertoire.data import Batch
from repertoire.errors import ConfigError, option
from repertoire.losses import Loss, cka_distance
from repertoire.methods._base import Needs, Stage, Step
from repertoire.methods._classifier import Classifier, Normalize
from repertoire.methods._classifying import Classifying
from repertoire.ranges import AtLeast, Share
from repertoire.registry import register

__all__ = ["RepresentationGuide"]


class _Untrained(nn.Module):
    """A guide with random weights: it sees what the network sees."""

    def __init__(self, normalize: Normalize, backbone: Backbone) -> None:
        super().__init__()
        self.normalize = Normalize(normalize.mean.flatten().tolist(), normalize.std.flatten().tolist())
        self.backbone = backbone


@register("methods", "representation-guide", paper="guidance")
class RepresentationGuide(Classifying):
    r"""Trains a network that is ill-suited to its data beside a guide, whose layers its own learn to resemble.

    Subramaniam et al., *Training the Untrainable: Introducing Inductive Bias via Representational Alignment* (2024). To
    a loss on logits is added, over pairs of a layer of the network and one of the guide, how unlike they find the
    samples of the batch (:func:`repertoire.losses.cka_distance`):

    .. math:: \ell + \lambda \sum_l \bigl(1 - \mathrm{CKA}(H_l,\, G_{m(l)})\bigr)

    The guide is a finished run (`--teacher runs/a`), which hands on what it knows, or a network with random weights
    (`guide=resnet20`), which hands on nothing but how it is built: near pixels belong together, say. It is not trained,
    and is not part of the network. The term may be dropped early (`until`), once the network is on its way.

    Layers are the blocks of both backbones. The pairs are spread evenly over both, the last with the last; as many as
    the shallower of the two has blocks, unless `layers` says otherwise. The released code takes the plain form of CKA,
    a weight of 1, and 300 steps where it stops early. In small batches the plain form finds all representations alike:
    `unbiased=true` then says more.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        teacher: a trained classifier as the guide; told by the trainer.
        image_size: side of the images; told by the trainer.
        guide: spec of a backbone with random weights, in the place of a teacher.
        layers: how many pairs of layers, 1 or more.
        weight: lambda, 0 or more.
        unbiased: which estimate of CKA, see :func:`repertoire.losses.cka_distance`.
        until: share of the epochs after which the term is dropped, in [0, 1]; the epoch in which it ends counts.

    Raises:
        ConfigError: a guide and a teacher, or neither; more layers than there are; a loss that method `supervised`
            would refuse; an option out of range.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, RepresentationGuide
        >>> net = backbones.MLP(in_channels=1, image_size=8, hidden=16, depth=3)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = RepresentationGuide(model, losses.CrossEntropy(), image_size=8, guide="convnet:width=4,depth=2")
        >>> batch = Batch((torch.rand(6, 1, 8, 8),), torch.tensor([0, 0, 1, 1, 0, 1]), torch.arange(6))
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'guide_distance', 'loss']
    """

    needs = Needs(labels="required", step="whole", per_sample=False, within_rank=True, reference="teacher")

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        teacher: Classifier | None = None,
        image_size: int | None = None,
        guide: str = "",
        layers: Annotated[int, AtLeast(1)] | None = None,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        unbiased: bool = False,
        until: Annotated[float, Share] = 1.0,
    ) -> None:
        super().__init__(model, loss)
        if (teacher is None) == (not guide):
            found = "neither" if teacher is None else "both"
            raise ConfigError(
                f"method 'representation-guide' needs a guide: give {option('teacher', 'runs/NAME')} or the spec of a "
                f"backbone (guide=resnet20), found {found}; or use method 'supervised'"
            )
        if model.head.takes_maps:
            raise ConfigError("method 'representation-guide' trains on pooled features: use another head")
        source: nn.Module
        if teacher is None:
            if image_size is None:
                raise ConfigError("a guide with random weights needs image_size, the side of the images")
            context = {"in_channels": model.backbone.in_channels, "image_size": image_size}
            source = _Untrained(model.normalize, registry.build("backbones", guide, **context))
            # It needs no run, which whoever builds it would ask for.
            self.needs = replace(self.needs, reference="")
        else:
            source = teacher
        self.teacher = source.requires_grad_(False)
        theirs: Backbone = self.teacher.backbone
        most = min(len(model.backbone.blocks), len(theirs.blocks))
        if layers is not None and layers > most:
            raise ConfigError(f"layers is {layers}, and the shallower of the two networks has {most} blocks")
        count = most if layers is None else layers
        self.pairs = tuple(
            zip(_spread(len(model.backbone.blocks), count), _spread(len(theirs.blocks), count), strict=True)
        )
        self.weight = weight
        self.unbiased = unbiased
        self.until = until
        self.guided = until > 0
        self._epochs = 1
        self.train(self.training)

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of images of 8 x 8 pixels, where the defaults do not do."""
        return {"guide": "convnet:width=4,depth=2"}

    def train(self, mode: bool = True) -> Self:
        """The guide stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def begin(self, stage: Stage) -> None:
        self._epochs = stage.epochs

    def begin_epoch(self, epoch: int) -> None:
        self.guided = epoch < self.until * self._epochs

    def step(self, batch: Batch) -> Step:
        own = _outputs(self.model.normalize, self.model.backbone, batch.images, [pair[0] for pair in self.pairs])
        step = self.classify(self.model.backbone.pool(own[-1]), batch.targets)
        if not self.guided:
            return step
        theirs: Any = self.teacher
        with torch.no_grad():
            wanted = _outputs(theirs.normalize, theirs.backbone, batch.images, [pair[1] for pair in self.pairs])
        with torch.autocast(batch.images.device.type, enabled=False):
            apart = [cka_distance(a, b, unbiased=self.unbiased) for a, b in zip(own, wanted, strict=True)]
            distance = torch.stack(apart).sum()
        loss = step.loss + self.weight * distance
        return Step(loss, {**step.logs, "loss": loss.detach(), "guide_distance": distance.detach() / len(self.pairs)})


def _spread(blocks: int, count: int) -> list[int]:
    """Numbers of so many blocks, spread evenly from the first to the last; of one, the last."""
    if count == 1:
        return [blocks - 1]
    return [round(place * (blocks - 1) / (count - 1)) for place in range(count)]


def _outputs(normalize: nn.Module, backbone: Backbone, images: Tensor, places: list[int]) -> list[Tensor]:
    """What these blocks give, of which the last is the last block."""
    found, x = [], normalize(images)
    for number, block in enumerate(backbone.blocks):
        x = block(x)
        if number in places:
            found.append(x)
    return found
