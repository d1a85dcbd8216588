"""The plain linear classifier."""

from __future__ import annotations

from torch import Tensor, nn

from repertoire.heads._base import Head
from repertoire.registry import register

__all__ = ["Linear"]


@register("heads", "linear")
class Linear(Head):
    """Linear classifier: :math:`W z + b`.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        bias: whether there is a b.
        zero: begin with W = 0 and b = 0, as suits a head on frozen features: what random weights say about directions
            that no sample has is never unlearned.

    Example:
        >>> import torch
        >>> Linear(8, 3)(torch.zeros(2, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, in_features: int, num_classes: int, bias: bool = True, zero: bool = False) -> None:
        super().__init__(in_features, num_classes)
        self.linear = nn.Linear(in_features, num_classes, bias=bias)
        self.per_class = ("linear.weight", "linear.bias") if bias else ("linear.weight",)
        self.zero = zero
        if zero:
            for parameter in self.linear.parameters():
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        self.check_features(features)
        return self.linear(features)
