"""From an image set to batches, with randomness that remembers nothing."""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from repertoire.data._augment import move_masks
from repertoire.data._batches import plain
from repertoire.data._maps import check_moves_maps, move_maps
from repertoire.data._rotate import KnownTransformation
from repertoire.data._types import Batch, Samples
from repertoire.errors import ConfigError, DataError, plural
from repertoire.ops import seed_torch

__all__ = ["Loader", "StreamSource", "step_seed"]

Transform = Callable[[Tensor], Tensor]
Views = int | Mapping[str, Transform | None]
"""How many augmented views, or named ones with the augmentation of each (None for that of the run)."""

AHEAD = 3
"""Batches that are asked for beforehand where each has to be decoded first."""

SHARDS = 8
"""Archives whose samples are mixed with each other: so many are read at a time."""

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


@dataclass(frozen=True)
class StreamSource:
    """A further stream of samples beside the main one.

    Attributes:
        samples: what to draw from.
        batch_size: samples a step, over all ranks together.
        augmentation: as for `Loader`.
        views: as for `Loader`.
    """

    samples: Samples
    batch_size: int
    augmentation: Transform | None = None
    views: Views = 1


@dataclass
class _Reader:
    """One set of samples, read and augmented: what the main stream and the others share."""

    samples: Samples
    augmentation: Transform | None
    views: Views
    fields: Sequence[str] = ()
    transforms: tuple[Transform, ...] = field(init=False)
    names: tuple[str, ...] = field(init=False)
    moves: bool = field(init=False)

    def __post_init__(self) -> None:
        natural: Transform = plain if self.samples.inputs([0]).dtype == np.uint8 else _as_float
        main = natural if self.augmentation is None else self.augmentation
        if isinstance(self.views, int):
            if self.views < 1:
                raise ConfigError(f"views must be at least 1, found {self.views}")
            self.transforms, self.names = (main,) * self.views, ()
        else:
            if not self.views:
                raise ConfigError("views names no view: give at least one")
            self.transforms = tuple(main if each is None else each for each in self.views.values())
            self.names = tuple(self.views)
        # What enters a later block is not augmented, so that its maps stay where they are.
        self.moves = self.samples.kind == "maps" and self.transforms[0] not in (plain, _as_float)
        if self.moves:
            check_moves_maps(self.transforms[0])
        for name in self.fields:
            if name == "transformation":
                if not all(isinstance(transform, KnownTransformation) for transform in self.transforms):
                    raise ConfigError(
                        "the transformation from one view to the other is wanted, and this augmentation does not say "
                        "what it does: use rotate"
                    )
            elif name == "mask":
                masks = getattr(self.samples, "object_masks", None)
                if masks is None:
                    raise DataError(f"{self.samples.noun}s have no object masks")
                for transform in self.transforms:
                    move_masks(transform, torch.from_numpy(masks([0])))
            elif name not in self.samples.factors:
                known = ", ".join(sorted(self.samples.factors)) or "none"
                raise DataError(f"the data has no field {name!r}; its fields are: {known}")

    @property
    def _stored_fields(self) -> list[str]:
        """The fields that are read; the others come about when views are made."""
        return [name for name in self.fields if name != "transformation"]

    def read(self, index: np.ndarray, pin: bool) -> list[Tensor]:
        """Inputs, targets, positions and fields of some samples, in the memory of the host."""
        arrays = [self.samples.inputs(index), self._targets(index), np.ascontiguousarray(index)]
        for name in self._stored_fields:
            masks = self.samples.object_masks(index) if name == "mask" else None  # type: ignore[attr-defined]
            arrays.append(np.ascontiguousarray(self.samples.factors[name][index]) if masks is None else masks)
        tensors = [torch.from_numpy(array) for array in arrays]
        return [tensor.pin_memory() for tensor in tensors] if pin else tensors

    def _targets(self, index: np.ndarray) -> np.ndarray:
        labels = self.samples.labels[index]
        if self.samples.kind == "maps":
            return np.ascontiguousarray(labels)
        # 255, which says that nobody knows, becomes -1.
        return labels.astype(np.int8).astype(np.float32) if labels.dtype == np.uint8 else np.ascontiguousarray(labels)

    def batch(self, read: list[Tensor], device: torch.device) -> Batch:
        """The batch, augmented from torch's random state."""
        inputs, targets, index, *values = (tensor.to(device, non_blocking=True) for tensor in read)
        fields: dict[str, Tensor | tuple[Tensor, ...]] = dict(zip(self._stored_fields, values, strict=True))
        if self.samples.kind == "maps":
            targets = move_maps(self.transforms[0] if self.moves else plain, targets)
        mask = fields.get("mask")
        moved, views, done = [], [], []
        for transform in self.transforms:
            if isinstance(mask, Tensor):
                moved.append(move_masks(transform, mask))
            if "transformation" in self.fields:
                view, parameters = transform.draw(inputs)  # type: ignore[attr-defined]
                views.append(view)
                done.append(parameters)
            else:
                views.append(transform(inputs))
        if done:
            fields["transformation"] = self.transforms[-1].between(done[0], done[-1])  # type: ignore[attr-defined]
        if moved:
            fields["mask"] = tuple(moved)
        return Batch(tuple(views), targets, index, fields, names=self.names)


