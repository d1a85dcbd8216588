"""What data looks like to everything else: sets of samples, splits and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from repertoire.data._undecoded import Undecoded
from repertoire.errors import DataError, Unreadable

__all__ = ["Batch", "FeatureSet", "ImageSet", "Index", "Kind", "Samples", "Splits", "kind_of"]

Kind = Literal["classes", "labels", "number", "votes", "maps"]
"""What targets are: one class a sample, several labels, one or more numbers, the answers of several annotators, or a
class for every pixel."""

Index = np.ndarray | Sequence[int] | slice
S = TypeVar("S", bound="Samples")


@dataclass(frozen=True, repr=False)
class Samples:
    """Set of samples: targets, names, content keys and further variables. The inputs are a subclass's.

    Attributes:
        labels: the targets; their dtype and shape say what they are (`kind`):

            - int64 `[N]`: an index into `classes`, -1 where there is none ("classes");
            - uint8 `[N, K]`: 1 where label k holds, 0 where not, 255 where nobody knows ("labels");
            - float32 `[N, k]`: numbers, NaN where there is none ("number");
            - int64 `[N, A]`: the class that each of A annotators gave, -1 for none ("votes");
            - uint8 `[N, H, W]`: an index into `classes` for each pixel of the image, 255 where there is none ("maps").
        names: what to call each sample in a report: a path relative to the data's root, or a number. `[N]`.
        classes: names of the classes, of the labels, or of the numbers.
        keys: uint64 `[N]`, a hash of each sample's content. Splits are drawn by it, so they depend neither on the order
            of files nor on their names, and copies of a sample stay together.
        factors: further variables by name, each `[N, ...]` (the background of `shapes`, say; "group" for what must not
            be divided between training and test).
        rows: int64 `[N]`: which rows of the stored inputs belong to this set, so that a subset of a memory map copies
            nothing; None for all.
    """

    labels: np.ndarray
    names: Sequence[str]
    classes: tuple[str, ...]
    keys: np.ndarray
    factors: Mapping[str, np.ndarray]
    rows: np.ndarray | None

    noun = "sample"
    """What one of them is called in messages."""

    def __post_init__(self) -> None:
        self._check_inputs()
        count = self._stored() if self.rows is None else len(self.rows)
        for what, value in (("labels", self.labels), ("names", self.names), ("keys", self.keys)):
            if len(value) != count:
                raise DataError(f"{what} has {len(value)} entries for {count} {self.noun}s")
        kind_of(self.labels)

    def _check_inputs(self) -> None:
        """Raises `DataError` where the stored inputs are not what they must be."""
        raise NotImplementedError

    def _stored(self) -> int:
        """Number of stored inputs."""
        raise NotImplementedError

    @property
    def kind(self) -> Kind:
        """Kind of the targets."""
        return kind_of(self.labels)

    @property
    def known(self) -> np.ndarray:
        """Mask of the samples that have a target, bool `[N]`."""
        if self.kind == "classes":
            return np.asarray(self.labels >= 0)
        if self.kind == "labels":
            return np.asarray((self.labels != 255).any(1))
        if self.kind == "votes":
            return np.asarray((self.labels >= 0).any(1))
        if self.kind == "maps":
            return np.array([(part != 255).any() for part in self.labels], dtype=bool)
        return np.asarray(np.isfinite(self.labels).all(1))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input as a network gets it: (C, H, W) of an image, (d,) of a vector of features."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> np.ndarray:
        """Number of samples of each class, or with each label, int64 `[C]`; of a set of numbers, of each number; of
        maps, of the pixels of each class."""
        if self.kind == "classes":
            return np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))
        if self.kind == "labels":
            return (self.labels == 1).sum(0).astype(np.int64)
        if self.kind == "votes":
            voted = self.labels[self.labels >= 0]
            return np.bincount(voted, minlength=len(self.classes))
        if self.kind == "maps":
            # Map by map: as int64, which counting makes of them, all of them take eight times their memory.
            return sum(
                (np.bincount(part[part != 255], minlength=len(self.classes)) for part in self.labels),
                np.zeros(len(self.classes), dtype=np.int64),
            )
        return np.isfinite(self.labels).sum(0).astype(np.int64)

    def inputs(self, index: Index) -> np.ndarray:
        """The inputs at these positions of the set as they are stored, copied out of the memory map."""
        raise NotImplementedError

    @property
    def shards(self) -> np.ndarray | None:
        """Archive that each sample lies in, int32 `[N]`: an epoch takes those of a few at a time. None where samples
        can be read in any order."""
        return None

    @property
    def late(self) -> bool:
        """True if inputs are made when they are asked for, which takes a while: a loader then asks beforehand."""
        return False

    def _take(self, array: np.ndarray, index: Index) -> np.ndarray:
        if self.rows is not None:
            index = self.rows[index]
        return np.ascontiguousarray(array[index])

    def subset(self: S, index: np.ndarray | Sequence[int]) -> S:
        """The set of the samples at these positions, in that order."""
        index = np.asarray(index, dtype=np.int64)
        return replace(
            self,
            labels=self.labels[index],
            names=[self.names[i] for i in index],
            keys=self.keys[index],
            factors={name: values[index] for name, values in self.factors.items()},
            rows=index if self.rows is None else self.rows[index],
        )

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """One sample as training without augmentation sees it, and its target: what torch's `DataLoader` asks for.

        An image is float `[C, H, W]` in [0, 1]; the target is an `int` for a class, and a tensor otherwise.
        """
        position = range(len(self))[index]
        return self._tensor(self.inputs([position])[0]), (
            int(self.labels[position]) if self.kind == "classes" else torch.from_numpy(self.labels[position].copy())
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        return (self[i] for i in range(len(self)))

    def _tensor(self, stored: np.ndarray) -> Tensor:
        return torch.from_numpy(stored).float()

    def __repr__(self) -> str:
        unknown = int((~self.known).sum())
        return (
            f"<{len(self):,} {self.noun}s {list(self.shape)}, {self._says()}"
            + (f", {unknown:,} without a target" if unknown else "")
            + ">"
        )

    def _says(self) -> str:
        names = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        what = {"classes": "classes", "labels": "labels", "number": "numbers", "votes": "classes voted on"}.get(
            self.kind, "classes of pixels"
        )
        return f"{len(self.classes)} {what}: {names}" if self.classes else f"no {what}"


def kind_of(labels: np.ndarray) -> Kind:
    """Kind of targets of this dtype and shape.

    Raises:
        DataError: none of the kinds looks like this.
    """
    if labels.ndim == 1 and labels.dtype == np.int64:
        return "classes"
    if labels.ndim == 2 and labels.dtype == np.uint8:
        return "labels"
    if labels.ndim == 2 and labels.dtype == np.float32:
        return "number"
    if labels.ndim == 2 and labels.dtype == np.int64:
        return "votes"
    if labels.ndim == 3 and labels.dtype == np.uint8:
        return "maps"
    raise DataError(
        "labels must be int64 [N] (a class each), uint8 [N, K] (several labels), float32 [N, k] (numbers), int64 "
        f"[N, A] (a class from each annotator) or uint8 [N, H, W] (a class for each pixel), found "
        f"{labels.dtype} {list(labels.shape)}"
    )


@dataclass(frozen=True, repr=False, init=False)
class ImageSet(Samples):
    """Decoded images with targets; the images are usually a memory map, so holding one costs nothing.

    Attributes:
        images: uint8 `[N, H, W, C]`, C being 1 (grey) or 3 (RGB); or what gives these where it is indexed, and decodes
            them only then (`load(most=...)`).
        masks: bool `[N, H, W]`, the pixels of the labelled object, where the source knows them.
        labels, names, classes, keys, factors, rows: see `Samples`.
    """

    images: np.ndarray  # type: ignore[misc]  # an __init__ of its own has them in an order of its own
    labels: np.ndarray
    names: Sequence[str]
    classes: tuple[str, ...]
    keys: np.ndarray
    masks: np.ndarray | None = None
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    rows: np.ndarray | None = None

    noun = "image"

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        names: Sequence[str],
        classes: tuple[str, ...],
        keys: np.ndarray,
        masks: np.ndarray | None = None,
        factors: Mapping[str, np.ndarray] | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        _fill(
            self,
            images=images,
            labels=labels,
            names=names,
            classes=classes,
            keys=keys,
            masks=masks,
            factors=factors or {},
            rows=rows,
        )

    def _check_inputs(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] not in (1, 3):
            raise DataError(
                f"images must be uint8 [N, H, W, C] with C 1 or 3, found {self.images.dtype} {list(self.images.shape)}"
            )
        if kind_of(self.labels) == "maps" and self.labels.shape[1:] != self.images.shape[1:3]:
            raise DataError(
                f"maps must have the size of their images, {list(self.size)}; found {list(self.labels.shape[1:])}"
            )

    def _stored(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return int(self.images.shape[-1])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, *self.size)

    def inputs(self, index: Index) -> np.ndarray:
        return self.pixels(index)

    @property
    def shards(self) -> np.ndarray | None:
        found = self.images.shards if isinstance(self.images, Undecoded) else None
        return found if found is None or self.rows is None else found[self.rows]

    @property
    def late(self) -> bool:
        return isinstance(self.images, Undecoded) and not self.images.whole

    def pixels(self, index: Index) -> np.ndarray:
        """The images at these positions of the set, uint8 `[n, H, W, C]`, copied out of the memory map."""
        return self._take(self.images, index)

    def object_masks(self, index: Index) -> np.ndarray:
        """The masks at these positions, bool `[n, H, W]`.

        Raises:
            DataError: the source has no masks.
        """
        if self.masks is None:
            raise DataError(
                "this data has no object masks: put pictures of them into a folder masks/ beside the classes, add "
                "'masks' to the .npz, or take the source 'shapes'"
            )
        return self._take(self.masks, index)

    def _tensor(self, stored: np.ndarray) -> Tensor:
        return torch.from_numpy(stored).permute(2, 0, 1).float() / 255


@dataclass(frozen=True, repr=False, init=False)
class FeatureSet(Samples):
    """Vectors with targets: the frozen features of a network, the columns of a table.

    Attributes:
        features: float16 or float32 `[N, d]`, finite; or what enters a later block of a network, `[N, C, h, w]` or
            `[N, T, d]`.
        labels, names, classes, keys, factors, rows: see `Samples`.
    """

    features: np.ndarray  # type: ignore[misc]  # as in `ImageSet`
    labels: np.ndarray
    names: Sequence[str]
    classes: tuple[str, ...]
    keys: np.ndarray
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    rows: np.ndarray | None = None

    noun = "vector"

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        names: Sequence[str],
        classes: tuple[str, ...],
        keys: np.ndarray,
        factors: Mapping[str, np.ndarray] | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        _fill(
            self,
            features=features,
            labels=labels,
            names=names,
            classes=classes,
            keys=keys,
            factors=factors or {},
            rows=rows,
        )

    def _check_inputs(self) -> None:
        if self.features.dtype not in (np.float16, np.float32) or self.features.ndim < 2 or not self.features.size:
            raise DataError(
                f"features must be float16 or float32 [N, d], found {self.features.dtype} {list(self.features.shape)}"
            )

    def _stored(self) -> int:
        return len(self.features)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(int, self.features.shape[1:]))

    def inputs(self, index: Index) -> np.ndarray:
        return self._take(self.features, index)


def _fill(samples: Samples, **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(samples, name, value)
    samples.__post_init__()


@dataclass(frozen=True)
class Splits:
    """Training, validation and test samples of one source, with the same classes and shape.

    Attributes:
        train, val, test: the three sets; none is empty.
        source: where they came from, for a person: "digits", a folder's name.
        augmentation: the augmentation that suits this data when the user names none.
        skipped: the files that were left out, and why.
        notes: what a person should know about how the splits were made, a sentence each.
        extra: further sets by name, for methods that draw from several: "unlabelled", "target", "outliers", "probe".
        levels: black and white of the images of more than 8 bits, by kind ("uint16", "int32", "float32"); whoever reads
            further images for the same model passes them on.
        drawn: which of "val" and "test" were drawn from the training samples, and were no parts of the source.
    """

    train: Any
    val: Any
    test: Any
    source: str
    augmentation: str = "crop-flip"
    skipped: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[str, Sequence[float]] = field(default_factory=dict)
    drawn: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, of the labels, or of the numbers."""
        return self.train.classes

    @property
    def kind(self) -> Kind:
        """Kind of the targets."""
        return self.train.kind


