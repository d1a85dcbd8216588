"""HL-Gauss: regression as classification over bins, with the target spread by a Gaussian."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.contracts._numbers import RangedLoss, check_bounds, check_numbers
from repertoire.ranges import AtLeast, Finite, Positive, checked
from repertoire.registry import register

if TYPE_CHECKING:
    from repertoire.data import Kind

__all__ = ["HLGauss", "hl_gauss_loss", "hl_gauss_targets", "hl_gauss_values"]


@checked(also=check_bounds)
def hl_gauss_targets(
    values: Tensor,
    bins: Annotated[int, AtLeast(1)],
    *,
    low: Annotated[float, Finite],
    high: Annotated[float, Finite],
    sigma: Annotated[float, Positive] = 0.75,
) -> Tensor:
    r"""Numbers as histograms: the mass of a Gaussian around each in each of a row of equal bins.

    Imani and White, *Improving Regression Performance with Distributional Losses* (2018), in the form of Farebrother et
    al., *Stop Regressing: Training Value Functions via Classification for Scalable Deep RL* (2024):

    .. math::
        q_{ik} = \frac{\Phi((e_{k+1} - y_i) / \varsigma) - \Phi((e_k - y_i) / \varsigma)}
                      {\Phi((e_C - y_i) / \varsigma) - \Phi((e_0 - y_i) / \varsigma)}, \qquad
        e_k = \mathrm{low} + k w, \quad w = \frac{\mathrm{high} - \mathrm{low}}{C}, \quad \varsigma = \sigma w

    Args:
        values: numbers y `[N]`; those outside [low, high] are moved to its nearer end.
        bins: C.
        low, high: the range that the bins divide.
        sigma: standard deviation of the Gaussian in bin widths, positive; the paper finds 0.75 good, which
            touches about six bins.

    Returns:
        float `[N, C]`, each row a distribution.

    Raises:
        ShapeError: values that are not `[N]`, an empty range, no bins, or a sigma that is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import hl_gauss_targets
        >>> hl_gauss_targets(torch.tensor([0.5]), 3, low=-1.0, high=2.0).round(decimals=3)
        tensor([[0.2410, 0.5190, 0.2410]])
    """
    if values.ndim != 1 or values.is_complex():
        raise ShapeError(f"values must be real numbers [N], found {values.dtype} {list(values.shape)}")
    values = at_least_float32(values) if values.is_floating_point() else values.float()
    # In units of bins from `low`, so that the edges are exact and large values lose no digits to their offset.
    position = ((values - low) * (bins / (high - low))).clamp(0, bins)
    edges = torch.arange(bins + 1, dtype=values.dtype, device=values.device)
    distribution = torch.erf((edges - position[:, None]) / (sigma * math.sqrt(2)))
    return distribution.diff(dim=1) / (distribution[:, -1:] - distribution[:, :1])


@checked(also=check_bounds)
def hl_gauss_values(logits: Tensor, *, low: Annotated[float, Finite], high: Annotated[float, Finite]) -> Tensor:
    """The numbers that logits over bins predict: the mean of the bins' centres under the softmax.

    Args:
        logits: float `[N, C]`.
        low, high: the range that the bins divide.

    Returns:
        float `[N]`, in [low, high]; float32 for half-precision logits.

    Raises:
        ShapeError: logits that are not `[N, C]`, or an empty range.

    Example:
        >>> import torch
        >>> from repertoire.losses import hl_gauss_values
        >>> hl_gauss_values(torch.tensor([[0.0, 9.0, 0.0]]), low=-1.0, high=2.0)
        tensor([0.5000])
    """
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ShapeError(f"logits must be floating point [N, C], found {logits.dtype} {list(logits.shape)}")
    bins = logits.shape[1]
    probabilities = at_least_float32(logits).softmax(1)
    centres = torch.arange(bins, dtype=probabilities.dtype, device=logits.device) + 0.5
    return low + (probabilities @ centres) * ((high - low) / bins)


@checked(also=check_bounds)
def hl_gauss_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    low: Annotated[float, Finite] | None = None,
    high: Annotated[float, Finite] | None = None,
    sigma: Annotated[float, Positive] = 0.75,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Regression as classification over bins: cross-entropy with a histogram around the target.

    Farebrother et al., *Stop Regressing: Training Value Functions via Classification for Scalable Deep RL* (2024):

    .. math:: \ell_i = -\sum_k q_{ik} \log \mathrm{softmax}(f_i)_k

    with the histogram q of :func:`hl_gauss_targets`. :func:`hl_gauss_values` turns logits into predictions.

    Args:
        logits: float `[N, C]`, one for each of C equal bins.
        targets: numbers `[N]`, integers or floating point; those outside [low, high] count as its nearer end.
        low, high: the range that the bins divide. Without them bin k is centred on the number k, which suits ordered
            classes: a class beside the right one is then a smaller mistake than one further away.
        sigma: standard deviation of the histogram in bin widths, positive.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, an empty range, or one end of it without the other; (on the CPU)
            targets that are not finite.

    Example:
        >>> import torch
        >>> from repertoire.losses import hl_gauss_loss
        >>> hl_gauss_loss(torch.zeros(2, 4), torch.tensor([0.1, 0.9]), low=0.0, high=1.0)  # log 4: nothing known
        tensor(1.3863)
    """
    logits, targets = check_numbers(logits, targets)
    bins = logits.shape[1]
    low, high = (-0.5, bins - 0.5) if low is None or high is None else (low, high)
    log_p = logits.log_softmax(1)
    histogram = hl_gauss_targets(targets, bins, low=low, high=high, sigma=sigma)
    return reduce(-(histogram.to(log_p.dtype) * log_p).sum(1), reduction)


@register("losses", "hl-gauss", paper="stop-regressing")
class HLGauss(RangedLoss, function=hl_gauss_loss):
    """Module form of `hl_gauss_loss`.

    Its targets are numbers, or classes in order, of which bin k is class k: then `low` and `high` are not
    given, and predictions are scores of the classes.
    """

    targets: ClassVar[tuple[Kind, ...]] = ("number", "classes")
    size = ("bins", 51, "bins that the range of numbers is divided into.")

    def width(self, outputs: int) -> int:
        if self.low is not None:
            return super().width(outputs)
        if outputs == 1:
            raise ConfigError("hl-gauss needs the range of the numbers: give low and high")
        return outputs

    def predict(self, logits: Tensor) -> Tensor:
        return logits if self.low is None else self.values(logits)[:, None]

    def values(self, logits: Tensor) -> Tensor:
        """The numbers `[N]` that logits `[N, C]` predict."""
        low, high = (-0.5, logits.shape[1] - 0.5) if self.low is None or self.high is None else (self.low, self.high)
        return hl_gauss_values(logits, low=low, high=high)
