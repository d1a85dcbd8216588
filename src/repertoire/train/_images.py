"""Whatever can be looked at as an image, as a model wants it: a batch at a time, in threads, one batch ahead."""

from __future__ import annotations

import glob
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from repertoire.data import decode, find_images, grey, plain, plain_reason, read_file
from repertoire.errors import DataError, ShapeError, Unreadable, ascii_path

__all__ = ["Images", "Reading", "stream"]

Images = Any
"""A path, a folder, a pattern, bytes, an open file, a PIL image, an array or tensor, an `ImageSet`; or several."""

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Reading:
    """Size and channels of the images that a model wants.

    Attributes:
        size: side in pixels.
        fit: how an image that is not square becomes square.
        channels: 3 for RGB, 1 for grey.
        levels: black and white of images of more than 8 bits, by kind; None where the data had none.
    """

    size: int
    fit: Literal["crop", "squash", "pad"] = "crop"
    channels: int = 3
    levels: Any = None

    def fits(self, array: np.ndarray | Tensor) -> bool:
        """True if an array holds images that need nothing done: uint8 `[N, S, S, C]` or float `[N, C, S, S]`."""
        s, c = self.size, self.channels
        floating = array.dtype.is_floating_point if isinstance(array, Tensor) else array.dtype.kind == "f"
        return array.ndim == 4 and tuple(array.shape[1:]) == ((c, s, s) if floating else (s, s, c))


def stream(
    images: Images, reading: Reading, batch_size: int = 256
) -> Iterator[tuple[np.ndarray, Tensor, list[Unreadable]]]:
    """Batches of images as a model wants them. Memory holds two batches, however many images there are.

    Args:
        images: an image or several: paths of files, of folders (all images below) or patterns with `*`; the bytes of a
            file, or an open one; PIL images; arrays or tensors of any size, uint8 or uint16 `[H, W]`, `[H, W, C]` or
            `[N, H, W, C]`, float in [0, 1] `[C, H, W]` or `[N, C, H, W]` (NumPy's also `[H, W, C]`); an `ImageSet`.
        reading: how the model wants them.
        batch_size: images in a batch.

    Yields:
        For each batch the numbers of the images in it that could be used, int64 `[n]`, ascending; the images, float
        `[n, C, S, S]` in [0, 1]; and those that could not, with reasons.

    Raises:
        DataError: something that is no image at all, or a folder or pattern without images.
        ShapeError: an array of another shape, dtype or range.
    """
    if hasattr(images, "pixels") and hasattr(images, "labels"):
        images = _SetPixels(images)
    if isinstance(images, np.ndarray | Tensor | _SetPixels) and reading.fits(images):  # type: ignore[arg-type]
        return _slices(images, batch_size)
    return _batches(_each(images), reading, batch_size)


class _SetPixels:
    """The images of a set, as an array that is read in slices."""

    def __init__(self, images: Any) -> None:
        self.set = images
        self.dtype = np.dtype(np.uint8)
        self.shape = (len(images), *images.size, images.channels)
        self.ndim = 4

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice) -> np.ndarray:
        return self.set.pixels(index)


def _slices(
    array: np.ndarray | Tensor | _SetPixels, batch_size: int
) -> Iterator[tuple[np.ndarray, Tensor, list[Unreadable]]]:
    for start in range(0, len(array), batch_size):
        part = array[start : start + batch_size]
        chunk = torch.from_numpy(np.ascontiguousarray(part)) if isinstance(part, np.ndarray) else part.detach()
        if chunk.dtype == torch.uint8:
            chunk = plain(chunk)
        else:
            _check_range(chunk)
        yield np.arange(start, start + len(chunk)), chunk.float(), []


def _each(images: Images) -> Iterator[Any]:
    """The single images in what was given."""
    if isinstance(images, str | os.PathLike):
        yield from _files(os.fspath(images))
    elif isinstance(images, bytes | bytearray | memoryview | Image.Image) or hasattr(images, "read"):
        yield images.read() if hasattr(images, "read") else images
    elif isinstance(images, np.ndarray | Tensor | _SetPixels):
        if isinstance(images, np.ndarray | Tensor) and (images.ndim in (0, 1) or images.ndim > 4):
            raise ShapeError(f"an image has two or three dimensions and several have four, found {list(images.shape)}")
        if images.ndim < 4:
            yield images
        elif isinstance(images, _SetPixels):
            yield from (images[slice(i, i + 1)][0] for i in range(len(images)))
        else:
            yield from images
    elif isinstance(images, Iterable):
        for image in images:
            if isinstance(image, np.ndarray | Tensor) and image.ndim > 3:
                raise ShapeError(
                    f"a list holds an image an item, found an array {list(image.shape)}; give the array by itself"
                )
            yield from _each(image)
    else:
        raise DataError(
            f"found a {type(images).__name__}; expected a path, bytes, an open file, a PIL image, an array, a tensor, "
            "or several of them"
        )


def _files(name: str) -> Iterator[Path]:
    path = Path(name)
    if path.is_dir():
        found = find_images(path)
        if not found:
            raise DataError(f"there is no image in {ascii_path(name)}")
        yield from found
    elif glob.has_magic(name) and not path.exists():
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise DataError(f"no file matches {ascii_path(name)}")
        for match in matches:
            yield from _files(match) if Path(match).is_dir() else [Path(match)]
    else:
        yield path


