"""Pruning by magnitude: the smallest weights become zero and are not stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.compress._layers import decoded, inner_weights, part_of
from repertoire.compress._packing import pack, unpack
from repertoire.diagnostics import magnitude_masks
from repertoire.errors import CheckpointError
from repertoire.ranges import AtLeast, Share, checked
from repertoire.registry import register
from repertoire.weights import Stored, form

__all__ = ["prune", "sparse_form"]


@register("compressors", "prune")
@checked
@torch.no_grad()
def prune(
    model: nn.Module,
    share: Annotated[float, Share] = 0.8,
    *,
    group: Annotated[int, AtLeast(2)] | None = None,
    ends: bool = False,
) -> Stored:
    """Pruning by magnitude: the smallest weights of all layers become zero, in one go and without training.

    What is stored of a layer is one bit for each weight, and the weights that are left as they are. That pays from a
    share of 1/32 on.

    Args:
        model: the network; it stays as it is.
        share: of the weights of linear layers and convolutions that become zero, 0.8 by default. How far one may go is
            what :func:`repertoire.diagnostics.sparsity_knee` says.
        group: None (default) compares all weights; with M, share M of every M consecutive inputs of a unit become zero:
            2:4 is a share of 0.5 in groups of 4, which some processors compute faster.
        ends: whether the first and the last layer are pruned, too. A head that has learned little is all small
            weights, and would be the first to go.

    Returns:
        The stored network, of form "sparse".

    Raises:
        ConfigError: the network has no layer to prune, or the share is out of its range.

    Example:
        >>> import torch
        >>> from repertoire.compress import prune
        >>> model = torch.nn.Linear(3, 1, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, -3.0, 2.0]]))
        >>> prune(model, 2 / 3, ends=True).build(torch.nn.Linear(3, 1, bias=False)).weight
        Parameter containing:
        tensor([[ 0., -3.,  0.]], requires_grad=True)
    """
    weights = inner_weights(model, ends)
    tensors = {name: value.clone() for name, value in model.state_dict().items() if name not in weights}
    for name, mask in magnitude_masks(weights, share, group=group).items():
        tensors[f"{name}:mask"] = pack(mask, 1)
        tensors[f"{name}:values"] = weights[name][mask]
    return Stored("sparse", tensors, {"weights": list(weights)})


@form("sparse")
def sparse_form(model: nn.Module, tensors: Mapping[str, Tensor], weights: Sequence[str] = ()) -> nn.Module:
    """Weights of which only some are not zero: a bit for each, and the values of these."""

    def decode(name: str, shape: torch.Size) -> Tensor:
        values = part_of(tensors, f"{name}:values")
        mask = unpack(part_of(tensors, f"{name}:mask"), 1, shape.numel()).bool()
        if int(mask.sum()) != len(values):
            raise CheckpointError(f"{name} has {len(values)} values for {int(mask.sum())} places")
        weight = torch.zeros(shape.numel(), dtype=values.dtype, device=values.device)
        weight[mask] = values
        return weight.view(shape)

    return decoded(model, tensors, weights, ("mask", "values"), decode)
