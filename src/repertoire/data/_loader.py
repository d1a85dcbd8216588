"""From an image set to batches, with randomness that remembers nothing."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from repertoire.data._augment import move_masks, plain
from repertoire.data._types import Batch, ImageSet
from repertoire.errors import ConfigError, DataError

__all__ = ["Loader", "step_seed"]

_ORDER = 2**64 - 1
"""Takes the place of a step where the order of an epoch is drawn; no epoch has as many steps."""


def step_seed(seed: int, epoch: int, step: int, rank: int = 0) -> int:
    """The 64-bit seed of one training step: a BLAKE2b hash of where in the run it is.

    Args:
        seed: of the run, in [0, 2**64).
        epoch: number of the epoch, from 0.
        step: number of the step in its epoch, from 0.
        rank: of the process.

    Example:
        >>> step_seed(0, 1, 2) == step_seed(0, 1, 2), step_seed(0, 1, 2) == step_seed(0, 2, 1)
        (True, False)
    """
    digest = hashlib.blake2b(struct.pack("<4Q", seed, epoch, step, rank), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class Loader:
    """Batches of an image set, epoch by epoch, augmented on the device.

    Nothing random is carried from one batch to the next. The order of an epoch is a function of the seed and the
    epoch's number, and before each training batch torch's random state is set to `step_seed(seed, epoch, step, rank)`,
    from which the augmentation draws, and whatever the step draws later (dropout, say). A run that resumes at any step
    therefore goes on bit for bit as if it had never stopped. Evaluation (`shuffle=False` without augmentation) leaves
    torch's random state alone.

    With several ranks, each takes a strided share of every global batch. Over all ranks an epoch visits every image
    exactly once. There are three exceptions: `drop_last` leaves out a short last batch; shuffling leaves it out where
    some rank would get fewer than two images of it, which batch normalisation cannot use; and `balanced` draws with
    replacement.

    Args:
        images: what to read.
        batch_size: images per step over all ranks together.
        augmentation: maps uint8 `[N, H, W, C]` to float `[N, C, H, W]`; None for `plain`.
        views: how many augmentations of each image a batch holds.
        masks: whether a batch holds the masks of the objects too, moved as the images are; asking for them changes
            neither images nor order.
        seed: decides order and augmentation, in [0, 2**64).
        device: where batches are made.
        shuffle: a new order each epoch; False for the order of the set.
        balanced: as many images as the set has labelled ones, drawn with replacement so that all classes that occur
            come equally often.
        drop_last: leave out a last batch that is not full.
        rank, world_size: which process this is, and of how many.
        prefetch: read the next images in a thread while a batch is used; by default where the device is not the CPU.

    Raises:
        ConfigError: an option is out of its range, or the augmentation cannot move masks.
        DataError: there is no image, no batch, nothing labelled to balance, or no mask where they are asked for.

    Example:
        >>> zeros = np.zeros((10, 8, 8, 1), dtype=np.uint8)
        >>> numbers = np.arange(10)
        >>> images = ImageSet(zeros, numbers % 2, [str(i) for i in numbers], ("even", "odd"), numbers.astype(np.uint64))
        >>> [len(batch) for batch in Loader(images, 4).epoch(0)]
        [4, 4, 2]
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        *,
        augmentation: nn.Module | None = None,
        views: int = 1,
        masks: bool = False,
        seed: int = 0,
        device: str | torch.device = "cpu",
        shuffle: bool = True,
        balanced: bool = False,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        prefetch: bool | None = None,
    ) -> None:
        if views < 1:
            raise ConfigError(f"views must be at least 1, found {views}")
        if not 0 <= seed < 2**64:
            raise ConfigError(f"seed must be in [0, 2**64), found {seed}")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank must be in [0, world_size), found rank {rank} and world_size {world_size}")
        if batch_size < world_size:
            raise ConfigError(f"batch_size must be at least 1 for each of {world_size} processes, found {batch_size}")
        if balanced and not shuffle:
            raise ConfigError("balanced draws at random, so it needs shuffle=True")
        self.images = images
        self.batch_size = batch_size
        self.augmentation: Callable[[Tensor], Tensor] = plain if augmentation is None else augmentation
        self.views = views
        self.masks = masks
        self.seed = seed
        self.device = torch.device(device)
        self.shuffle = shuffle
        self.balanced = balanced
        self.rank, self.world_size = rank, world_size
        self.prefetch = self.device.type != "cpu" if prefetch is None else prefetch
        # Evaluation in the middle of training must not change what training draws next.
        self._seeds = shuffle or augmentation is not None
        self._by_class = np.argsort(images.labels, kind="stable")[np.count_nonzero(images.labels < 0) :]
        self._length = len(self._by_class) if balanced else len(images)
        if self._length == 0:
            raise DataError("there is no labelled image to balance" if balanced else "there is no image to load")
        if masks:
            move_masks(self.augmentation, torch.from_numpy(images.object_masks([0])))
        self._steps = self._count_steps(drop_last)
        if self._steps == 0:
            raise DataError(
                f"{self._length} images give no batch: with batch_size {batch_size} over {world_size} "
                f"{'process' if world_size == 1 else 'processes'}, "
                + ("drop_last leaves them all out" if drop_last else "each process needs at least two images")
            )

    def _count_steps(self, drop_last: bool) -> int:
        full, rest = divmod(self._length, self.batch_size)
        dropped = drop_last or (self.shuffle and rest < 2 * self.world_size)
        return full + (rest > 0 and not dropped)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return self._steps

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch.

        Where an evaluation's last batch has fewer images than there are ranks, those without an image skip it.

        Args:
            number: of the epoch, from 0.
            start: number of the first batch wanted: a run that resumes in the middle of an epoch skips the rest at no
                cost.

        Raises:
            ConfigError: `start` is not in [0, steps_per_epoch].
        """
        if number < 0:
            raise ConfigError(f"number of an epoch must be 0 or more, found {number}")
        if not 0 <= start <= self._steps:
            raise ConfigError(f"start must be in [0, {self._steps}], the steps of an epoch; found {start}")
        return self._batches(number, start)

    def _batches(self, number: int, start: int) -> Iterator[Batch]:
        order = self._order(number)
        for step, read in enumerate(self._read(order, start), start=start):
            if not len(read[0]):
                continue
            pixels, targets, index, *masks = (tensor.to(self.device, non_blocking=True) for tensor in read)
            if self._seeds:
                torch.manual_seed(step_seed(self.seed, number, step, self.rank))
            moved, views = [], []
            for _ in range(self.views):
                moved += [move_masks(self.augmentation, mask) for mask in masks]
                views.append(self.augmentation(pixels))
            yield Batch(tuple(views), targets, index, tuple(moved))

    def _order(self, number: int) -> np.ndarray:
        """Positions in the set in the order in which the epoch takes them."""
        if not self.shuffle:
            return np.arange(self._length)
        generator = np.random.Generator(np.random.Philox(step_seed(self.seed, number, _ORDER)))
        if not self.balanced:
            return generator.permutation(self._length)
        counts = self.images.counts()
        present = np.flatnonzero(counts)
        classes = present[generator.permutation(self._length) % len(present)]
        first = np.cumsum(counts) - counts
        return self._by_class[first[classes] + generator.integers(0, counts[classes])]

    def _read(self, order: np.ndarray, start: int) -> Iterator[list[Tensor]]:
        """Pixels, labels, positions and perhaps masks of this rank's share of each batch, in the memory of the host."""

        def share(step: int) -> list[Tensor]:
            index = order[step * self.batch_size : (step + 1) * self.batch_size][self.rank :: self.world_size]
            arrays = [self.images.pixels(index), self.images.labels[index], np.ascontiguousarray(index)]
            if self.masks:
                arrays.append(self.images.object_masks(index))
            tensors = [torch.from_numpy(array) for array in arrays]
            return [tensor.pin_memory() for tensor in tensors] if self.device.type == "cuda" else tensors

        steps = range(start, self._steps)
        if not self.prefetch:
            yield from map(share, steps)
            return
        # The thread only copies: it draws no random number, so prefetching changes no batch. It works on at most one
        # batch ahead, and leaving the loop early waits for that one only.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="repertoire-loader") as pool:
            ahead = [pool.submit(share, step) for step in steps[:1]]
            for step in steps:
                ready = ahead.pop().result()
                if step + 1 < self._steps:
                    ahead.append(pool.submit(share, step + 1))
                yield ready
