"""Weights in whole numbers of eight bits or fewer, with a step for each output channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.compress._layers import decoded, inner_weights, part_of
from repertoire.compress._packing import pack, unpack
from repertoire.errors import CheckpointError
from repertoire.ranges import Between, checked
from repertoire.registry import register
from repertoire.weights import Stored, form

__all__ = ["int8", "int8_form", "nearest_steps"]


@register("compressors", "int8")
@checked
@torch.no_grad()
def int8(model: nn.Module, bits: Annotated[int, Between(2, 8)] = 8, *, ends: bool = True) -> Stored:
    r"""Whole numbers: every weight becomes a multiple of a step that its output channel has, without training.

    .. math:: \hat{w}_{oj} = s_o \, \mathrm{clip}(\mathrm{round}(w_{oj} / s_o), -m, m), \qquad m = 2^{b - 1} - 1

    The step is the one with the least squared error, of 40 between the one that clips nothing and a twentieth of it.
    The network computes in floating point once it is opened.

    Args:
        model: the network; it stays as it is.
        bits: b of each number, 2 to 8 (default); fewer than eight are packed.
        ends: whether the first and the last layer are rounded, too.

    Returns:
        The stored network, of form "int8".

    Raises:
        ConfigError: the network has no layer to round, or the bits are out of their range.

    Example:
        >>> import torch
        >>> from repertoire.compress import int8
        >>> model = torch.nn.Linear(100, 10)
        >>> stored = int8(model)
        >>> stored.tensors["weight:numbers"].nbytes
        1000
        >>> float((stored.build(torch.nn.Linear(100, 10)).weight - model.weight).abs().max()) < 5e-4
        True
    """
    weights = inner_weights(model, ends)
    tensors = {name: value.clone() for name, value in model.state_dict().items() if name not in weights}
    for name, weight in weights.items():
        numbers, steps = nearest_steps(weight, bits)
        tensors[f"{name}:numbers"] = pack(numbers + 2 ** (bits - 1), bits)
        tensors[f"{name}:steps"] = steps
    return Stored("int8", tensors, {"bits": bits, "weights": list(weights)})


def nearest_steps(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The whole numbers of a weight, int64 `[out, inputs]`, and the step of each output channel `[out]`."""
    rows = weight.flatten(1).float()
    most = 2 ** (bits - 1) - 1
    whole = (rows.abs().amax(1, keepdim=True) / most).clamp_min(torch.finfo(torch.float32).tiny)
    best, steps = torch.full_like(whole, torch.inf), whole
    for tried in range(40, 1, -1):
        step = whole * tried / 40
        error = ((rows / step).round().clamp(-most, most) * step - rows).square().sum(1, keepdim=True)
        better = error < best
        best, steps = torch.where(better, error, best), torch.where(better, step, steps)
    return (rows / steps).round().clamp(-most, most).long(), steps.flatten()


@form("int8")
def int8_form(model: nn.Module, tensors: Mapping[str, Tensor], bits: int = 8, weights: Sequence[str] = ()) -> nn.Module:
    """Weights as whole numbers, with a step for each output channel."""

    def decode(name: str, shape: torch.Size) -> Tensor:
        return whole_numbers(tensors, name, shape, bits)

    return decoded(model, tensors, weights, ("numbers", "steps"), decode)


def whole_numbers(tensors: Mapping[str, Tensor], name: str, shape: torch.Size, bits: int) -> Tensor:
    """A weight that is stored as whole numbers."""
    steps = part_of(tensors, f"{name}:steps")
    if len(steps) != shape[0]:
        raise CheckpointError(f"{name} has {len(steps)} steps for {shape[0]} output channels")
    numbers = unpack(part_of(tensors, f"{name}:numbers"), bits, shape.numel()) - 2 ** (bits - 1)
    return (numbers.view(shape[0], -1).to(steps.dtype) * steps[:, None]).view(shape)
