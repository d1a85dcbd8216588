"""TriBYOL: three views and two slow copies, for small batches."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses import reduce
from repertoire.methods._base import Needs
from repertoire.methods._classifier import Classifier
from repertoire.methods._predicting import Predicting
from repertoire.methods._teacher import Teacher
from repertoire.methods._two_networks import squared_distance
from repertoire.ranges import AtLeast, Share
from repertoire.registry import register

__all__ = ["TriBYOL"]


@register("methods", "tribyol", paper="tribyol")
class TriBYOL(Predicting):
    r"""TriBYOL: BYOL with three views and two teachers, so that a small batch holds twice as many pairs.

    Li, Togo, Ogawa and Haseyama, *TriBYOL: Triplet BYOL for Self-Supervised Representation Learning* (2022). The first
    view is paired with the second through one teacher and with the third through the other, in both directions; with
    the predictions q of the student and the projections z' and z'' of the teachers, all of unit length:

    .. math:: \ell = \tfrac{1}{2} \bigl( \lVert q_1 - z'_2 \rVert^2 + \lVert q_2 - z'_1 \rVert^2 +
        \lVert q_1 - z''_3 \rVert^2 + \lVert q_3 - z''_1 \rVert^2 \bigr)

    The half, which is ours, keeps the scale of BYOL's loss. Teachers that began as the same copy and followed alike
    would stay equal: they take turns, each following every second update.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        momentum: of the teachers, in [0, 1]; see `BYOL`.
        steps: updates of each teacher (half of those of the run) over which the momentum rises to one as a cosine;
            constant if None.
        dimensions: width of the projections.
        hidden: width of the hidden layers of projector and predictor; twice the backbone's own width if None.

    Raises:
        ConfigError: a width or steps that are not positive, or a momentum out of range.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, TriBYOL
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = TriBYOL(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)))
        >>> views = tuple(torch.rand(3, 4, 1, 4, 4))
        >>> method.step(Batch(views, torch.full((4,), -1), torch.arange(4))).loss.backward()
        >>> method.after_update()  # after the step of the optimiser: the first teacher follows
        >>> method.teacher.updates, method.teacher_two.updates
        (tensor(1), tensor(0))
    """

    needs = Needs(views=3, step="whole", per_sample=False, augmentation="simclr")

    def __init__(
        self,
        model: Classifier,
        momentum: Annotated[float, Share] = 0.996,
        steps: Annotated[int, AtLeast(1)] | None = None,
        dimensions: Annotated[int, AtLeast(1)] = 256,
        hidden: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        super().__init__(model, momentum, steps, dimensions, hidden)
        self.teacher_two = Teacher(self.student, momentum, steps)

    def compare(self, views: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        first, second, third = views
        features = self.model.embed(torch.cat(views))
        q1, q2, q3 = self.predictor(self.projector(features)).chunk(3)
        targets = self.teacher(torch.cat([second, first])), self.teacher_two(torch.cat([third, first]))
        distances = squared_distance(torch.cat([q1, q2, q1, q3]), torch.cat(targets))
        return 2 * reduce(distances, "mean"), features

    def follow(self) -> None:
        """Lets the teacher follow whose turn it is."""
        second = self.teacher.updates - self.teacher_two.updates
        self.teacher.follow(self.student, 1 - second)
        self.teacher_two.follow(self.student, second)