def _as_float(stored: Tensor) -> Tensor:
    """Vectors of features as a network takes them."""
    return stored.float()


class Loader:
    """Batches of a set of samples, epoch by epoch, augmented on the device.

    Nothing random is carried from one batch to the next. The order of an epoch is a function of the seed and the
    epoch's number, and before each training batch torch's random state is set to `step_seed(seed, epoch, step, rank)`,
    from which the augmentation draws, and whatever the step draws later (dropout, say). A run that resumes at any step
    therefore goes on bit for bit as if it had never stopped. Evaluation (`shuffle=False` without augmentation) leaves
    torch's random state alone.

    With several ranks, each takes a strided share of every global batch. Over all ranks an epoch visits every image
    exactly once. There are three exceptions: `drop_last` leaves out a short last batch; shuffling leaves it out where
    some rank would get fewer than two images of it, which batch normalisation cannot use; and `balanced` draws with
    replacement. With `grouped` each group has batches of its own, of nearly equal size; what is too small for one is
    left out.

    Samples that lie in archives come in a random order that takes a few archives at a time (`SHARDS`, drawn anew in
    each epoch) and mixes all their samples: files that are too many for the memory are then read from the disk once an
    epoch. What an archive holds should be mixed already.

    Further streams (unlabelled images, say) are drawn beside the main one, each from a sequence of its own that is a
    function of seed, stream, epoch and step: endless passes over its set, each in a new order. A stream changes neither
    the main one nor the others.

    Args:
        samples: what to read: images or features.
        batch_size: samples per step over all ranks together.
        augmentation: maps uint8 `[N, H, W, C]` to float `[N, C, H, W]`, or float `[N, d]` to the same; None for the
            samples as they are.
        views: how many augmentations of each sample a batch holds, or their names with the augmentation of each.
        fields: further values that a batch holds: "mask" for the masks of objects, moved as the images are,
            "transformation" for what leads from the first view to the last, or the name of a factor. Asking for them
            changes neither images nor order.
        streams: further streams by name.
        seed: decides order and augmentation, in [0, 2**64).
        device: where batches are made.
        shuffle: a new order each epoch; False for the order of the set.
        balanced: as many images as the set has labelled ones, drawn with replacement so that all classes that occur
            come equally often.
        grouped: name of a factor: all samples of a batch have the same value of it, and which value is drawn as part of
            the order; "" (default) for any.
        drop_last: leave out a last batch that is not full.
        rank, world_size: which process this is, and of how many.
        prefetch: read the next images in a thread while a batch is used; by default where the device is not the CPU, or
            images are decoded when they are asked for.

    Raises:
        ConfigError: an option is out of its range, or the augmentation cannot move masks.
        DataError: there is no image, no batch, nothing labelled to balance, no factor to group by, or no mask where
            they are asked for.

    Example:
        >>> from repertoire.data import ImageSet
        >>> zeros = np.zeros((10, 8, 8, 1), dtype=np.uint8)
        >>> numbers = np.arange(10)
        >>> images = ImageSet(zeros, numbers % 2, [str(i) for i in numbers], ("even", "odd"), numbers.astype(np.uint64))
        >>> [len(batch) for batch in Loader(images, 4).epoch(0)]
        [4, 4, 2]
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        *,
        augmentation: nn.Module | Transform | None = None,
        views: Views = 1,
        fields: Sequence[str] = (),
        streams: Mapping[str, StreamSource] | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        shuffle: bool = True,
        balanced: bool = False,
        grouped: str = "",
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        prefetch: bool | None = None,
    ) -> None:
        if not 0 <= seed < 2**64:
            raise ConfigError(f"seed must be in [0, 2**64), found {seed}")
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank must be in [0, world_size), found rank {rank} and world_size {world_size}")
        if balanced and not shuffle:
            raise ConfigError("balanced draws at random, so it needs shuffle=True")
        if balanced and samples.kind != "classes":
            raise ConfigError("balanced draws classes equally often, and these samples have no class each")
        if not len(samples):
            raise DataError(f"there is no {samples.noun} to load")
        if grouped and (balanced or drop_last or not shuffle or samples.shards is not None):
            raise ConfigError(
                f"grouped={grouped} draws batches by group, which goes neither with balanced, drop_last or "
                "shuffle=False nor with samples in archives: leave those out"
            )
        sources = dict(streams or {})
        for name, source in sources.items():
            if not len(source.samples):
                raise DataError(f"the stream {name!r} is empty")
        for name, size in (("batch_size", batch_size), *((f"{n}'s batch", s.batch_size) for n, s in sources.items())):
            if size < world_size:
                raise ConfigError(f"{name} must be at least 1 for each of {world_size} processes, found {size}")
        self.samples = samples
        self.batch_size = batch_size
        self.sources = sources
        self.seed = seed
        self.device = torch.device(device)
        self.shuffle = shuffle
        self.balanced = balanced
        self.grouped = grouped
        self.rank, self.world_size = rank, world_size
        late = samples.late or any(source.samples.late for source in sources.values())
        self.prefetch = late or self.device.type != "cpu" if prefetch is None else prefetch
        self._ahead = AHEAD if late else 1
        # Evaluation in the middle of training must not change what training draws next.
        self._seeds = shuffle or augmentation is not None
        if balanced:
            self._by_class = np.argsort(samples.labels, kind="stable")[np.count_nonzero(samples.labels < 0) :]
        self._length = len(self._by_class) if balanced else len(samples)
        if self._length == 0:
            raise DataError(f"there is no labelled {samples.noun} to balance")
        self._groups = _groups_of(samples, grouped) if grouped else []
        self._main = _Reader(samples, augmentation, views, fields)
        self._others = {name: _Reader(s.samples, s.augmentation, s.views) for name, s in sources.items()}
        self._steps = self._count_steps(drop_last)
        if self._steps == 0:
            found = f"no batch can be made of {plural(self._length, f'training {samples.noun}')}"
            if drop_last:
                raise DataError(f"{found}: none of {batch_size} is full, and drop_last leaves out all others")
            processes = "" if world_size == 1 else f" for each of {world_size} processes"
            raise DataError(
                f"{found}: it takes at least two{processes}, for batch normalisation. Add some, or provide the parts "
                "yourself (train/, val/, test/), with more of them in train/"
            )
        self._laps: dict[str, tuple[int, np.ndarray]] = {}

    def _count_steps(self, drop_last: bool) -> int:
        if self.grouped:
            return sum(self._batches_of(group)[0] for group in self._groups)
        full, rest = divmod(self._length, self.batch_size)
        dropped = drop_last or (self.shuffle and rest < 2 * self.world_size)
        return full + (rest > 0 and not dropped)

    def _batches_of(self, group: np.ndarray) -> tuple[int, int]:
        """How many batches a group has, and how many of its samples are in them: all, in batches of nearly the same
        size, unless some rank got fewer than two samples of one; then they are full, and the rest is left out."""
        count = -(-len(group) // self.batch_size)
        if len(group) // count >= 2 * self.world_size:
            return count, len(group)
        count = len(group) // self.batch_size
        return count, count * self.batch_size

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
        order, bounds = self._divided(number)
        for step, (read, others) in enumerate(self._read(order, bounds, number, start), start=start):
            if not len(read[0]):
                continue
            streams = {}
            for name, tensors in others.items():
                seed_torch(_stream_seed(step_seed(self.seed, number, step, self.rank), name), self.device)
                streams[name] = self._others[name].batch(tensors, self.device)
            # The main stream last: what the step draws goes on from its random state, whatever streams there are.
            if self._seeds:
                seed_torch(step_seed(self.seed, number, step, self.rank), self.device)
            batch = self._main.batch(read, self.device)
            batch.streams = streams
            if self.world_size > 1:
                batch.together = int(bounds[step + 1] - bounds[step])
            yield batch

    def _divided(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the set in the order in which the epoch takes them, and where in it each batch begins; a last
        number says where the last one ends."""
        if not self.grouped:
            order = self._order(number)
            return order, np.minimum(np.arange(self._steps + 1) * self.batch_size, len(order))
        generator = np.random.Generator(np.random.Philox(step_seed(self.seed, number, _ORDER)))
        parts = []
        for group in self._groups:
            count, kept = self._batches_of(group)
            parts += np.array_split(generator.permutation(group)[:kept], count) if count else []
        parts = [parts[place] for place in generator.permutation(len(parts))]
        return np.concatenate(parts), np.cumsum([0, *map(len, parts)])

    def _order(self, number: int) -> np.ndarray:
        """Positions in the order of an epoch whose batches are cut wherever they are full."""
        if not self.shuffle:
            return np.arange(self._length)
        generator = np.random.Generator(np.random.Philox(step_seed(self.seed, number, _ORDER)))
        if not self.balanced:
            order, shards = generator.permutation(self._length), self.samples.shards
            if shards is None:
                return order
            together = generator.permutation(int(shards.max()) + 1)[shards] // SHARDS
            return order[np.argsort(together[order], kind="stable")]
        counts = self.samples.counts()
        present = np.flatnonzero(counts)
        classes = present[generator.permutation(self._length) % len(present)]
        first = np.cumsum(counts) - counts
        return self._by_class[first[classes] + generator.integers(0, counts[classes])]

    def _drawn(self, name: str, number: int, step: int) -> np.ndarray:
        """Positions that a stream takes in a step: the next ones of its endless passes, of which each rank has its
        share."""
        source = self.sources[name]
        count = len(source.samples)
        first = (number * self._steps + step) * source.batch_size
        index = np.empty(source.batch_size, dtype=np.int64)
        for lap in range(first // count, (first + source.batch_size - 1) // count + 1):
            begin, end = max(first, lap * count), min(first + source.batch_size, (lap + 1) * count)
            index[begin - first : end - first] = self._lap(name, lap, count)[begin - lap * count : end - lap * count]
        return index[self.rank :: self.world_size]

    def _lap(self, name: str, lap: int, count: int) -> np.ndarray:
        """The order of one pass over a stream; the newest one is kept."""
        held = self._laps.get(name)
        if held is None or held[0] != lap:
            seed = _stream_seed(step_seed(self.seed, lap, _ORDER), name)
            held = (lap, np.random.Generator(np.random.Philox(seed)).permutation(count))
            self._laps[name] = held
        return held[1]

    def _read(
        self, order: np.ndarray, bounds: np.ndarray, number: int, start: int
    ) -> Iterator[tuple[list[Tensor], dict[str, list[Tensor]]]]:
        """What this rank reads of each batch, of the main stream and of the others, in the memory of the host."""
        pin = self.device.type == "cuda"

        def share(step: int) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
            index = order[bounds[step] : bounds[step + 1]][self.rank :: self.world_size]
            others = {name: reader.read(self._drawn(name, number, step), pin) for name, reader in self._others.items()}
            return self._main.read(index, pin), others

        steps = range(start, self._steps)
        if not self.prefetch:
            yield from map(share, steps)
            return
        # The thread only reads: it draws no random number, so prefetching changes no batch. It works on one batch after
        # the other, and leaving the loop early waits for that one only.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="repertoire-loader") as pool:
            ahead = deque(pool.submit(share, step) for step in steps[: self._ahead])
            try:
                for step in steps:
                    ready = ahead.popleft().result()
                    if step + self._ahead < self._steps:
                        ahead.append(pool.submit(share, step + self._ahead))
                    yield ready
            finally:
                for future in ahead:
                    future.cancel()


def _groups_of(samples: Samples, factor: str) -> list[np.ndarray]:
    """Positions of the samples of each value of a factor, in the order of the values."""
    values = samples.factors.get(factor)
    if values is None or values.ndim != 1:
        known = ", ".join(sorted(name for name, each in samples.factors.items() if each.ndim == 1)) or "none"
        raise DataError(
            f"batches are to be grouped by {factor!r}, and the {samples.noun}s have no variable of that name with one "
            f"value each; their variables are: {known}"
        )
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(values[order][1:] != values[order][:-1]) + 1
    return np.split(order, starts)


def _stream_seed(seed: int, name: str) -> int:
    """A seed for a stream, apart from those of the main one and of all others."""
    digest = hashlib.blake2b(struct.pack("<Q", seed) + name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