@dataclass
class Batch:
    """Samples on the device, ready for a method.

    Attributes:
        views: one or more augmentations of the same samples, or the samples themselves; images are float
            `[N, C, H, W]` in [0, 1], channels last in memory; features are float `[N, d]`.
        targets: what `Samples.labels` holds of them: int64 `[N]` classes (-1 where there is none), float `[N, K]`
            several labels (1, 0, or -1 where nobody knows), float `[N, k]` numbers, int64 `[N, A]` votes, int64
            `[N, H, W]` classes of the pixels of the first view (-1 where there is none).
        index: int64 `[N]`, each sample's position in its set.
        fields: further values of the samples by name, each `[N, ...]`; or, where they move with the pixels ("mask"),
            a tuple with one of them a view.
        streams: batches of further streams of samples by name.
        names: the names of the views, where they have names.
        together: how many samples all processes have in this step; 0 where nobody else has any.
        transformed: whether a method has changed it already, mixed its samples say, so that it does not do so again.
    """

    views: tuple[Tensor, ...]
    targets: Tensor
    index: Tensor
    fields: Mapping[str, Tensor | tuple[Tensor, ...]] = field(default_factory=dict)
    streams: Mapping[str, Batch] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    together: int = 0
    transformed: bool = False

    @property
    def images(self) -> Tensor:
        """The first view."""
        return self.views[0]

    def view(self, name: str) -> Tensor:
        """The view of that name."""
        return self.views[self.names.index(name)]

    def __len__(self) -> int:
        return len(self.targets)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with a function applied to every tensor in it, those of its streams included: the one way in which
        batches are moved, cast and counted."""

        def apply(value: Any) -> Any:
            return tuple(map(function, value)) if isinstance(value, tuple) else function(value)

        return Batch(
            apply(self.views),
            function(self.targets),
            function(self.index),
            {name: apply(value) for name, value in self.fields.items()},
            {name: stream.map(function) for name, stream in self.streams.items()},
            self.names,
            self.together,
            self.transformed,
        )

    def weight(self, ranks: int) -> float:
        """Factor of the mean over this batch, with which the mean over so many ranks is that over the
        samples of all: 1 where their shares are equal."""
        return len(self) * ranks / self.together if self.together else 1.0

    def rows(self, part: slice | Tensor) -> Batch:
        """The samples of the main stream at these positions; the streams, whose rows are others, stay whole."""
        return replace(replace(self, streams={}).map(lambda tensor: tensor[part]), streams=self.streams)

    def join(self, other: Batch) -> Batch:
        """The rows of this batch and then those of another one with as many views; only fields that both have stay."""

        def both(a: Any, b: Any) -> Any:
            if isinstance(a, tuple):
                return tuple(torch.cat([x, y.to(x)]) for x, y in zip(a, b, strict=True))
            return torch.cat([a, b.to(a)])

        return replace(
            self,
            views=both(self.views, other.views),
            targets=both(self.targets, other.targets),
            index=both(self.index, other.index),
            fields={
                name: both(value, other.fields[name]) for name, value in self.fields.items() if name in other.fields
            },
        )

    def split(self, parts: int) -> Iterator[Batch]:
        """`parts` consecutive pieces of nearly equal size; fewer where a piece would be a single sample, which batch
        normalisation cannot use. Streams are cut at the same shares, so that a stream of twice as many samples has
        twice as many of them in every piece."""
        smallest = min([len(self), *(len(stream) for stream in self.streams.values())])
        parts = max(1, min(parts, smallest // 2))
        bounds = [len(self) * i // parts for i in range(parts + 1)]
        for start, stop in pairwise(bounds):
            yield self._cut(start / len(self), stop / len(self)) if len(self) else self

    def _cut(self, start: float, stop: float) -> Batch:
        """The samples between two shares of the batch, and of its streams."""
        piece = self.rows(slice(round(start * len(self)), round(stop * len(self))))
        return replace(piece, streams={name: stream._cut(start, stop) for name, stream in self.streams.items()})
