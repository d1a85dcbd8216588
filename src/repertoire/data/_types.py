"""What data looks like to everything else: image sets, splits and batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from torch import Tensor

from repertoire.errors import DataError, Unreadable

__all__ = ["Batch", "ImageSet", "Splits"]


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with labels; the images are usually a memory map, so holding one costs nothing.

    Attributes:
        images: uint8 `[N, H, W, C]`, C being 1 (grey) or 3 (RGB).
        labels: int64 `[N]`, an index into `classes`; -1 where there is no label.
        names: what to call each image in a report: a path relative to the data's root, or a number. `[N]`.
        classes: class names, sorted where they come from a folder.
        keys: uint64 `[N]`, a hash of each image's content (the file's bytes, or the pixels). Splits are drawn by
            it, so they depend neither on the order of files nor on their names, and copies of an image stay together.
        masks: bool `[N, H, W]`, the pixels of the labelled object, where the source knows them.
        factors: further variables by name, each `[N, ...]` (the background of `shapes`, say).
    """

    images: np.ndarray
    labels: np.ndarray
    names: Sequence[str]
    classes: tuple[str, ...]
    keys: np.ndarray
    masks: np.ndarray | None = None
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    rows: np.ndarray | None = None
    """int64 `[N]`: which rows of `images` (and `masks`) belong to this set, so that a subset of a memory map copies no
    image; None for all."""

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] not in (1, 3):
            raise DataError(
                f"images must be uint8 [N, H, W, C] with C 1 or 3, found {self.images.dtype} {list(self.images.shape)}"
            )
        count = len(self.images) if self.rows is None else len(self.rows)
        for what, value in (("labels", self.labels), ("names", self.names), ("keys", self.keys)):
            if len(value) != count:
                raise DataError(f"{what} has {len(value)} entries for {count} images")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        return int(self.images.shape[-1])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    def counts(self) -> np.ndarray:
        """Number of images of each class, int64 `[C]`."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))

    def pixels(self, index: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        """The images at these positions of the set, uint8 `[n, H, W, C]`, copied out of the memory map."""
        return self._take(self.images, index)

    def object_masks(self, index: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        """The masks at these positions, bool `[n, H, W]`.

        Raises:
            DataError: the source has no masks.
        """
        if self.masks is None:
            raise DataError("this data has no object masks; the source 'shapes' does")
        return self._take(self.masks, index)

    def _take(self, array: np.ndarray, index: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        if self.rows is not None:
            index = self.rows[index]
        return np.ascontiguousarray(array[index])

    def subset(self, index: np.ndarray | Sequence[int]) -> ImageSet:
        """The set of the images at these positions, in that order."""
        index = np.asarray(index, dtype=np.int64)
        return replace(
            self,
            labels=self.labels[index],
            names=[self.names[i] for i in index],
            keys=self.keys[index],
            factors={name: values[index] for name, values in self.factors.items()},
            rows=index if self.rows is None else self.rows[index],
        )


@dataclass(frozen=True)
class Splits:
    """Training, validation and test images of one source, with the same classes, size and channels.

    Attributes:
        train, val, test: the three sets; none is empty.
        source: where they came from, for a person: "digits", a folder's name.
        augmentation: the augmentation that suits this data when the user names none.
        skipped: the files that were left out, and why.
        notes: what a person should know about how the splits were made, a sentence each.
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet
    source: str
    augmentation: str = "crop-flip"
    skipped: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes


@dataclass
class Batch:
    """Images on the device, ready for a method.

    Attributes:
        views: one or more augmentations of the same samples; each float `[N, C, H, W]` in [0, 1],
            channels last in memory.
        targets: int64 `[N]`, -1 where there is no label.
        index: int64 `[N]`, each sample's position in its `ImageSet`.
        masks: where the object is in each view, float `[N, H, W]` in [0, 1], one a view; none unless the method wants
            them and the data has them.
    """

    views: tuple[Tensor, ...]
    targets: Tensor
    index: Tensor
    masks: tuple[Tensor, ...] = ()

    @property
    def images(self) -> Tensor:
        """The first view."""
        return self.views[0]

    def __len__(self) -> int:
        return len(self.targets)

    def split(self, parts: int) -> Iterator[Batch]:
        """`parts` consecutive pieces of nearly equal size; fewer where a piece would be a single image, which batch
        normalisation cannot use."""
        parts = max(1, min(parts, len(self) // 2))
        bounds = [len(self) * i // parts for i in range(parts + 1)]
        for start, stop in pairwise(bounds):
            part = slice(start, stop)
            views, masks = (tuple(tensor[part] for tensor in tensors) for tensors in (self.views, self.masks))
            yield Batch(views, self.targets[part], self.index[part], masks)
