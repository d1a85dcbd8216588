"""Images and labels from a NumPy archive."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from repertoire.data._arrays import pixel_keys, resized
from repertoire.data._source import SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import ImageSet, Splits
from repertoire.errors import DataError
from repertoire.registry import register

__all__ = ["npz"]


@register("data", "npz")
def npz(request: SourceRequest, path: Path) -> Splits:
    """Images and labels from an `.npz` file, as `np.savez(path, images=images, labels=labels)` writes it.

    The file holds `images` and `labels`, from which the splits are drawn; or `images_train` and `labels_train`, with
    `images_val`, `labels_val`, `images_test` and `labels_test` where they exist, the rest being drawn from the
    training images. Images are `[N, H, W]` or `[N, H, W, C]` with C 1 or 3, uint8, or float in [0, 1]. Labels are
    `[N]`: integers from 0, with -1 for no label, or class names. `classes` may name the integers. `masks` (or
    `masks_train` and so on) may say where the objects are: `[N, H, W]` like the images, of bool, or of numbers that are
    not 0 on the object; all parts have them or none. Nothing is unpickled: arrays of Python objects are refused.

    Args:
        request: `size` is the side in pixels; by default that of the images, or their shorter side.
        path: the file.

    Raises:
        DataError: the file cannot be read, an array is missing or pickled, or arrays do not fit each other.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "noise.npz"
        >>> pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
        >>> np.savez(path, images=pixels, labels=np.arange(40) % 2, classes=["even", "odd"])
        >>> npz(SourceRequest(), path).classes
        ('even', 'odd')
    """
    arrays = _read(path)
    parts = [part for part in ("_train", "_val", "_test") if f"images{part}" in arrays or f"labels{part}" in arrays]
    if "images" in arrays or not parts:
        parts = [""]
    elif "_train" not in parts:
        parts = ["_train", *parts]
    missing = [name for part in parts for name in (f"images{part}", f"labels{part}") if name not in arrays]
    if missing:
        raise DataError(
            f"{path} lacks {', '.join(missing)}; it holds {', '.join(sorted(arrays)) or 'nothing'}. Save 'images' and "
            "'labels', or 'images_train', 'labels_train' and the same for val and test"
        )
    masks = {part: _masks(path, part, arrays, request) for part in parts if f"masks{part}" in arrays}
    if masks and len(masks) < len(parts):
        lacking = ", ".join(f"masks{part}" for part in parts if part not in masks)
        raise DataError(f"{path} lacks {lacking}; give every part its masks, or none")
    images = {part: _images(f"{path}: images{part}", arrays.pop(f"images{part}"), request) for part in parts}
    labels, classes = _labels(path, {part: arrays[f"labels{part}"] for part in parts}, arrays.get("classes"))
    first = images[parts[0]]
    sets = {}
    for part in parts:
        pixels, targets = images[part], labels[part]
        if pixels.shape[1:] != first.shape[1:]:
            raise DataError(
                f"{path}: images{part} are {list(pixels.shape[1:])} each, and images{parts[0]} "
                f"{list(first.shape[1:])}; all must have one size and one number of channels"
            )
        if len(pixels) != len(targets):
            raise DataError(f"{path}: images{part} has {len(pixels)} images, and labels{part} {len(targets)} labels")
        names = [f"{part[1:]}-{number}" if part else str(number) for number in range(len(pixels))]
        sets[part] = ImageSet(pixels, targets, names, classes, pixel_keys(pixels), masks.get(part))
    return make_splits(
        sets[parts[0]],
        val_set=sets.get("_val"),
        test_set=sets.get("_test"),
        seed=request.seed,
        val=request.val,
        test=request.test,
        source=path.name,
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file, by name."""
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"{path} is a single array; save images and labels together with np.savez")
        with archive:
            return {name: _array(archive, name, path) for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}") from None


def _array(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{path}: {name} is an array of Python objects, which reading would have to unpickle; save it as numbers, "
            "or as text with dtype str"
        ) from None


def _images(what: str, images: np.ndarray, request: SourceRequest) -> np.ndarray:
    """uint8 `[N, S, S, C]`, whatever of the accepted forms the file has."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise DataError(f"{what} must be [N, H, W] or [N, H, W, C] with C 1 or 3, found {list(images.shape)}")
    if np.issubdtype(images.dtype, np.floating):
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):  # a comparison with NaN is false as well
            raise DataError(
                f"{what} are floats, which must be in [0, 1]; found {low:g} to {high:g}. Scale them, or save uint8"
            )
        images = np.rint(images * 255).astype(np.uint8)
    elif images.dtype != np.uint8:
        raise DataError(f"{what} must be uint8, or float in [0, 1]; found {images.dtype}")
    size = min(images.shape[1:3]) if request.size is None else request.size
    return resized(images, size, request.fit)


def _masks(path: Path, part: str, arrays: Mapping[str, np.ndarray], request: SourceRequest) -> np.ndarray:
    """bool `[N, S, S]`: the masks of a part, brought to the size of its images in the same way."""
    masks, images = arrays[f"masks{part}"], arrays[f"images{part}"]
    if masks.shape != images.shape[:3] or masks.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: masks{part} must be bool or numbers, {list(images.shape[:3])} like the images; found "
            f"{masks.dtype} {list(masks.shape)}"
        )
    return _images(f"{path}: masks{part}", (masks != 0).astype(np.uint8) * np.uint8(255), request)[..., 0] > 127


def _labels(
    path: Path, labels: Mapping[str, np.ndarray], classes: np.ndarray | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """int64 labels of each part, and the names of the classes."""
    for part, values in labels.items():
        if values.ndim != 1 or values.dtype.kind not in "iuU":
            raise DataError(
                f"{path}: labels{part} must be integers or class names, [N]; found {values.dtype} {list(values.shape)}"
            )
    if classes is not None and (classes.ndim != 1 or classes.dtype.kind != "U" or len(set(classes)) < len(classes)):
        raise DataError(f"{path}: classes must be different names, [C]; found {classes.dtype} {list(classes.shape)}")
    kinds = {values.dtype.kind == "U" for values in labels.values()}
    if len(kinds) > 1:
        raise DataError(f"{path}: labels must be integers in all parts, or class names in all parts")
    everything = np.concatenate(list(labels.values()))
    if kinds == {True}:
        known = np.unique(everything) if classes is None else classes
        unknown = sorted(set(everything.tolist()) - set(known.tolist()))
        if unknown:
            raise DataError(f"{path}: labels that are not in classes: {', '.join(unknown)}")
        order = np.argsort(known)
        numbers = {part: order[np.searchsorted(known, values, sorter=order)] for part, values in labels.items()}
        return numbers, tuple(known.tolist())
    low, high = int(everything.min()), int(everything.max())
    count = high + 1 if classes is None else len(classes)
    if low < -1 or high >= count:
        raise DataError(
            f"{path}: labels must be from 0 to {count - 1}, or -1 for none; found {low if low < -1 else high}"
        )
    names = map(str, range(count)) if classes is None else classes.tolist()
    return {part: values.astype(np.int64) for part, values in labels.items()}, tuple(names)
