"""The contract of heads: what turns features into class scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.ops import unit_rows
from repertoire.ranges import AtLeast, checked

__all__ = ["Head", "cosines"]


def cosines(features: Tensor, weight: Tensor) -> Tensor:
    """Cosines `[N, C]` of features `[N, d]` and class vectors `[C, d]`, in float32 or better also where autocast would
    compute them in half precision: a margin is smaller than what would be lost."""
    with torch.autocast(features.device.type, enabled=False):
        z, w = unit_rows(features), unit_rows(weight)
        wide = torch.promote_types(z.dtype, w.dtype)
        return F.linear(z.to(wide), w.to(wide))


class Head(nn.Module):
    """`head(features, targets=None) -> logits`; replaces `nn.Linear` at the end of a classifier.

    Args:
        in_features: d, the width of the features `[N, d]`.
        num_classes: C, the width of the logits `[N, C]`.

    Attributes:
        takes_maps: whether a classifier gives it the backbone's last maps `[N, d, h, w]` instead of features `[N, d]`,
            which it takes too.
    """

    takes_maps: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    @checked
    def __init__(self, in_features: Annotated[int, AtLeast(1)], num_classes: Annotated[int, AtLeast(1)]) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_classes = num_classes

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits `[N, C]`. Only margin heads look at `targets`, and only while training."""
        raise NotImplementedError

    def check_features(self, features: Tensor) -> None:
        """Raises `ShapeError` unless features are as wide as the head was made for, and floating point."""
        if features.ndim < 2 or features.shape[-1] != self.in_features or not features.is_floating_point():
            raise ShapeError(
                f"features must be a floating point [N, {self.in_features}], found {features.dtype} "
                f"{list(features.shape)}"
            )

    def outputs(self, features: Tensor, targets: Tensor | None = None) -> Sequence[tuple[float, Tensor]]:
        """What training applies the loss to: pairs of a weight and logits `[N, C]`. One pair, unless a head trains
        several classifiers at once (Matryoshka, deep supervision)."""
        return [(1.0, self(features, targets))]
