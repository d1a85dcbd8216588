"""Penalties on weights that keep a network able to learn: singular values near one, or weights spread as they began."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.ops import TopSingularValue
from repertoire.ranges import AtLeast, checked

__all__ = ["SpectralPenalty", "wasserstein_to_init"]


def wasserstein_to_init(weights: Sequence[Tensor], initial: Sequence[Tensor]) -> Tensor:
    r"""The squared Wasserstein distance of each layer's weights from those that it began with, as sets of numbers.

    Lewandowski et al., *Learning Continually by Spectral Regularization* (2024), in its first version. With the weights
    of a layer sorted, :math:`w_{(1)} \le w_{(2)} \le \dots`, and its first weights :math:`w^0` as well:

    .. math:: \sum_l \sum_i \bigl(w_{(i)} - w^0_{(i)}\bigr)^2

    It asks for the distribution of the weights at the beginning, and not for the weights themselves: layers may be
    permuted freely. The squared distance of distributions has the mean over i in the place of the sum.

    Args:
        weights: float tensors of any shapes, sorted one by one.
        initial: as many tensors of the same sizes, in any order; sorted ones are sorted quickly.

    Returns:
        A scalar, 0 or more; float32 for half-precision weights.

    Raises:
        ShapeError: other numbers of tensors, or of entries.

    Example:
        >>> import torch
        >>> from repertoire.losses import wasserstein_to_init
        >>> wasserstein_to_init([torch.tensor([3.0, 1.0])], [torch.tensor([1.0, 2.0])])
        tensor(1.)
    """
    if len(weights) != len(initial):
        raise ShapeError(f"weights and initial must be as many tensors, found {len(weights)} and {len(initial)}")
    total = torch.zeros((), device=weights[0].device if weights else None)
    for number, (weight, first) in enumerate(zip(weights, initial, strict=True)):
        if weight.numel() != first.numel():
            raise ShapeError(f"initial {number} must have {weight.numel()} entries, found {first.numel()}")
        now = at_least_float32(weight).flatten().sort().values
        total = total + (now - first.flatten().to(now).sort().values).square().sum()
    return total


class SpectralPenalty(nn.Module):
    r"""How far the largest singular value of each layer is from one; called with the network, it gives a scalar.

    Lewandowski et al., *Learning Continually by Spectral Regularization* (2025): networks that learn one task after
    another lose the ability to, as their layers come to stretch some directions far more than others. With the largest
    singular value :math:`\sigma_l` of the weight of each layer, its bias b, and the gains :math:`\gamma` of
    normalisation, which are 1 where nothing is stretched:

    .. math:: \sum_l \bigl(\sigma_l^k - 1\bigr)^2 + \lVert b_l \rVert^{2k}
        + \frac{1}{d} \sum_i \bigl(|\gamma_{li}|^k - 1\bigr)^2

    The exponent k is of the published version, and 1 in the first, which has no term for biases; a larger one punishes
    large values harder. The weight of a convolution is a matrix with a row for each channel that comes out. Singular
    values are found by a step of the power iteration an update (:class:`repertoire.ops.TopSingularValue`). The mean
    over gains is a choice made here. Everything called `weight` or `bias` that learns counts; other weights, such as
    tokens and positions, do not.

    Args:
        network: whose weights there are; it is not kept.
        power: k, 1 or more; 2 by default.
        biases: whether biases are drawn to zero.

    Raises:
        ConfigError: no layer of it learns.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.losses import SpectralPenalty
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.diag(torch.tensor([2.0, 1.0])))
        >>> round(SpectralPenalty(layer, power=2)(layer).item(), 4)  # (2² - 1)²
        9.0
    """

    @checked
    def __init__(self, network: nn.Module, power: Annotated[int, AtLeast(1)] = 2, biases: bool = True) -> None:
        super().__init__()
        self.power = power
        self.matrices: list[str] = []
        self.gains: list[str] = []
        self.biases: list[str] = []
        self.tops = nn.ModuleList()
        for name, weight in network.named_parameters():
            own = name.rpartition(".")[2]
            if not weight.requires_grad:
                continue
            if own == "weight" and weight.ndim > 1:
                self.matrices.append(name)
                self.tops.append(TopSingularValue(weight))
            elif own == "weight" and weight.ndim == 1:
                self.gains.append(name)
            elif own == "bias" and biases:
                self.biases.append(name)
        if not self.matrices:
            raise ConfigError("no layer of the network has a weight that learns: there is nothing to keep near one")

    def singular_values(self, network: nn.Module, witness: Tensor | None = None) -> Tensor:
        """The largest singular value of each layer `[L]`, in the order of `matrices`."""
        pairs = zip(self.tops, self.matrices, strict=True)
        return torch.stack([top(network.get_parameter(name), witness) for top, name in pairs])

    def forward(self, network: nn.Module, witness: Tensor | None = None) -> Tensor:
        """The penalty of the network with the weights that it has now.

        Args:
            network: of the same layers.
            witness: a scalar of the same step, its loss say: where it is not finite, the iteration does not go on.
        """
        total = (self.singular_values(network, witness) ** self.power - 1).square().sum()
        for name in self.gains:
            gains = at_least_float32(network.get_parameter(name)).abs()
            total = total + (gains**self.power - 1).square().mean()
        for name in self.biases:
            # The root of a sum of squares has no gradient at zero; its even power has.
            total = total + at_least_float32(network.get_parameter(name)).square().sum() ** self.power
        return total

    def extra_repr(self) -> str:
        return f"power={self.power}, layers={len(self.matrices)}"
