"""The threshold that divides a list of numbers into two groups."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import ShapeError

__all__ = ["otsu_threshold"]


def otsu_threshold(values: Tensor) -> Tensor:
    r"""The number that divides values into two groups that differ most: Otsu's threshold, of the values themselves.

    Otsu, *A Threshold Selection Method from Gray-Level Histograms* (1979). Of all divisions of the N values in order
    into the first n and the others, the one of the largest variance between the groups,

    .. math:: \frac{n}{N} \Bigl(1 - \frac{n}{N}\Bigr) (\mu_> - \mu_\le)^2

    and of it the middle between the two neighbours. Histograms, as scikit-image has them, give the same up to the width
    of a bin.

    Args:
        values: float `[N]`, finite.

    Returns:
        The threshold, a scalar; the values themselves where they are all equal or only one, and infinity where there
        are none.

    Raises:
        ShapeError: values that are no list.

    Example:
        >>> import torch
        >>> from repertoire.ops import otsu_threshold
        >>> otsu_threshold(torch.tensor([0.0, 5.0, 1.0, 6.0]))
        tensor(3.)
    """
    if values.ndim != 1:
        raise ShapeError(f"values must be [N], found {list(values.shape)}")
    if len(values) < 2:
        return values[0].clone() if len(values) else torch.tensor(torch.inf)
    rising = values.double().sort().values
    count = len(rising)
    below = torch.arange(1, count, device=values.device, dtype=torch.float64)
    sums = rising.cumsum(0)
    gap = (sums[-1] - sums[:-1]) / (count - below) - sums[:-1] / below
    # Equal neighbours cannot be divided.
    between = torch.where(rising[1:] > rising[:-1], below * (count - below) * gap.square(), -1.0)
    best = between.argmax()
    low, high = rising[best], rising[best + 1]
    middle = ((low + high) / 2).to(values.dtype)
    # Between neighbours of its own precision there is no number.
    middle = torch.where(middle > low, middle, high.to(values.dtype))
    return torch.where(between[best] < 0, rising[0].to(values.dtype), middle)
