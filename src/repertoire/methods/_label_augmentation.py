"""Label augmentation: the class and what was done to the image are one label, and its answers are put together."""

from __future__ import annotations

from itertools import permutations
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss, cross_entropy, reduce
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._precision import at_least_float32
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["LabelAugmentation"]

Transforms = Literal["rotation", "colour", "none"]

_ORDERS = tuple(permutations(range(3)))


@register("methods", "label-augmentation", paper="sla")
class LabelAugmentation(Classifying):
    r"""Trains on the class of an image and the turn it was given as one label, and teaches a plain head what they say.

    Lee, Hwang and Shin, *Self-supervised Label Augmentation via Input Transformations* (2019). A network that is to say
    the same of an image and of the image turned round may have to forget what tells classes apart. Here every image
    comes in M versions :math:`t_1(x), \dots, t_M(x)`, and a head of K M outputs is to name the class and the version
    at once:

    .. math:: \ell = \frac{1}{M} \sum_j \mathrm{CE}\bigl(z(t_j(x)),\, (y, j)\bigr)
        + \beta\,\ell\bigl(h(x), y\bigr) + \gamma\,\mathrm{KL}\bigl(\bar p(x) \,\|\, \mathrm{softmax}\,h(x)\bigr),
        \qquad \bar p(x)_c = \operatorname{softmax}_c \frac{1}{M} \sum_j z(t_j(x))_{(c, j)}

    The answers of all versions together, :math:`\bar p` (:meth:`aggregated`), are an ensemble of one network; the last
    term, in which they take no gradient, teaches them to the head h, which is what is left when training is over and
    needs one pass ("self-distillation"). The weights are those of the released code.

    A step costs M times the passes of supervised training: with the same epochs it sees M times the images.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for the head that is left.
        transforms: "rotation" (default; by quarters, M = 4, of square images), "colour" (the orders of red, green and
            blue, M = 6) or "none" (M = 1).
        plain: beta, the weight of the head's own loss, 0 or more.
        distil: gamma, the weight of what it learns from all versions, 0 or more.

    Attributes:
        joint: the head of K M outputs; that of class c and version j is number c M + j.

    Raises:
        ConfigError: an option out of range, images that the transforms cannot be made of, or both weights 0, which
            would leave the head untrained; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, LabelAugmentation, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))
        >>> method = LabelAugmentation(model, losses.CrossEntropy())
        >>> sorted(method.step(Batch((torch.rand(4, 1, 8, 8),), torch.tensor([0, 1, 2, 0]), torch.arange(4))).logs)
        ['accuracy', 'aggregated_accuracy', 'distillation_loss', 'joint_loss', 'loss']
    """

    needs = Needs(labels="required", targets=frozenset({"classes"}), step="whole")

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        transforms: Transforms = "rotation",
        plain: Annotated[float, AtLeast(0)] = 1.0,
        distil: Annotated[float, AtLeast(0)] = 1.0,
    ) -> None:
        super().__init__(model, loss)
        if plain == 0 and distil == 0:
            raise ConfigError("plain and distil are both 0, which leaves the head untrained: give one of them a weight")
        channels = model.normalize.mean.shape[1]
        if transforms == "colour" and channels != 3:
            raise ConfigError(
                f"transforms=colour changes the order of three channels, and these images have {channels}: use rotation"
            )
        self.transforms = transforms
        self.versions = {"rotation": 4, "colour": len(_ORDERS), "none": 1}[transforms]
        self.plain = plain
        self.distil = distil
        self.joint = nn.Linear(model.backbone.out_features, model.head.num_classes * self.versions)

    def made_of(self, images: Tensor) -> Tensor:
        """All versions of images `[N, C, H, W]`, `[M * N, C, H, W]`: first the images themselves.

        Raises:
            ConfigError: no images, or not square ones, that are to be turned.
        """
        if self.transforms == "none":
            return images
        if images.ndim != 4 or (self.transforms == "rotation" and images.shape[2] != images.shape[3]):
            raise ConfigError(
                f"transforms={self.transforms} makes versions of {'square ' * (self.transforms == 'rotation')}images, "
                f"found {list(images.shape)}: use transforms=none, or method 'supervised'"
            )
        if self.transforms == "colour":
            return torch.cat([images[:, list(order)] for order in _ORDERS])
        return torch.cat([images.rot90(turn, (2, 3)) for turn in range(4)])

    def aggregated(self, images: Tensor) -> Tensor:
        """The logits `[N, K]` of all versions of images together."""
        return self._together(self.joint(self.model.embed(self.made_of(images))))

    def _together(self, joint: Tensor) -> Tensor:
        """Logits of class c and version j of version j, averaged over the versions."""
        per_version = at_least_float32(joint).unflatten(0, (self.versions, -1)).unflatten(2, (-1, self.versions))
        return per_version.diagonal(dim1=0, dim2=3).mean(2)

    def step(self, batch: Batch) -> Step:
        features = self.model.embed(self.made_of(batch.images))
        joint = self.joint(features)
        first = features[: len(batch)]
        versions = torch.arange(self.versions, device=joint.device).repeat_interleave(len(batch))
        named = cross_entropy(joint, batch.targets.repeat(self.versions) * self.versions + versions)
        together = self._together(joint.detach())
        taught = at_least_float32(self.model.head(first)).log_softmax(1)
        distilled = reduce(F.kl_div(taught, together.log_softmax(1), log_target=True, reduction="none").sum(1), "mean")
        found = self.classify(first, batch.targets)
        loss = named + self.plain * found.loss + self.distil * distilled
        right = (together.argmax(1) == batch.targets).sum() / max(1, len(batch))
        logs = {"joint_loss": named.detach(), "distillation_loss": distilled.detach(), "aggregated_accuracy": right}
        return Step(loss, {**found.logs, **logs, "loss": loss.detach()})
