"""Sums of tensors in wide precision, piece by piece, so that beside the result hardly anything is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights._state import LazyState, State, accumulator, is_averaged

__all__ = ["as_weights", "check_base", "combined", "pieces", "tensor_by_tensor"]

PIECE = 1 << 18
"""Elements that are worked on at a time."""


def pieces(tensors: Sequence[Tensor]) -> Iterator[tuple[slice, list[Tensor]]]:
    """Tensors of one shape, flat and in wide precision, a piece of all of them at a time; the pieces are copies."""
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    device, wide = flat[0].device, accumulator(flat[0])
    for start in range(0, flat[0].numel(), PIECE):
        part = slice(start, start + PIECE)
        yield part, [tensor[part].to(device, wide, copy=True) for tensor in flat]


def combined(
    tensors: Sequence[Tensor], coefficients: Sequence[float], *, divisor: float = 1.0, dtype: torch.dtype | None = None
) -> Tensor:
    """The sum of tensors times their coefficients, over a divisor; on the device and, by default, in the dtype of the
    first."""
    first = tensors[0]
    result = torch.empty(first.shape, dtype=dtype or first.dtype, device=first.device)
    flat = result.view(-1)
    for part, wide in pieces(tensors):
        total = torch.zeros_like(wide[0])
        for coefficient, piece in zip(coefficients, wide, strict=True):
            if coefficient != 0:
                total.add_(piece, alpha=coefficient)
        flat[part] = total if divisor == 1 else total.div_(divisor)
    return result


def tensor_by_tensor(
    states: Sequence[State], base: State | None, merge: Callable[[str, list[Tensor], Tensor], Tensor]
) -> dict[str, Tensor]:
    """The state that `merge(name, tensors of the states, tensor of the base)` gives for what has a mean.

    Without a base, `merge` is given the first state's tensor in its place. What has no mean is that of the first state.
    """
    merged: dict[str, Tensor] = {}
    for name in states[0]:
        tensors = [state[name] for state in states]
        start = tensors[0] if base is None else base[name]
        if tensors[0].is_complex():
            parts = [torch.view_as_real(tensor.detach().resolve_conj()) for tensor in (*tensors, start)]
            merged[name] = torch.view_as_complex(merge(name, parts[:-1], parts[-1]))
        elif is_averaged(tensors[0]):
            merged[name] = merge(name, tensors, start)
        else:
            merged[name] = tensors[0].clone()
    return merged


def as_weights(weights: Sequence[float] | None, states: Sequence[State]) -> tuple[float, ...]:
    """One weight for each state; 1 for all of them by default.

    Raises:
        ConfigError: there are more or fewer weights than states.
    """
    if weights is None:
        return (1.0,) * len(states)
    if len(weights) != len(states):
        raise ConfigError(f"weights must have one number for each of the {len(states)} states, found {len(weights)}")
    return tuple(float(weight) for weight in weights)


def check_base(state: Mapping[str, Tensor], base: State, called: str = "base") -> None:
    """Raises unless the base has every tensor of a state, of the same shape. It may have more, such as a head.

    Raises:
        CheckpointError: it does not; what is missing or differs is named.
    """
    lacking = [name for name in state if name not in base]
    other = [
        f"{name} {list(shape_of(base, name))}, expected {list(shape_of(state, name))}"
        for name in state
        if name in base and shape_of(base, name) != shape_of(state, name)
    ]
    if lacking or other:
        told = ([f"lacks {few(lacking)}"] if lacking else []) + ([f"has other shapes: {few(other)}"] if other else [])
        raise CheckpointError(f"the {called} is not of the architecture of the states: it {'; '.join(told)}")


def shape_of(state: State, name: str) -> tuple[int, ...]:
    return state.shape(name) if isinstance(state, LazyState) else tuple(state[name].shape)


def few(items: Sequence[str]) -> str:
    return ", ".join(items[:8]) + (f", and {len(items) - 8} more" if len(items) > 8 else "")
