"""What the margin heads share: cosines, and a change to that of the right class while training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.heads._base import Head
from repertoire.ops import unit_rows

__all__ = ["MarginHead"]


class MarginHead(Head):
    """Logits that are scaled cosines, of which that of the right class is made worse while training.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        scale: what the cosines are multiplied by.
    """

    scale: Tensor

    def __init__(self, in_features: int, num_classes: int, scale: float) -> None:
        super().__init__(in_features, num_classes)
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be a positive number, found {scale}")
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Linear; only the direction matters
        self.register_buffer("scale", torch.tensor(float(scale)))

    def with_margin(self, right: Tensor, cosines: Tensor, targets: Tensor) -> Tensor:
        """The cosines of the right classes `[N]` with the margin, given all cosines `[N, C]` and the targets `[N]`, of
        which those below 0 are of samples without a label."""
        raise NotImplementedError

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]` of features `[N, d]`. While training, and with targets int64 `[N]`, those of the right
        classes have the margin; a target below 0, of a sample without a label, gives none.

        Raises:
            ShapeError: features of another width, targets that are not integers `[N]`, or (on the CPU) beyond the
                classes.
        """
        self.check_features(features)
        cosines = F.linear(unit_rows(features), unit_rows(self.weight))
        if targets is None or not self.training:
            return self.scale * cosines
        self._check(targets, len(cosines))
        index = targets.long().clamp_min(0)[:, None]
        right = cosines.gather(1, index).squeeze(1)
        changed = self.with_margin(right, cosines, targets).where(targets >= 0, right)
        # A copy, because the next batch may change the scale before this one's backward pass.
        return self.scale.clone() * cosines.scatter(1, index, changed[:, None])

    def _check(self, targets: Tensor, count: int) -> None:
        if targets.is_floating_point() or targets.shape != (count,):
            raise ShapeError(f"targets must be integers [{count}], found {targets.dtype} {list(targets.shape)}")
        if targets.device.type == "cpu" and count and not torch.compiler.is_compiling():
            highest = int(targets.max())
            if highest >= self.num_classes:
                raise ShapeError(f"targets must be below {self.num_classes}, the number of classes, found {highest}")
