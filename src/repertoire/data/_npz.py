"""Images and labels from a NumPy archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from repertoire.data._archive import open_archive
from repertoire.data._arrays import Arrays, pixel_keys, resized, splits_of_arrays
from repertoire.data._maps import fitted
from repertoire.data._source import SourceRequest
from repertoire.data._types import ImageSet, Splits
from repertoire.errors import DataError
from repertoire.registry import register

__all__ = ["images_of", "npz"]


@register("data", "npz")
def npz(request: SourceRequest, path: Path) -> Splits:
    """Images and labels from an `.npz` file, as `np.savez(path, images=images, labels=labels)` writes it.

    The file holds `images` and `labels`, from which the splits are drawn; or `images_train` and `labels_train`, with
    `images_val`, `labels_val`, `images_test` and `labels_test` where they exist, the rest being drawn from the
    training images (`train_images`, `x_train` and `y_train` are understood, too). Images are `[N, H, W]` or
    `[N, H, W, C]` with C 1 or 3, uint8, or float in [0, 1]. Nothing is unpickled: arrays of Python objects are refused.

    Labels are one class for each image, `[N]`: integers, with -1 for no label, or names. They may be several labels for
    each, `[N, K]`: 1 where a label holds, 0 where not, -1 where nobody knows; or numbers, float `[N]` or `[N, k]`, NaN
    for none. `votes` `[N, A]` in their place are the classes that annotators gave. `classes` may name the integers or
    columns; without it, the integers that occur are the classes. `maps` `[N, H, W]`, integers, give a class to every
    pixel in their place, with -1 or 255 for none.

    `masks` (or `masks_train` and so on) may say where the objects are: `[N, H, W]` like the images, of bool, or of
    numbers that are not 0 on the object; all parts have them or none. `names` `[N]` names the images, `split` `[N]`
    says the part of each (train, val, test), and `group` `[N]` what is to be on one side of the division.

    Args:
        request: `size` is the side in pixels; by default that of the images, or their shorter side. With `unlabelled`,
            labels may be missing.
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
    return images_of(Arrays(open_archive(Path(path))), request)


def images_of(arrays: Arrays, request: SourceRequest) -> Splits:
    """Splits of the images that arrays hold. See `npz`."""
    path = arrays.where
    parts = arrays.parts("images")
    stored = {part: arrays.get(f"images{part}") for part in parts}
    images = {
        part: _images(f"{path}: {arrays.called('images' + part)}", values, request)
        for part, values in stored.items()
        if values is not None
    }
    masks = {
        part: _masks(path, part, array, stored[part], request)  # type: ignore[arg-type]
        for part in parts
        if (array := arrays.get(f"masks{part}")) is not None
    }
    if masks and len(masks) < len(parts):
        lacking = ", ".join(f"masks{part}" for part in parts if part not in masks)
        raise DataError(f"{path} lacks {lacking}; give every part its masks, or none")
    first = images[parts[0]]
    for part, pixels in images.items():
        if pixels.shape[1:] != first.shape[1:]:
            raise DataError(
                f"{path}: {arrays.called('images' + part)} are {list(pixels.shape[1:])} each, and "
                f"{arrays.called('images' + parts[0])} {list(first.shape[1:])}; all must have one size and one number "
                "of channels"
            )

    def make(
        part: str, labels: np.ndarray, classes: tuple[str, ...], names: list[str], factors: dict[str, np.ndarray]
    ) -> ImageSet:
        pixels = images[part]
        if labels.ndim == 3:
            if labels.shape[1:] != stored[part].shape[1:3]:  # type: ignore[union-attr]
                raise DataError(
                    f"{path}: maps{part} must be as large as the images, {list(stored[part].shape[1:3])}; found "  # type: ignore[union-attr]
                    f"{list(labels.shape[1:])}"
                )
            labels = fitted(labels, pixels.shape[1], request.fit)
        return ImageSet(pixels, labels, names, classes, pixel_keys(pixels), masks.get(part), factors)

    return splits_of_arrays(arrays, "images", request, make)


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


def _masks(path: str, part: str, masks: np.ndarray, images: np.ndarray, request: SourceRequest) -> np.ndarray:
    """bool `[N, S, S]`: the masks of a part, brought to the size of its images in the same way."""
    if masks.shape != images.shape[:3] or masks.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: masks{part} must be bool or numbers, {list(images.shape[:3])} like the images; found "
            f"{masks.dtype} {list(masks.shape)}"
        )
    return _images(f"{path}: masks{part}", (masks != 0).astype(np.uint8) * np.uint8(255), request)[..., 0] > 127
