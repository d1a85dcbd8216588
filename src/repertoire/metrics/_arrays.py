"""What all metrics take: arrays, tensors or lists, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from repertoire.errors import ShapeError

__all__ = ["Values", "integers", "numbers", "same_length", "truths"]

Values: TypeAlias = "np.ndarray | Tensor | Sequence[Any]"


def _array(values: Values) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() and values.itemsize < 4 else values).numpy()
    return np.asarray(values)


def numbers(name: str, values: Values, dims: int | tuple[int, ...] = 1) -> np.ndarray:
    """Values as float64 of one of so many dimensions, none of them NaN.

    Raises:
        ShapeError: they are not.
    """
    found = _array(values)
    allowed = (dims,) if isinstance(dims, int) else dims
    if found.ndim not in allowed or found.dtype.kind not in "fiub":
        expected = " or ".join("[N]" if d == 1 else "[N, K]" for d in allowed)
        raise ShapeError(f"{name} must be numbers {expected}, found {found.dtype} {list(found.shape)}")
    found = found.astype(np.float64)
    if np.isnan(found).any():
        raise ShapeError(f"{name} has {int(np.isnan(found).sum())} values that are not a number; leave those rows out")
    return found


def integers(name: str, values: Values) -> np.ndarray:
    """Values as int64 `[N]`.

    Raises:
        ShapeError: they are not whole numbers in one dimension.
    """
    found = _array(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iub"):
        raise ShapeError(f"{name} must be whole numbers [N], found {found.dtype} {list(found.shape)}")
    return found.astype(np.int64)


def truths(name: str, values: Values, dims: int | tuple[int, ...] = 1) -> np.ndarray:
    """Values as bool: booleans, or numbers that are all 0 or 1.

    Raises:
        ShapeError: they are not.
    """
    found = _array(values)
    if found.dtype.kind != "b":
        found = numbers(name, values, dims)
        if not np.isin(found, (0, 1)).all():
            raise ShapeError(f"{name} must be true or false, or 0 and 1; found {found[~np.isin(found, (0, 1))][0]:g}")
    elif found.ndim not in ((dims,) if isinstance(dims, int) else dims):
        raise ShapeError(f"{name} has {found.ndim} dimensions, found {list(found.shape)}")
    return found.astype(bool)


def same_length(**arrays: np.ndarray) -> None:
    """Refuses arrays of different shapes.

    Raises:
        ShapeError: their shapes differ.
    """
    (first, one), *others = arrays.items()
    for name, other in others:
        if one.shape != other.shape:
            raise ShapeError(f"{first} is {list(one.shape)} and {name} {list(other.shape)}; expected the same shape")
