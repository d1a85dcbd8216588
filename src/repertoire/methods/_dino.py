"""DINO: a student learns the soft assignments of its slow copy, which are centred and sharpened."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.losses import reduce
from repertoire.methods._classifier import Classifier
from repertoire.methods._precision import at_least_float32
from repertoire.methods._two_networks import TwoNetworks
from repertoire.ops import Memory
from repertoire.ranges import AtLeast, Positive, Share
from repertoire.registry import register

__all__ = ["DINO"]

CROP = "simclr:scale=(0.05,0.4)"
"""Augmentation of the further views."""


class _Prototypes(nn.Module):
    """A perceptron with a bottleneck of unit length, and cosines with learned prototypes."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        layers = [nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(F.normalize(self.layers(features)), F.normalize(self.prototypes))


@register("methods", "dino")
class DINO(TwoNetworks, Memory):
    r"""DINO: pretraining without labels or negatives; a student learns the soft classes that its slow copy assigns.

    Caron et al., *Emerging Properties in Self-Supervised Vision Transformers* (2021). With the outputs g_s of the
    student and g_t of the teacher, cosines with K prototypes, and a centre c:

    .. math::
        \ell = -\frac{1}{2} \sum_{u \ne v} \mathrm{softmax}\Bigl(\frac{g_t(x_u) - c}{\tau_t}\Bigr) \cdot
            \log \mathrm{softmax}\Bigl(\frac{g_s(x_v)}{\tau_s}\Bigr), \qquad
        c \leftarrow m_c\,c + (1 - m_c)\,\overline{g_t}

    over the pairs of the two views; the loss is the mean over the batch. Centring keeps one prototype from winning,
    sharpening (a smaller temperature of the teacher) keeps all from being equal. With `crops`, the student sees so many
    further views that are small parts of the image and learns from each what the teacher says of both whole views; the
    loss is then the mean over all 2 (1 + crops) pairs. The paper's small crops have fewer pixels too; here they have as
    many, which every network takes, and cost accordingly. The warm-up of the teacher's temperature and the first epoch,
    in which prototypes stand still, are left out.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        prototypes: K. The paper's 65536 is for the million images of ImageNet.
        student_temperature: tau_s, positive.
        teacher_temperature: tau_t, positive and smaller.
        momentum: of the teacher, in [0, 1]; 0.99 or less for a run of a few thousand steps.
        steps: updates of the whole run, over which the momentum rises to one as a cosine, as in the paper; constant
            if None.
        centre_momentum: m_c, in [0, 1].
        hidden: width of the projector's two hidden layers; the backbone's own width if None.
        bottleneck: width of the space in which the prototypes lie.
        crops: further views with 5 to 40 % of the image each; 8 or 10 in the paper.

    Attributes:
        centre: float `[K]`.

    Raises:
        ConfigError: widths, temperatures or steps that are not positive, or a momentum out of range.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import DINO, Classifier, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = DINO(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)), prototypes=8)
        >>> batch = Batch((torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)), torch.full((4,), -1), torch.arange(4))
        >>> method.step(batch).loss.backward()
        >>> method.after_update()  # after the step of the optimiser: teacher and centre follow
    """

    # The learning rate of a small convolutional network is not one for transformers.
    needs = replace(TwoNetworks.needs, defaults={"optimizer": "adamw"})
    centre: Tensor
    remembers: ClassVar = {"mean": "mean"}

    def __init__(
        self,
        model: Classifier,
        prototypes: Annotated[int, AtLeast(1)] = 4096,
        student_temperature: Annotated[float, Positive] = 0.1,
        teacher_temperature: Annotated[float, Positive] = 0.04,
        momentum: Annotated[float, Share] = 0.996,
        steps: Annotated[int, AtLeast(1)] | None = None,
        centre_momentum: Annotated[float, Share] = 0.9,
        hidden: Annotated[int, AtLeast(1)] | None = None,
        bottleneck: Annotated[int, AtLeast(1)] = 256,
        crops: Annotated[int, AtLeast(0)] = 0,
    ) -> None:
        width = model.backbone.out_features
        super().__init__(model, _Prototypes(width, hidden or width, bottleneck, prototypes), momentum, steps)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.centre_momentum = centre_momentum
        self.register_buffer("centre", torch.zeros(prototypes))
        if crops:
            small = {f"crop {number + 1}": CROP for number in range(crops)}
            self.needs = replace(type(self).needs, views={"first": "", "second": "", **small})

    def compare(self, views: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        (first, second), crops = views[:2], views[2:]
        features = self.model.embed(torch.cat([first, second]))
        student = self._log_assignments(features)
        teacher = at_least_float32(self.teacher(torch.cat([second, first])))
        self.remember(len(first), mean=teacher.mean(0))
        targets = ((teacher - self.centre) / self.teacher_temperature).softmax(1)
        loss = -reduce((targets * student).sum(1), "mean")
        if crops:
            both = torch.stack(targets.chunk(2)).mean(0).repeat(len(crops), 1)
            parts = -reduce((both * self._log_assignments(self.model.embed(torch.cat(crops)))).sum(1), "mean")
            loss = (loss + len(crops) * parts) / (1 + len(crops))
        return loss, features

    def _log_assignments(self, features: Tensor) -> Tensor:
        return (at_least_float32(self.projector(features)) / self.student_temperature).log_softmax(1)

    def commit(self, mean: Tensor) -> None:
        self.centre.lerp_(mean.to(self.centre), 1 - self.centre_momentum)
