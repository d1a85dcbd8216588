"""The contract of heads: what turns features into class scores."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from repertoire.errors import ShapeError

__all__ = ["Head"]


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

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        if in_features < 1 or num_classes < 1:
            raise ValueError(f"in_features and num_classes must be positive, found {in_features} and {num_classes}")
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
