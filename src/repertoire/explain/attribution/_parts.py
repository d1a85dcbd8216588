"""Components of an input, and the values that stand in for those that are removed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain._explainer import kind

__all__ = ["check_baseline", "find_parts", "stand_in"]


def find_parts(inputs: Tensor, patch: int | None, segments: Tensor | Callable[[Tensor], Tensor] | None) -> Tensor:
    """The component of each pixel or column, int64 `[N, H, W]` or `[N, D]`.

    Raises:
        ShapeError: segments that do not fit the inputs.
    """
    places = inputs.shape[2:] if inputs.ndim == 4 else inputs.shape[1:]
    if segments is not None:
        return _given(segments, inputs, places)
    if len(places) == 1:
        return torch.arange(places[0], device=inputs.device).expand(len(inputs), -1)
    height, width = places
    side = math.ceil(min(places) / 7) if patch is None else patch
    rows = torch.arange(height, device=inputs.device) // side
    columns = torch.arange(width, device=inputs.device) // side
    return (rows[:, None] * math.ceil(width / side) + columns).expand(len(inputs), -1, -1)


def _given(segments: Tensor | Callable[[Tensor], Tensor], inputs: Tensor, places: torch.Size) -> Tensor:
    found = segments if isinstance(segments, Tensor) else segments(inputs)
    expected = f"int64 {list(places)} or {[len(inputs), *places]}"
    if not isinstance(found, Tensor) or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ShapeError(f"segments must be {expected}, found a {kind(found)}")
    if found.shape not in (places, torch.Size([len(inputs), *places])):
        raise ShapeError(f"segments must be {expected}, found {list(found.shape)}")
    if found.numel() and int(found.min()) < 0:
        raise ShapeError(f"segments must be numbered from 0, found {int(found.min())}")
    found = found.to(inputs.device, torch.int64)
    return found.expand(len(inputs), *places) if found.ndim == len(places) else found


def check_baseline(baseline: Any) -> float | str | Tensor:
    """The option as it was meant, text from the command line turned into a number.

    Raises:
        ConfigError: neither a number, nor a tensor, nor "mean".
    """
    if isinstance(baseline, Tensor) or baseline == "mean":
        return baseline
    try:
        number = float(baseline)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"baseline must be a number, a tensor or 'mean', found {baseline!r}")
    return number


def stand_in(inputs: Tensor, baseline: float | str | Tensor) -> Tensor:
    """The baseline of each input, of the inputs' shape.

    Raises:
        ConfigError: "mean" of features.
        ShapeError: a tensor that does not broadcast to the inputs.
    """
    if isinstance(baseline, str):
        if inputs.ndim != 4:
            raise ConfigError("baseline 'mean' is that of an image's channels; of features give the columns' means")
        return inputs.mean((2, 3), keepdim=True).expand_as(inputs)
    if not isinstance(baseline, Tensor):
        return inputs.new_full((), baseline).expand_as(inputs)
    value = baseline.detach().to(inputs)
    if inputs.ndim == 4 and value.ndim == 1:
        value = value[:, None, None]
    try:
        return value.expand_as(inputs)
    except RuntimeError:
        raise ShapeError(f"baseline {list(baseline.shape)} does not broadcast to inputs {list(inputs.shape)}") from None
