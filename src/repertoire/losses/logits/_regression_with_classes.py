"""Regression helped by classification: a number, and beside it which of a row of bins it lies in."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._numbers import RegressionLoss, check_numbers
from repertoire.registry import register

__all__ = ["RegressionWithClasses", "bin_edges", "regression_with_classes_loss"]


def bin_edges(values: Tensor, bins: int, *, balanced: bool = False) -> Tensor:
    """Edges between bins over the range of some numbers, equally wide or equally full.

    Args:
        values: the numbers of the training set, float `[N]`, N at least 1.
        bins: how many, at least 1.
        balanced: False (default) makes bins of one width, True bins that hold about the same count of numbers.

    Returns:
        The `bins - 1` inner edges, increasing.

    Raises:
        ShapeError: values that are not floating point `[N]` or none at all, or no bins.

    Example:
        >>> import torch
        >>> from repertoire.losses import bin_edges
        >>> bin_edges(torch.tensor([0.0, 1.0, 2.0, 8.0]), 4)
        tensor([2., 4., 6.])
        >>> bin_edges(torch.tensor([0.0, 1.0, 2.0, 8.0]), 2, balanced=True)
        tensor([1.5000])
    """
    if values.ndim != 1 or not values.is_floating_point() or not len(values):
        raise ShapeError(f"values must be floating point [N], N at least 1, found {values.dtype} {list(values.shape)}")
    if bins < 1:
        raise ShapeError(f"there must be one bin or more, found {bins}")
    shares = torch.arange(1, bins, dtype=values.dtype, device=values.device) / bins
    if not balanced:
        low, high = values.aminmax()
        return low + (high - low) * shares
    place = shares * (len(values) - 1)  # torch.quantile, which refuses more than 16 million numbers
    ordered, left = values.sort().values, place.floor().long()
    return torch.lerp(ordered[left], ordered[(left + 1).clamp_max(len(values) - 1)], place - left)


def regression_with_classes_loss(
    outputs: Tensor,
    targets: Tensor,
    *,
    edges: Tensor | None = None,
    scale: float = 1.0,
    error: Literal["squared", "absolute"] = "squared",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Regression with a classification beside it: cross-entropy on the bin that the number lies in.

    Pintea et al., *A step towards understanding why classification helps regression* (2023):

    .. math:: \ell_i = (f_{i0} - y_i)^2 + \lambda \left( -\log \mathrm{softmax}(f_{i, 1:})_{b(y_i)} \right)

    where the first output is the number and the others are the scores of the bins, b the bin of a number. The second
    term asks nothing new; the paper finds that it helps where some numbers are rare in training and not in the test.

    Args:
        outputs: float `[N, 1 + C]`; without bins (C = 0) this is plain regression.
        targets: numbers y `[N]`; standardise them, so that the two terms are of one size.
        edges: the inner edges of the bins, increasing, `[C - 1]` (:func:`repertoire.losses.bin_edges`); without them,
            bin k is centred on the number k. Numbers beyond the outer edges belong to the outer bins.
        scale: lambda, 0 or more; the paper tunes it.
        error: "squared" (default) or "absolute", of the number.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision outputs, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit; (on the CPU) targets that are not finite.

    Example:
        >>> import torch
        >>> from repertoire.losses import regression_with_classes_loss
        >>> outputs = torch.tensor([[1.5, 0.0, 0.0]])  # a number and two bins
        >>> regression_with_classes_loss(outputs, torch.tensor([0.5]), edges=torch.tensor([1.0]))  # 1 + log 2
        tensor(1.6931)
    """
    outputs, targets = check_numbers(outputs, targets, name="outputs")
    bins = outputs.shape[1] - 1
    if bins < 0:
        raise ShapeError("outputs must be [N, 1 + C], a number and the scores of C bins, found no column")
    if edges is not None and edges.shape != (max(bins - 1, 0),):
        raise ShapeError(f"edges must be [{max(bins - 1, 0)}], those between {bins} bins, found {list(edges.shape)}")
    away = outputs[:, 0] - targets
    losses = away.square() if error == "squared" else away.abs()
    if not bins:
        return reduce(losses, reduction)
    if edges is None:
        edges = torch.arange(bins - 1, dtype=targets.dtype, device=targets.device) + 0.5
    bin_of = torch.bucketize(targets, edges.to(targets), right=True)
    return reduce(losses + scale * F.cross_entropy(outputs[:, 1:], bin_of, reduction="none"), reduction)


@register("losses", "regression-with-classes", paper="classification-helps-regression")
class RegressionWithClasses(RegressionLoss):
    r"""Regression with a classification beside it: cross-entropy on the bin that the number lies in.

    The module form of :func:`repertoire.losses.regression_with_classes_loss`, which gives the paper and the formula.

    Args:
        edges: the inner edges of the bins, increasing, one less than bins; without them bin k is centred on the number
            k. Kept as a buffer.
        scale: the weight of the cross-entropy, 0 or more.
        error: "squared" or "absolute", of the number.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Shapes:
        outputs float `[N, 1 + C]`, the number first; targets numbers `[N]`.

    Raises:
        ValueError: edges that do not increase, or a scale below 0.

    Example:
        >>> import torch
        >>> from repertoire.losses import RegressionWithClasses
        >>> loss = RegressionWithClasses(edges=[1.0])
        >>> outputs = torch.tensor([[1.5, 0.0, 0.0]])
        >>> loss(outputs, torch.tensor([0.5])), loss.values(outputs)
        (tensor(1.6931), tensor([1.5000]))
    """

    edges: Tensor | None

    def __init__(
        self,
        edges: list[float] | Tensor | None = None,
        scale: float = 1.0,
        error: Literal["squared", "absolute"] = "squared",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        if not 0 <= scale < math.inf:
            raise ValueError(f"scale must be 0 or more, found {scale}")
        if error not in ("squared", "absolute"):
            raise ValueError(f"error must be 'squared' or 'absolute', found {error!r}")
        if edges is not None:
            edges = torch.as_tensor(edges, dtype=torch.float32).detach()
            if edges.ndim != 1 or not bool((edges.diff() >= 0).all()):
                raise ValueError(f"edges must be increasing numbers [C - 1], found {edges.tolist()}")
        self.register_buffer("edges", edges)
        self.scale = scale
        self.error = error

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of outputs `[N, 1 + C]` against numbers `[N]`."""
        return regression_with_classes_loss(
            logits, targets, edges=self.edges, scale=self.scale, error=self.error, reduction=self.reduction
        )

    def values(self, outputs: Tensor) -> Tensor:
        """The numbers `[N]` that outputs `[N, 1 + C]` predict: the first column."""
        return outputs[:, 0]
