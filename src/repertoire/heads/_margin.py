"""What the margin heads share: cosines, and a change to that of the right class while training."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.errors import ShapeError
from repertoire.heads._base import Head, cosines
from repertoire.ranges import Positive

__all__ = ["MarginHead"]


class MarginHead(Head):
    """Logits that are scaled cosines, of which that of the right class is made worse while training.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        scale: what the cosines are multiplied by.
    """

    scale: Tensor
    per_class = ("weight",)

    def __init__(self, in_features: int, num_classes: int, scale: Annotated[float, Positive]) -> None:
        super().__init__(in_features, num_classes)
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Linear; only the direction matters
        self.register_buffer("scale", torch.tensor(float(scale)))

    def with_margin(self, right: Tensor, cosines: Tensor, targets: Tensor) -> Tensor:
        """The cosines of the right classes `[N]` with the margin, given all cosines `[N, C]` and the targets `[N]`, of
        which those below 0 are of samples without a label."""
        raise NotImplementedError

    def adjusted(self, right: Tensor, cosines: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The scale, and the cosines of the right classes `[N]` with the margin, of a batch in training."""
        return self.scale, self.with_margin(right, cosines, targets)

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]` of features `[N, d]`. While training, and with targets int64 `[N]`, those of the right
        classes have the margin; a target below 0, of a sample without a label, gives none.

        Raises:
            ShapeError: features of another width, targets that are not integers `[N]`, or (on the CPU) beyond the
                classes.
        """
        self.check_features(features)
        each = cosines(features, self.weight)
        if targets is None or not self.training:
            return self.scale * each
        self._check(targets, len(each))
        index = targets.long().clamp_min(0)[:, None]
        right = each.gather(1, index).squeeze(1)
        scale, changed = self.adjusted(right, each, targets)
        return scale * each.scatter(1, index, changed.where(targets >= 0, right)[:, None])

    def _check(self, targets: Tensor, count: int) -> None:
        if targets.is_floating_point() or targets.shape != (count,):
            raise ShapeError(f"targets must be integers [{count}], found {targets.dtype} {list(targets.shape)}")
        if targets.device.type == "cpu" and count and not torch.compiler.is_compiling():
            highest = int(targets.max())
            if highest >= self.num_classes:
                raise ShapeError(f"targets must be below {self.num_classes}, the number of classes, found {highest}")
