"""Image files that belong to no data set, read as a model wants them: once, in order, and never all in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from repertoire.data._decode import Fit, Levels, decode, plain_reason, read_file
from repertoire.errors import ConfigError, Unreadable, UnreadableImages

__all__ = ["decode_files", "grey", "read_images"]


def decode_files(
    paths: Iterable[str | os.PathLike[str]],
    *,
    size: int,
    fit: Fit = "crop",
    channels: int = 3,
    batch_size: int = 256,
    workers: int | None = None,
    levels: Levels | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, list[Unreadable]]]:
    """Reads image files batch by batch, in threads, a batch ahead of the consumer.

    Memory holds two batches, however many files there are. A file that cannot be used ends nothing: it is reported, and
    is missing from its batch.

    Args:
        paths: of the files; consumed as they are needed.
        size: side of the images in pixels.
        fit: how an image becomes square: "crop", "squash" or "pad".
        channels: 3 for RGB, 1 for grey.
        batch_size: files in a batch.
        workers: number of threads; one for each core if None.
        levels: black and white of images of more than 8 bits, as the data set has them that the model was trained on
            (`Splits.levels`); without, only those of 16 bits can be used, whose white is 65535.

    Yields:
        For each batch the numbers of the files in it that could be used, int64 `[n]`, ascending; their pixels, uint8
        `[n, size, size, channels]`; and the others, with reasons.

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        >>> [(indices, pixels, failed)] = decode_files(["missing.jpg"], size=32)
        >>> pixels.shape, failed[0].reason
        ((0, 32, 32, 3), 'does not exist, or is a link to something that does not')
    """
    if channels not in (1, 3):
        raise ConfigError(f"channels must be 1 or 3, found {channels}")
    for name, value in (("size", size), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, found {value}")
    return _batches(iter(paths), size, fit, channels, batch_size, workers, levels)


def _batches(
    paths: Iterator[str | os.PathLike[str]],
    size: int,
    fit: Fit,
    channels: int,
    batch_size: int,
    workers: int | None,
    levels: Levels | None,
) -> Iterator[tuple[np.ndarray, np.ndarray, list[Unreadable]]]:
    def one(path: str | os.PathLike[str]) -> np.ndarray | Unreadable:
        try:
            return decode(read_file(os.fspath(path))[0], size, fit, levels)
        except (OSError, ValueError) as error:
            return Unreadable(os.fspath(path), plain_reason(error))

    # Pillow decodes outside the interpreter's lock, and threads start at once.
    pool = ThreadPoolExecutor(workers or os.cpu_count(), thread_name_prefix="repertoire-read")
    try:
        ahead: deque[list[Future[np.ndarray | Unreadable]]] = deque()
        first = 0
        while True:
            while len(ahead) < 2 and (batch := list(islice(paths, batch_size))):
                ahead.append([pool.submit(one, path) for path in batch])
            if not ahead:
                return
            results = [future.result() for future in ahead.popleft()]
            good = {number: result for number, result in enumerate(results, first) if isinstance(result, np.ndarray)}
            first += len(results)
            pixels = np.stack(list(good.values())) if good else np.zeros((0, size, size, 3), dtype=np.uint8)
            failed = [result for result in results if isinstance(result, Unreadable)]
            yield np.array(list(good), dtype=np.int64), pixels if channels == 3 else grey(pixels), failed
    finally:
        pool.shutdown(cancel_futures=True)


def read_images(
    paths: Iterable[str | os.PathLike[str]],
    *,
    size: int,
    fit: Fit = "crop",
    channels: int = 3,
    workers: int | None = None,
    levels: Levels | None = None,
) -> np.ndarray:
    """All of some image files, uint8 `[N, size, size, channels]`. Arguments as in `decode_files`.

    Raises:
        UnreadableImages: some cannot be used; all of them are named.
        ConfigError: an argument is out of its range.
    """
    parts, failures = [np.zeros((0, size, size, channels), dtype=np.uint8)], []
    for _, pixels, failed in decode_files(paths, size=size, fit=fit, channels=channels, workers=workers, levels=levels):
        parts.append(pixels)
        failures += failed
    images = np.concatenate(parts)
    if failures:
        raise UnreadableImages(failures, len(images) + len(failures))
    return images


def grey(pixels: np.ndarray) -> np.ndarray:
    """Luma after ITU-R BT.601, uint8 `[..., 3]` to uint8 `[..., 1]`: (299 R + 587 G + 114 B) / 1000, rounded."""
    luma = pixels @ np.array([299, 587, 114], dtype=np.uint32)
    return ((luma + 500) // 1000).astype(np.uint8)[..., None]
