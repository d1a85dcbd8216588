"""What augmentations have in common: batches of images as they come in, and as networks want them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import alone, at_once, worker_count

__all__ = ["centres", "check_images", "check_probability", "plain", "sampled", "shared_out"]

#: Numbers up to which PyTorch does not share out an operation.
_SMALL = 2**15

#: Numbers in a piece. With fewer, threads wait for the interpreter more than they work. It depends on nothing else:
#: some operations differ in the last bit by how many images they are given.
_PIECE = 2**20


def shared_out(change: Callable[..., Tensor], images: Tensor, draw: Callable[[], tuple[Tensor, ...]] = tuple) -> Tensor:
    """A change of a batch of images, in a thread of its own; of a large one in several, each with pieces of it.

    An augmentation is dozens of operations, each of which PyTorch would share out among all threads, to wait for the
    last of them, a square root of 256 numbers included. On idle cores that saves a third of the time of a small batch;
    on cores where other programs run it takes three to forty times as long as one thread
    (`benchmarks/augmentations.py --load 2`).

    Args:
        change: from some of the images, and what was drawn for them, to float `[n, C, H, W]`, channels last. It draws
            nothing itself: what is random must not depend on how many threads there are.
        images: uint8 `[N, H, W, C]`, or float `[N, C, H, W]`.
        draw: what is random, for each image, `[N, ...]`; called once.
    """
    count, workers = len(images), worker_count(images)
    pieces = min(count, images.numel() // _PIECE) if images.device.type == "cpu" else 1
    if pieces < 2:
        if workers == 1 or images.numel() <= _SMALL:
            return change(images, *draw())
        return alone(lambda: change(images, *draw()))
    drawn = alone(draw) if workers > 1 else draw()
    ends = [count * number // pieces for number in range(pieces + 1)]
    lock, whole = threading.Lock(), None

    def some(numbers: range) -> None:
        nonlocal whole
        for number in numbers:
            rows = slice(ends[number], ends[number + 1])
            found = change(images[rows], *(each[rows] for each in drawn))
            with lock:
                if whole is None:
                    whole = found.new_empty_strided((count, *found.shape[1:]), found.stride())
            whole[rows] = found

    workers = min(workers, pieces)
    at_once([functools.partial(some, range(first, pieces, workers)) for first in range(workers)])
    assert whole is not None
    return whole


def plain(images: Tensor) -> Tensor:
    """Images as networks want them, unchanged otherwise: what evaluation uses.

    Args:
        images: uint8 `[N, H, W, C]`, C being 1 (grey) or 3 (RGB).

    Returns:
        Float `[N, C, H, W]` in [0, 1], channels last in memory.

    Raises:
        ShapeError: the images are of another type or shape.

    Example:
        >>> plain(torch.full((2, 8, 8, 1), 255, dtype=torch.uint8)).amax().item()
        1.0
    """
    check_images(images)
    return shared_out(_plain, images)


def _plain(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def centres(size: int, like: Tensor) -> Tensor:
    """The centres of the pixels of a row in normalised coordinates, `[size]`."""
    return (2 * torch.arange(size, device=like.device, dtype=like.dtype) + 1) / size - 1


def sampled(x: Tensor, grid: Tensor) -> Tensor:
    sampled = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    return sampled.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ShapeError(
            f"images must be uint8 [N, H, W, C] with C 1 or 3, found {str(images.dtype).removeprefix('torch.')} "
            f"{list(images.shape)}"
        )


def check_probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is a probability, in [0, 1]; found {value}")
    return value
