"""Regression helped by classification: a number, and beside it which of a row of bins it lies in."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._function import Kept
from repertoire.losses.contracts._numbers import RangedLoss, RegressionLoss, check_bounds, check_numbers
from repertoire.ranges import AtLeast, Finite, checked
from repertoire.registry import register

__all__ = ["RegressionWithClasses", "bin_edges", "regression_with_classes_loss"]


@checked
def bin_edges(values: Tensor, bins: Annotated[int, AtLeast(1)], *, balanced: bool = False) -> Tensor:
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
    shares = torch.arange(1, bins, dtype=values.dtype, device=values.device) / bins
    if not balanced:
        low, high = values.aminmax()
        return low + (high - low) * shares
    place = shares * (len(values) - 1)  # torch.quantile, which refuses more than 16 million numbers
    ordered, left = values.sort().values, place.floor().long()
    return torch.lerp(ordered[left], ordered[(left + 1).clamp_max(len(values) - 1)], place - left)


def _as_edges(edges: list[float] | Tensor | None) -> Tensor | None:
    if edges is None:
        return None
    values = torch.as_tensor(edges, dtype=torch.float32).detach()
    if values.ndim != 1 or not bool((values.diff() >= 0).all()):
        raise ConfigError(f"edges must be increasing numbers [C - 1], found {values.tolist()}")
    return values


@checked(also=check_bounds)
def regression_with_classes_loss(
    outputs: Tensor,
    targets: Tensor,
    *,
    edges: Annotated[Tensor | None, Kept(_as_edges)] = None,
    scale: Annotated[float, AtLeast(0)] = 1.0,
    error: Literal["squared", "absolute"] = "squared",
    low: Annotated[float, Finite] | None = None,
    high: Annotated[float, Finite] | None = None,
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
        edges = torch.arange(1, bins, dtype=targets.dtype, device=targets.device)
        edges = edges - 0.5 if low is None or high is None else low + (high - low) / bins * edges
    elif edges.device.type == "cpu" and not torch.compiler.is_compiling():
        _as_edges(edges)
    bin_of = torch.bucketize(targets, edges.to(targets), right=True)
    return reduce(losses + scale * F.cross_entropy(outputs[:, 1:], bin_of, reduction="none"), reduction)


@register("losses", "regression-with-classes", paper="classification-helps-regression")
class RegressionWithClasses(RangedLoss, RegressionLoss, function=regression_with_classes_loss):
    """Module form of `regression_with_classes_loss`."""

    edges: Tensor | None
    size = ("bins", 10, "bins where there are no edges: equally wide, from low to high.")
    example = "(torch.zeros(2, 4), torch.tensor([0.2, 0.7]))"

    def parts(self) -> int:
        return 1 + (super().parts() if self.edges is None else len(self.edges) + 1)

    def predict(self, logits: Tensor) -> Tensor:
        return logits[:, :1]

    def values(self, outputs: Tensor) -> Tensor:
        """The numbers `[N]` that outputs `[N, 1 + C]` predict: the first column."""
        return outputs[:, 0]
