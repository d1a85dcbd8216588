"""Arrays, tensors and sets that are in memory already, as splits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from repertoire.data._archive import Archive
from repertoire.data._arrays import Arrays
from repertoire.data._features import features_of
from repertoire.data._npz import images_of
from repertoire.data._source import SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import Samples, Splits
from repertoire.errors import DataError

__all__ = ["from_memory"]

_WHERE = Path("memory")


def from_memory(
    samples: Any,
    labels: Any = None,
    *,
    size: int | None = None,
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.2,
    unlabelled: bool = False,
) -> Splits:
    """Splits of images or features that are in memory already.

    Args:
        samples: images `[N, H, W]`, `[N, H, W, C]` or, as torch has them, `[N, C, H, W]`, uint8 or float in [0, 1];
            features `[N, d]`, float; or an `ImageSet` or `FeatureSet`, which has labels of its own.
        labels: a class each, as names or integers, `[N]`; several labels `[N, K]`; or numbers. An array, a tensor, a
            list or a column of a table.
        size: side of the images in pixels; theirs, or their shorter side, by default.
        seed, val, test: of the parts that are drawn.
        unlabelled: whether there need be no labels.

    Returns:
        The splits, drawn by content, as they would be from a file.

    Raises:
        DataError: arrays of another shape or dtype, or that do not fit each other; as `make_splits`.

    Example:
        >>> pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
        >>> from_memory(pixels, ["even", "odd"] * 20).classes
        ('even', 'odd')
    """
    if isinstance(samples, Samples):
        if labels is not None:
            raise DataError(f"a set of {samples.noun}s has labels of its own; leave labels out, or give its arrays")
        return make_splits(samples, seed=seed, val=val, test=test, source="memory", unlabelled=unlabelled)
    x = _inputs(samples)
    held: dict[str, np.ndarray] = {"features" if x.ndim == 2 else "images": x}
    if labels is not None:
        held["labels"] = _labels(labels)
    arrays = Arrays(Archive(_WHERE, {name: partial(np.asarray, value) for name, value in held.items()}))
    request = SourceRequest(size=size, seed=seed, val=val, test=test, unlabelled=unlabelled)
    return features_of(arrays, request) if x.ndim == 2 else images_of(arrays, request)


def _inputs(values: Any) -> np.ndarray:
    array = _array("samples", values)
    if array.ndim not in (2, 3, 4):
        raise DataError(
            f"samples must be images [N, H, W] or [N, H, W, C], or features [N, d]; found {array.dtype} "
            f"{list(array.shape)}"
        )
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = np.moveaxis(array, 1, 3)
    return np.ascontiguousarray(array)


def _labels(values: Any) -> np.ndarray:
    array = _array("labels", values)
    if array.dtype.kind == "O":
        if not all(isinstance(value, str) for value in array.ravel()):
            found = sorted({type(value).__name__ for value in array.ravel()})
            raise DataError(f"labels must be text or numbers, all alike; found {', '.join(found)}")
        array = array.astype(str)
    return array


def _array(what: str, values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise DataError(f"{what} do not form an array: {error}") from None
