"""Fitted estimators on the disk: tensors as safetensors, the rest as JSON, nothing pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from repertoire import registry
from repertoire.errors import CheckpointError, ConfigError, RunError, ascii_path
from repertoire.files import atomic_path, write_json

__all__ = ["FeatureEstimator", "load_estimator", "save_estimator"]

FORMAT = 1
_KINDS = ("feature-estimators", "zero-shot-classifiers")
_VALUES, _TENSORS = "estimator.json", "estimator.safetensors"


class FeatureEstimator(BaseEstimator):
    """An estimator on features whose fitted state is plain values and arrays, so that it can be saved.

    Attributes:
        learns_unlabelled: whether `fit` also learns from rows without a label, which is -1 among whole numbers and ""
            among names. It then keeps in `transduction_` the label that each row has in the end.
    """

    learns_unlabelled: ClassVar[bool] = False

    def fitted_state(self) -> dict[str, Any]:
        """Everything that fitting left behind: arrays, numbers, strings and None, by name."""
        options = self.get_params(deep=False)
        return {name: value for name, value in vars(self).items() if name not in options}

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Becomes the fitted estimator that `fitted_state` was taken from; the options must be the same."""
        for name, value in state.items():
            setattr(self, name, value)
        return self


def save_estimator(estimator: FeatureEstimator, folder: str | os.PathLike[str]) -> None:
    """Writes a fitted estimator into a folder, as `estimator.json` and `estimator.safetensors`.

    Args:
        estimator: registered and fitted.
        folder: made if it does not exist; an estimator that is there already is replaced.

    Raises:
        ConfigError: the estimator is not registered, or an option of it cannot be written as JSON.
        sklearn.exceptions.NotFittedError: it is not fitted.
        RunError: the disk is full.

    Example:
        >>> import tempfile
        >>> from repertoire.estimators import NearestCentroid, load_estimator, save_estimator
        >>> fitted = NearestCentroid(normalize=False).fit([[0.0], [2.0], [9.0]], ["a", "a", "b"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_estimator(fitted, folder)
        ...     load_estimator(folder).predict([[4.0], [6.0]]).tolist()
        ['a', 'b']
    """
    check_is_fitted(estimator)
    every = (entry for kind in _KINDS for entry in registry.entries(kind))
    found = next((entry for entry in every if entry.factory is type(estimator)), None)
    if found is None:
        raise ConfigError(f"{type(estimator).__name__} is not registered, so it could not be loaded again")
    tensors: dict[str, np.ndarray] = {}
    values = {key: _take_apart(key, value, tensors) for key, value in estimator.fitted_state().items()}
    record = {"format": FORMAT, "estimator": found.name, "options": estimator.get_params(deep=False), "values": values}
    if found.kind != _KINDS[0]:
        record["kind"] = found.kind
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the options of {found.name} cannot be written as JSON ({error}); give plain values"
        ) from None
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / _TENSORS) as temporary:
        save_file(tensors, temporary)
    write_json(folder / _VALUES, record)


def load_estimator(folder: str | os.PathLike[str]) -> FeatureEstimator:
    """Reads the estimator that `save_estimator` wrote.

    Args:
        folder: the folder given there.

    Raises:
        RunError: the folder holds no estimator, or one of a newer version.
        CheckpointError: a file is damaged.
        UnknownName: the estimator is registered by something that was not imported.
    """
    folder = Path(folder)
    shown = ascii_path(str(folder))
    try:
        record = json.loads((folder / _VALUES).read_text(encoding="utf-8"))
        form, name, options = int(record["format"]), record["estimator"], record["options"]
        stored, kind = dict(record["values"]), record.get("kind", _KINDS[0])
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{shown} holds no estimator: it has no {_VALUES}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{shown}/{_VALUES} is damaged: {error!r}") from None
    if form > FORMAT:
        raise RunError(f"{shown} was written by a newer version of Repertoire; upgrade to read it")
    estimator = registry.get(kind, name).factory(**options)
    try:
        tensors = load_file(folder / _TENSORS)
        state = {key: _put_together(value, tensors) for key, value in stored.items()}
        return estimator.restore(state)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{shown}/{_TENSORS} is damaged: {error}") from None


def _take_apart(name: str, value: Any, tensors: dict[str, np.ndarray]) -> Any:
    """The value as JSON, its array moved into `tensors`."""
    if hasattr(value, "detach"):
        tensors[name] = np.ascontiguousarray(value.detach().cpu().numpy())
        return {"tensor": name}
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        if not all(isinstance(item, str) for item in value.tolist()):
            raise ConfigError(f"{name} has values that are neither numbers nor strings; label classes with one of them")
        return {"strings": value.tolist()}
    if isinstance(value, np.ndarray):
        tensors[name] = np.ascontiguousarray(value)
        return {"array": name}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{name} is a {type(value).__name__}, which cannot be saved")


def _put_together(value: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "strings":
        return np.array(content)
    if kind == "tensor":
        import torch

        return torch.from_numpy(tensors[content])
    return tensors[content]
