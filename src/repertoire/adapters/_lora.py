"""LoRA: the change of a weight is a product of two thin matrices."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from repertoire.adapters._base import Adapter, Change
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["LoRA"]


@register("adapters", "lora")
class LoRA(Adapter):
    r"""Low-rank adaptation: a frozen weight plus a product of two thin matrices, which are all that learns.

    Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models* (2021). For a weight W of o rows, each of f numbers
    (the kernel of a convolution counts as one row an output channel):

    .. math:: W' = W + \frac{\alpha}{r} B A, \qquad B \in \mathbb{R}^{o \times r},\; A \in \mathbb{R}^{r \times f}

    A is drawn as the weight of `nn.Linear` is, B is zero, so that the network is unchanged before the first step. That
    adds r (o + f) parameters a layer. Layers in which these would be no fewer than the o f of the weight itself
    (depthwise convolutions, most often) are left as they are.

    The paper adapts the attention of language models only, which `layers="linear"` comes close to in a vision
    transformer; the changed weight is computed once a pass instead of passing each input through A and B, which gives
    the same numbers and also serves convolutions with padding of their own.

    Args:
        rank: r, at least 1; 4 by default.
        alpha: the scale, positive; r by default, so that the product counts as it is.
        layers: "all" (default), "linear" or "conv".

    Example:
        >>> import torch
        >>> from repertoire.adapters import attach
        >>> layer, x = torch.nn.Linear(32, 32), torch.randn(2, 32)
        >>> before = layer(x)
        >>> adapted = attach(layer, "lora:rank=2")
        >>> adapted.count, torch.equal(adapted(x), before)
        (128, True)
    """

    def __init__(
        self,
        rank: Annotated[int, AtLeast(1)] = 4,
        alpha: Annotated[float, Positive] | None = None,
        layers: Literal["all", "linear", "conv"] = "all",
    ) -> None:
        self.rank = rank
        self.alpha = float(rank) if alpha is None else alpha
        self.layers = layers

    def wants(self, layer: nn.Linear | nn.Conv2d) -> bool:
        rows, width = layer.weight.shape[0], layer.weight[0].numel()
        kind = "linear" if isinstance(layer, nn.Linear) else "conv"
        return self.layers in ("all", kind) and self.rank * (rows + width) < rows * width

    def change(self, weight: Tensor) -> Change:
        return _LowRank(weight, self.rank, self.alpha / self.rank)


class _LowRank(Change):
    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.a = nn.Parameter(weight.new_empty(rank, weight[0].numel()))
        self.b = nn.Parameter(weight.new_zeros(len(weight), rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as nn.Linear

    def forward(self, weight: Tensor) -> Tensor:
        return torch.addmm(weight.flatten(1), self.b, self.a, alpha=self.scale).view_as(weight)
