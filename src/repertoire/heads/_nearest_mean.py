"""A head that answers with the nearest class mean, once somebody has told it the means."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.heads._base import Head
from repertoire.ops import unit_rows
from repertoire.ranges import Positive
from repertoire.registry import register

__all__ = ["NearestMean"]


@register("heads", "nearest-mean")
class NearestMean(Head):
    r"""Nearest mean of exemplars: a linear classifier in training, and the nearest class mean when training is over.

    Rebuffi et al., *iCaRL: Incremental Classifier and Representation Learning* (2017). With features z and the means
    :math:`\mu_k` of the samples of each class that were kept, both of unit length, the answer is the class whose mean
    is nearest. The logits are

    .. math:: f_k = -s\,\lVert z - \mu_k \rVert^2

    Means move with the features and not with a classifier's weights, which favour the classes learned last. Whoever
    trains it tells it the means (:meth:`set_means`), as methods `icarl` and `semicon` do at the end of a stage. Until
    then, and in training mode, the linear classifier answers.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        scale: s, positive; it says how sure the answers are, and changes none.

    Attributes:
        means: float `[C, d]`, of unit length; zero for a class without samples, which then is never the answer.
        told: bool `[]`, whether the means are there.

    Shapes:
        features float `[N, d]` to logits `[N, C]`.

    Raises:
        ConfigError: the scale is not positive.

    Example:
        >>> import torch
        >>> from repertoire.heads import NearestMean
        >>> head = NearestMean(2, 2).eval()
        >>> head.set_means(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        >>> head(torch.tensor([[9.0, 1.0], [0.1, 0.2]])).argmax(1)
        tensor([0, 1])
    """

    means: Tensor
    told: Tensor
    per_class = ("linear.weight", "linear.bias")

    def __init__(self, in_features: int, num_classes: int, scale: Annotated[float, Positive] = 10.0) -> None:
        super().__init__(in_features, num_classes)
        self.scale = scale
        self.linear = nn.Linear(in_features, num_classes)
        self.register_buffer("means", torch.zeros(num_classes, in_features))
        self.register_buffer("told", torch.tensor(False))

    @torch.no_grad()
    def set_means(self, means: Tensor | None) -> None:
        """Takes the class means `[C, d]` of any length; None forgets those that are there, so that the linear
        classifier answers again."""
        self.told.fill_(means is not None)
        if means is not None:
            self.means.copy_(F.normalize(means, dim=1))

    def _add(self, added: int) -> None:
        super()._add(added)
        self.means = torch.cat([self.means, self.means.new_zeros(added, self.in_features)])

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]` of features `[N, d]`; targets are not looked at."""
        self.check_features(features)
        linear: Tensor = self.linear(features)
        if self.training:
            return linear
        with torch.autocast(features.device.type, enabled=False):
            z = unit_rows(features)
            means = self.means.to(z.dtype)
            near = self.scale * (2 * F.linear(z, means) - means.square().sum(1) - z.square().sum(1, keepdim=True))
            # A class without a mean is farther away than anything else can be.
            near = near.where(means.any(1), -5 * self.scale)
        return torch.where(self.told, near.to(linear.dtype), linear)
