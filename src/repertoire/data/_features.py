"""Vectors with targets from a file: the frozen features of a network, or the columns of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from repertoire.data._archive import open_archive
from repertoire.data._arrays import Arrays, names_of, pixel_keys, splits_of_arrays, targets_of
from repertoire.data._source import SourceRequest
from repertoire.data._types import FeatureSet, Splits
from repertoire.errors import ConfigError, DataError, ascii_path, nearest
from repertoire.registry import register

__all__ = ["features", "features_of", "holds_features", "load_feature_set"]

_CHUNK = 4096


@register("data", "features")
def features(request: SourceRequest, path: Path) -> Splits:
    """Vectors from an `.npz` or `.safetensors` file that holds `features` and perhaps `labels`.

    Features are float16 or float32 `[N, d]` (float64 is rounded to float32) and finite. Large ones that are not
    compressed (`np.savez`, not `np.savez_compressed`) stay in the file and are mapped into memory. Everything else is
    as in `npz`: `labels` are classes (-1 for none), several labels or numbers, `classes` names them, `names`, `split`
    and `group` may be there, and so may parts (`features_train`, `labels_train`, ...). A `.safetensors` file keeps text
    (`classes`, `names`, `split`) in its metadata, as JSON lists.

    Args:
        request: with `unlabelled`, labels may be missing. A `size` is refused: vectors have none.
        path: the file.

    Raises:
        DataError: the file cannot be read, an array is missing or pickled, features are not finite, or arrays do not
            fit each other; as `make_splits`.
        ConfigError: a size is asked for.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "features.npz"
        >>> vectors = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
        >>> np.savez(path, features=vectors, labels=np.arange(40) % 2, classes=["even", "odd"])
        >>> features(SourceRequest(), path).train.shape
        (5,)
    """
    return features_of(Arrays(open_archive(Path(path))), request)


def features_of(arrays: Arrays, request: SourceRequest) -> Splits:
    """Splits of the vectors that arrays hold. See `features`."""
    if request.size is not None:
        raise ConfigError(f"size is for images, and {arrays.where} holds features; leave it out")
    vectors = {}
    for part in arrays.parts("features"):
        vectors[part] = _vectors(f"{arrays.where}: {arrays.called('features' + part)}", arrays.get(f"features{part}"))
    widths = {values.shape[1] for values in vectors.values()}
    if len(widths) > 1:
        raise DataError(f"{arrays.where}: features of the parts have {sorted(widths)} columns; all must have as many")

    def make(
        part: str, labels: np.ndarray, classes: tuple[str, ...], names: list[str], factors: dict[str, np.ndarray]
    ) -> FeatureSet:
        return FeatureSet(vectors[part], labels, names, classes, pixel_keys(vectors[part]), factors)

    return splits_of_arrays(arrays, "features", request, make, augmentation="none")


def load_feature_set(path: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> FeatureSet:
    """One set of vectors from a file, with the classes of a trained model. What is large stays in the file.

    Args:
        path: an `.npz` or `.safetensors` file as for `features`. Where it holds parts, they follow each other. Targets
            may be missing: every vector is then without one.
        classes: the names of all classes, labels or numbers, in the order in which the model has them; the file's own
            if None. Classes are found by name, so that the file may have them in another order, or fewer of them.

    Raises:
        DataError: the file cannot be read, arrays do not fit each other, or a class is none of `classes`.
    """
    arrays = Arrays(open_archive(Path(path)))
    parts = arrays.parts("features")
    vectors = [_vectors(f"{arrays.where}: {arrays.called('features' + p)}", arrays.get(f"features{p}")) for p in parts]
    if len({values.shape[1] for values in vectors}) > 1:
        raise DataError(f"{arrays.where}: features of the parts have several numbers of columns; all must have as many")
    counts = {part: len(values) for part, values in zip(parts, vectors, strict=True)}
    found, own = targets_of(arrays, "features", counts, SourceRequest(unlabelled=True))
    for part, count in counts.items():
        if len(found[part]) != count:
            raise DataError(f"{arrays.where}: features{part} has {count} rows, and its labels {len(found[part])}")
    labels = np.concatenate([found[part] for part in parts])
    stored = vectors[0] if len(vectors) == 1 else np.concatenate(vectors)
    names = [name for part, count in counts.items() for name in names_of(arrays, part, count)]
    samples = FeatureSet(stored, labels, names, own, np.zeros(len(stored), np.uint64))
    return samples if classes is None else _with_classes(samples, tuple(classes), arrays.where)


def _with_classes(samples: FeatureSet, classes: tuple[str, ...], where: str) -> FeatureSet:
    """The set with the classes of a model, in its order."""
    if samples.classes == classes or not samples.known.any():
        return replace(samples, classes=classes)
    if samples.kind not in ("classes", "votes"):
        raise DataError(
            f"{where} has targets {', '.join(map(ascii_path, samples.classes))}; the model has "
            f"{', '.join(map(ascii_path, classes))}"
        )
    used = np.unique(samples.labels[samples.labels >= 0])
    unknown = [samples.classes[k] for k in used if samples.classes[k] not in classes]
    if unknown:
        guess = nearest(unknown[0], classes)
        hint = f"; did you mean {ascii_path(guess)}?" if guess else ""
        raise DataError(
            f"{where} has the classes {', '.join(map(ascii_path, unknown))}, which the model does not know{hint} It "
            f"knows {', '.join(map(ascii_path, classes))}"
        )
    place = np.array([*(classes.index(name) if name in classes else -1 for name in samples.classes), -1])
    return replace(samples, labels=place[samples.labels], classes=classes)


def holds_features(path: Path) -> bool:
    """True if an `.npz` file holds features and no images; False for what cannot be read.

    >>> holds_features(Path("missing.npz"))
    False
    """
    try:
        held = Arrays(open_archive(path)).held
    except DataError:
        return False
    kinds = {name.partition("_")[0] for name in held}
    return "features" in kinds and "images" not in kinds


def _vectors(what: str, values: np.ndarray | None) -> np.ndarray:
    """float16 or float32 `[N, d]`, finite."""
    if values is None or values.ndim != 2 or 0 in values.shape or values.dtype.kind != "f":
        found = "nothing" if values is None else f"{values.dtype} {list(values.shape)}"
        raise DataError(f"{what} must be float16 or float32, [N, d]; found {found}")
    for start in range(0, len(values), _CHUNK):
        rows = np.flatnonzero(~np.isfinite(values[start : start + _CHUNK]).all(1))
        if len(rows):
            raise DataError(f"{what} holds values that are not finite, first in row {start + int(rows[0])}")
    if values.dtype.itemsize > 4:
        if np.abs(values).max() > np.finfo(np.float32).max:
            raise DataError(f"{what} holds values that are too large for float32")
        return values.astype(np.float32)
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
