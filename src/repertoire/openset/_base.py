"""The contract of novelty scores: fitted to samples of known classes, then a number for each sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from torch import Tensor

from repertoire.errors import CheckpointError, ConfigError, ShapeError
from repertoire.ranges import checked

__all__ = ["NoveltyScore", "Values", "check_head", "rows"]

Values: TypeAlias = np.ndarray | Tensor


def rows(name: str, values: Any) -> np.ndarray:
    """Values as float64 `[N, d]`, all of them finite.

    Raises:
        ShapeError: they are not.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    found = np.asarray(values)
    if found.ndim != 2 or found.dtype.kind != "f":
        raise ShapeError(f"{name} must be a floating point [N, d], found {found.dtype} {list(found.shape)}")
    found = found.astype(np.float64)
    if not (finite := np.isfinite(found).all(1)).all():
        raise ShapeError(f"{name} must be finite, and row {int(np.flatnonzero(~finite)[0])} is not")
    return found


def _classes(labels: Any, count: int, width: int | None) -> np.ndarray:
    """Labels as int64 `[N]`, all of known classes."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    found = np.asarray(labels)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise ShapeError(f"labels must be whole numbers [{count}], found {found.dtype} {list(found.shape)}")
    found = found.astype(np.int64)
    if len(found) and (found.min() < 0 or (width is not None and found.max() >= width)):
        bad = int(found.min()) if found.min() < 0 else int(found.max())
        known = "0 or more" if width is None else f"0 to {width - 1}"
        raise ShapeError(f"labels must be of known classes, {known}; found {bad}. Leave out rows of no known class")
    return found


def check_head(weight: Any, bias: Any) -> tuple[np.ndarray, np.ndarray]:
    """The linear map that made logits of features: float64 weight `[K, d]` and bias `[K]`, zero where there is none.

    Raises:
        ShapeError: they do not fit together.
    """
    weight = rows("weight", weight)
    if bias is None:
        return weight, np.zeros(len(weight))
    if isinstance(bias, Tensor):
        bias = bias.detach().cpu().double().numpy()
    bias = np.asarray(bias)
    if bias.shape != (len(weight),) or bias.dtype.kind != "f" or not np.isfinite(bias).all():
        raise ShapeError(f"bias must be a finite floating point [{len(weight)}], found {bias.dtype} {list(bias.shape)}")
    return weight, bias.astype(np.float64)


class NoveltyScore:
    """Base of novelty scores: `score.fit(features, logits, labels)`, then `score(features, logits)`, higher = known.

    One is fitted to samples of known classes that the network has learned, and never sees an unknown one. A subclass
    implements `_fit` and `_score` on float64 arrays. Whatever fitting leaves behind is kept in attributes whose names
    end in an underscore: numbers and arrays, so that it can be stored.

    Attributes:
        reads: which of "features", "logits" and "labels" it looks at; the others may be None.
        learns: whether fitting takes anything from the samples.
        fewest: how many classes there must be.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"features", "logits", "labels"})
    learns: ClassVar[bool] = True
    fewest: ClassVar[int] = 1

    _fitted: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    def fit(self, features: Values | None = None, logits: Values | None = None, labels: Any = None) -> Self:
        """Fits to samples of known classes.

        Args:
            features: float `[N, d]`, what enters the last layer.
            logits: float `[N, K]`.
            labels: whole numbers `[N]` in 0..K-1.

        Raises:
            ShapeError: shapes that do not fit, or values that are not finite.
            ConfigError: what the score reads is missing, or there are too few samples or classes.
        """
        x, f = self._given(features, logits)
        if "labels" in self.reads and labels is None:
            raise ConfigError(f"{type(self).__name__} needs labels [N] to be fitted, and these were not given")
        sizes = [len(each) for each in (x, f) if each is not None]
        if self.learns and not sizes[0]:
            raise ConfigError(f"{type(self).__name__} needs samples to be fitted to, found none")
        y = None if labels is None else _classes(labels, sizes[0], None if f is None else f.shape[1])
        if f is not None and f.shape[1] < self.fewest:
            raise ConfigError(
                f"{type(self).__name__} needs {self.fewest} classes; of one, every sample scores the same"
            )
        self._widths = {"features": None if x is None else x.shape[1], "logits": None if f is None else f.shape[1]}
        self._fit(x, f, y)
        self._fitted = True
        return self

    def __call__(self, features: Values | None = None, logits: Values | None = None) -> np.ndarray:
        """Scores samples, each by itself.

        Args:
            features, logits: as in `fit`, of any samples.

        Returns:
            float64 `[N]`, higher for what is more likely of a known class.

        Raises:
            ShapeError: shapes that do not fit those of `fit`, or values that are not finite.
            ConfigError: it is not fitted, or what it reads is missing.
        """
        if not self._fitted:
            raise ConfigError(f"{type(self).__name__} is not fitted; call fit first")
        x, f = self._given(features, logits)
        for name, found in (("features", x), ("logits", f)):
            if found is not None and self._widths[name] not in (None, found.shape[1]):
                raise ShapeError(f"{name} must be [N, {self._widths[name]}] as in fit, found {list(found.shape)}")
        return self._score(x, f)

    def _given(self, features: Any, logits: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What the score reads of features and logits, as arrays."""
        found: list[np.ndarray | None] = []
        for name, value in (("features", features), ("logits", logits)):
            if name in self.reads and value is None:
                raise ConfigError(f"{type(self).__name__} needs {name}, and these were not given")
            found.append(rows(name, value) if name in self.reads else None)
        x, f = found
        if x is not None and f is not None and len(x) != len(f):
            raise ShapeError(f"features and logits must be of the same samples, found {len(x)} and {len(f)}")
        return x, f

    def _fit(self, x: Any, f: Any, y: Any) -> None:
        """Fits to float64 features and logits and int64 labels, None for what the score does not read."""

    def _score(self, x: Any, f: Any) -> np.ndarray:
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        """All that fitting has left behind, as arrays by name: numbers only, so that nothing has to be unpickled."""
        kept = {name: np.array(value) for name, value in vars(self).items() if name.endswith("_")}
        widths = [-1 if self._widths[name] is None else self._widths[name] for name in ("features", "logits")]
        return {**kept, "widths": np.array(widths)}

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Becomes the fitted score that `state` was taken from; the options must be the same.

        Raises:
            CheckpointError: it is no state of a novelty score.
        """
        if "widths" not in state:
            raise CheckpointError("this is no state of a novelty score: it has no widths")
        widths = [None if width < 0 else int(width) for width in np.asarray(state["widths"]).tolist()]
        self._widths = dict(zip(("features", "logits"), widths, strict=True))
        for name, value in state.items():
            if name != "widths":
                array = np.array(value)
                setattr(self, name, array.item() if array.ndim == 0 else array)
        self._fitted = True
        return self