def _batches(
    items: Iterator[Any], reading: Reading, batch_size: int
) -> Iterator[tuple[np.ndarray, Tensor, list[Unreadable]]]:
    # Pillow and torch work outside the interpreter's lock, and threads start at once.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="repertoire-read")
    numbered = enumerate(items)
    try:
        ahead: deque[list[tuple[int, Future[np.ndarray | Tensor | Unreadable]]]] = deque()
        while True:
            while len(ahead) < 2 and (batch := list(islice(numbered, batch_size))):
                ahead.append([(number, pool.submit(_one, item, number, reading)) for number, item in batch])
            if not ahead:
                return
            results = [(number, future.result()) for number, future in ahead.popleft()]
            good = {number: one for number, one in results if not isinstance(one, Unreadable)}
            failed = [one for _, one in results if isinstance(one, Unreadable)]
            yield np.array(list(good), dtype=np.int64), _stacked(list(good.values()), reading), failed
    finally:
        pool.shutdown(cancel_futures=True)


def _stacked(images: list[np.ndarray | Tensor], reading: Reading) -> Tensor:
    if not images:
        return torch.zeros(0, reading.channels, reading.size, reading.size)
    if all(isinstance(one, np.ndarray) for one in images):
        return plain(torch.from_numpy(np.stack(images)))
    floats = [plain(torch.from_numpy(one)[None])[0] if isinstance(one, np.ndarray) else one for one in images]
    return torch.stack(floats)


def _one(item: Any, number: int, reading: Reading) -> np.ndarray | Tensor | Unreadable:
    """An image as uint8 `[S, S, C]` or float `[C, S, S]`; or why it cannot be used."""
    if isinstance(item, Tensor):
        item = item.detach().cpu()
        if item.dtype.is_floating_point:
            return _fitted(_planes(item, number), reading)
        item = _rows_last(item.numpy())
    if isinstance(item, np.ndarray):
        if item.dtype.kind == "f":
            return _fitted(_planes(torch.from_numpy(np.ascontiguousarray(item)), number), reading)
        if item.dtype == np.uint8 and item.shape == (reading.size, reading.size, reading.channels):
            return item
        item = _pil(item, number)
    try:
        data = read_file(os.fspath(item))[0] if isinstance(item, str | os.PathLike) else _bytes(item)
        pixels = decode(data, reading.size, reading.fit, reading.levels)
    except (OSError, ValueError) as error:
        name = os.fspath(item) if isinstance(item, str | os.PathLike) else f"image {number}"
        return Unreadable(name, plain_reason(error))
    return pixels if reading.channels == 3 else grey(pixels)


def _bytes(item: Any) -> bytes:
    """The bytes of a file that holds the image, without loss."""
    if not isinstance(item, Image.Image):
        return bytes(item)
    image = ImageOps.exif_transpose(item)
    if image.mode in ("RGB", "L") and "transparency" not in image.info:  # a header and the pixels: nothing to encode
        kind = b"P6" if image.mode == "RGB" else b"P5"
        return b"%s %d %d 255\n" % (kind, *image.size) + image.tobytes()
    file = io.BytesIO()
    image.save(file, "PNG" if "transparency" in image.info else "TIFF")
    return file.getvalue()


def _pil(array: np.ndarray, number: int) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    usable = array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)))
    if not (usable or (array.dtype == np.uint16 and array.ndim == 2)) or 0 in array.shape:
        raise ShapeError(
            f"image {number} is {array.dtype} {list(array.shape)}; expected uint8 [H, W] or [H, W, C] with C 1, 3 or "
            "4, uint16 [H, W], or float [C, H, W] in [0, 1]"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _rows_last(array: np.ndarray) -> np.ndarray:
    """Integers of torch, whose channels usually come first: `[C, H, W]` becomes `[H, W, C]`."""
    first = array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4)
    return np.moveaxis(array, 0, 2) if first else array


def _planes(image: Tensor, number: int) -> Tensor:
    """A floating-point image as float32 `[C, H, W]` with 1 or 3 channels."""
    if image.ndim == 2:
        image = image[None]
    if image.ndim == 3 and image.shape[0] not in (1, 3, 4) and image.shape[2] in (1, 3, 4):
        image = image.permute(2, 0, 1)
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4) or 0 in image.shape:
        raise ShapeError(
            f"image {number} is float {list(image.shape)}; expected [C, H, W] (or [H, W, C]) with C 1, 3 or 4"
        )
    image = image.float()
    _check_range(image)
    if image.shape[0] == 4:
        return image[:3] * image[3:] + (1 - image[3:])  # what is transparent shows white, as in files
    return image


def _check_range(images: Tensor) -> None:
    if not images.numel():
        return
    low, high = (float(value) for value in images.aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also where one is not a number
        hint = "; divide by 255, or give uint8" if 1 < high <= 255 and low >= 0 else ""
        raise ShapeError(f"float images must lie in [0, 1], without normalisation; found {low:g} to {high:g}{hint}")


def _fitted(image: Tensor, reading: Reading) -> Tensor:
    """A float image `[c, H, W]` at the model's size and with its channels."""
    if image.shape[0] != reading.channels:
        luma = torch.tensor(_LUMA)[:, None, None]
        image = (image * luma).sum(0, keepdim=True) if reading.channels == 1 else image.expand(3, -1, -1)
    size, (height, width) = reading.size, image.shape[1:]
    if (height, width) == (size, size):
        return image
    if reading.fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _resized(image[:, top : top + side, left : left + side], size, size)
    if reading.fit == "squash":
        return _resized(image, size, size)
    scale = size / max(height, width)
    inner = _resized(image, max(1, round(height * scale)), max(1, round(width * scale)))
    above, before = (size - inner.shape[1]) // 2, (size - inner.shape[2]) // 2
    beyond = (before, size - inner.shape[2] - before, above, size - inner.shape[1] - above)
    return functional.pad(inner, beyond)


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    made = functional.interpolate(image[None], (height, width), mode="bicubic", align_corners=False, antialias=True)
    return made[0].clamp(0, 1)
