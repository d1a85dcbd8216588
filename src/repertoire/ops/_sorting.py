r"""Sorting that can be differentiated: a sorting network of soft swaps.

A sorting network compares and swaps pairs of places in a fixed order. A soft swap of neighbours a and b leaves them as
they are with the probability :math:`\alpha = f(b - a)` and exchanges them with the rest:

.. math:: a' = \alpha a + (1 - \alpha) b, \qquad b' = (1 - \alpha) a + \alpha b

The network is the odd-even transposition network: n layers of swaps of neighbours, for n values. f is the distribution
function of the Cauchy distribution, with which the network is monotonic and its gradients do not vanish: Petersen et
al., *Differentiable Sorting Networks for Scalable Sorting and Ranking Supervision* (2021) and *Monotonic Differentiable
Sorting Networks* (2022).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repertoire.errors import ConfigError

__all__ = ["soft_last", "soft_sort"]


def soft_sort(values: Tensor, steepness: float = 1.0) -> tuple[Tensor, Tensor]:
    """Values in ascending order, and where each of them went, both by soft swaps.

    Args:
        values: float `[..., n]`; n is small, since the network has n layers.
        steepness: divides the width of the Cauchy distribution, positive; the larger, the harder the swaps.

    Returns:
        float `[..., n]`, the sorted values; float `[..., n, n]`, the probability that value i is at rank r, whose rows
        and columns sum to one.

    Raises:
        ConfigError: the steepness is not positive.

    Example:
        >>> import torch
        >>> from repertoire.ops import soft_sort
        >>> ordered, ranks = soft_sort(torch.tensor([3.0, 1.0, 2.0]), steepness=1e4)
        >>> ordered.round(decimals=2)
        tensor([1., 2., 3.])
        >>> ranks.argmax(1)
        tensor([2, 0, 1])
    """
    ordered, swaps = _network(values, steepness)
    size = values.shape[-1]
    identity = torch.eye(size, dtype=values.dtype, device=values.device).expand(*values.shape, size)
    # Row r asks for rank r, and comes out with the probability of each value to get there.
    return ordered, _trace_back([stay[..., None, :] for stay in swaps], identity).mT


def soft_last(values: Tensor, count: int, steepness: float = 1.0) -> Tensor:
    """The probability of each value to be among the largest ones, by soft swaps.

    The sum of the last columns of the ranks of `soft_sort`, without the n x n matrix.

    Args:
        values: float `[..., n]`; n is small, since the network has n layers.
        count: how many are the largest ones, 0 to n.
        steepness: divides the width of the Cauchy distribution, positive.

    Returns:
        float `[..., n]` in [0, 1], of sum `count`.

    Raises:
        ConfigError: the steepness is not positive, or a count out of range.

    Example:
        >>> import torch
        >>> from repertoire.ops import soft_last
        >>> soft_last(torch.tensor([0.0, 1.0]), count=1)  # atan(1) is a quarter of pi
        tensor([0.2500, 0.7500])
    """
    size = values.shape[-1]
    if not 0 <= count <= size:
        raise ConfigError(f"count must be 0 to {size}, the number of values, found {count}")
    _, swaps = _network(values, steepness)
    wanted = (torch.arange(size, device=values.device) >= size - count).to(values.dtype)
    return _trace_back(swaps, wanted.expand_as(values))


def _network(values: Tensor, steepness: float) -> tuple[Tensor, list[Tensor]]:
    """The sorted values, and of each layer the probabilities `[..., pairs]` that neighbours stay as they are."""
    if not steepness > 0:
        raise ConfigError(f"steepness must be positive, found {steepness}")
    swaps = []
    for layer in range(values.shape[-1]):
        first, second = _neighbours(values, layer)
        swaps.append(torch.atan(steepness * (second - first)) / math.pi + 0.5)
        values = _swapped(values, swaps[-1], layer)
    return values, swaps


def _trace_back(swaps: list[Tensor], wanted: Tensor) -> Tensor:
    """What is wanted of the ranks `[..., n]`, as an expectation for each value: the layers in reverse order."""
    for layer in reversed(range(len(swaps))):
        wanted = _swapped(wanted, swaps[layer], layer)
    return wanted


def _neighbours(values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """What a layer compares: places (0, 1), (2, 3), ... and (1, 2), (3, 4), ... in turn."""
    start = layer % 2
    stop = start + (values.shape[-1] - start) // 2 * 2
    return values[..., start:stop:2], values[..., start + 1 : stop : 2]


def _swapped(values: Tensor, stay: Tensor, layer: int) -> Tensor:
    """The values behind a layer of soft swaps. The matrix of a swap is symmetric: the way back is the way there."""
    first, second = _neighbours(values, layer)
    change = stay * (first - second)
    pairs = torch.stack([second + change, first - change], -1).flatten(-2)
    start = layer % 2
    return torch.cat([values[..., :start], pairs, values[..., start + pairs.shape[-1] :]], -1)
