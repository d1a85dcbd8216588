"""What a run, or several, say of images, batch by batch and gathered."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from repertoire._aliases import missing_of_run
from repertoire.errors import RepertoireWarning, Unreadable, UnreadableImages, ascii_path
from repertoire.train._images import Images

__all__ = ["Answers", "Predictor"]


@dataclass(frozen=True)
class Answers:
    """Answers of a run for some images, a batch of them.

    Attributes:
        index: which of the images that were given, int64 `[n]`, ascending.
        values: probabilities `[n, K]`, or the numbers of a run that predicts numbers, float64; of `stream_features` the
            features, float32 `[n, d]`.
        exits: which exit each image left by, int64 `[n]` from 0; None without early exits.
        failed: the images of the batch that cannot be used, and why.
        scores: how likely each is of a known class, float64 `[n]`, of a `Rejector`; None of others.
    """

    index: np.ndarray
    values: np.ndarray
    exits: np.ndarray | None = None
    failed: list[Unreadable] = field(default_factory=list)
    scores: np.ndarray | None = None


class _Rows:
    """Rows that come batch by batch, in one array that grows.

    A list of the batches would hold little, but between the large arrays that come and go with each batch: the memory
    of these could then not be given back, and would grow with the number of batches.
    """

    def __init__(self) -> None:
        self._buffer = np.zeros(0)
        self._count = 0

    def append(self, rows: np.ndarray) -> None:
        end = self._count + len(rows)
        if end > len(self._buffer) or not self._count:
            grown = np.empty((max(1024, 2 * end), *rows.shape[1:]), rows.dtype)
            grown[: self._count] = self._buffer[: self._count] if self._count else 0
            self._buffer = grown
        self._buffer[self._count : end] = rows
        self._count = end

    def array(self) -> np.ndarray:
        """All rows so far, as an array of their own."""
        return self._buffer[: self._count].copy()


class Predictor:
    """Base of one run and of several: images in, answers out."""

    classes: tuple[str, ...]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):
                # A property failed with this error: again, so that it says why itself.
                return object.__getattribute__(self, name)
            raise missing_of_run(self, name)

    def stream(self, images: Images, **options: Any) -> Iterator[Answers]:
        raise NotImplementedError

    def predict(
        self,
        images: Images,
        *,
        device: str | None = None,
        batch_size: int = 256,
        skip_unreadable: bool | None = None,
        tta: bool = False,
    ) -> np.ndarray:
        """Class probabilities, float64 `[N, K]`: of each class one, or of each label where an image may have several;
        the numbers, of a run that predicts numbers; of one that answers for every pixel the classes, int16 `[N, H, W]`,
        -1 for an image that was skipped.

        Args:
            images: one or many: paths of files, of folders (all images below them) or patterns (`"new/*.jpg"`); bytes
                or open files; PIL images; arrays and tensors of any size, uint8 `[H, W, C]` or `[N, H, W, C]`, float
                `[C, H, W]` or `[N, C, H, W]` in [0, 1]; an `ImageSet`; or any iterable of these. They are read a batch
                at a time, so memory does not grow with their number.
            device: where to compute; the run's own device (see `to`) if None.
            batch_size: images that go through the network at once.
            skip_unreadable: whether images that cannot be used are left out; as in training if None. Their rows are
                NaN, so that row i is image i, and a warning names them.
            tta: whether to average over shifted and, except for digits and the like, mirrored versions of each image:
                five or ten passes for the price of as many.

        Raises:
            UnreadableImages: some images cannot be used; all of them are named.
            ShapeError: an array has the wrong shape, type or range. DataError: something that is no image.
            ConfigError: the device is unknown or absent.
        """
        batches = self.stream(images, device=device, batch_size=batch_size, tta=tta)
        rows, _ = self._collect(((a.index, (a.values,), a.failed) for a in batches), skip_unreadable)
        return rows[0] if rows else np.zeros((0, len(self.classes)))

    def predict_classes(self, images: Images, **options: Any) -> list[str | None]:
        """The name of the most probable class of each image; None for one that was skipped. Options as in `predict`."""
        found = self.predict(images, **options)
        return [None if np.isnan(row).any() else self.classes[int(row.argmax())] for row in found]

    def _collect(
        self, batches: Iterator[tuple[np.ndarray, tuple[np.ndarray, ...], list[Unreadable]]], skip: bool | None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Rows of all batches, NaN for images that cannot be used, and which could be used."""
        index = _Rows()
        columns: list[_Rows] = []
        failures: list[Unreadable] = []
        for numbers, values, failed in batches:
            columns = columns or [_Rows() for _ in values]
            index.append(numbers)
            for column, part in zip(columns, values, strict=True):
                column.append(part)
            failures.extend(failed)
        if not columns:
            return [], np.zeros(0, bool)
        where = index.array()
        total = len(where) + len(failures)
        if failures:
            error = UnreadableImages(failures, total)
            if not (self._skips if skip is None else skip):
                raise error
            names = ", ".join(ascii_path(f.path) for f in failures[:5]) + (", ..." if len(failures) > 5 else "")
            warnings.warn(
                f"{len(failures)} of {total} images cannot be used and were skipped; their rows are NaN: {names}",
                RepertoireWarning,
                stacklevel=4,
            )
        usable = np.zeros(total, bool)
        usable[where] = True
        if usable.all():
            return [column.array() for column in columns], usable
        rows = []
        for column in columns:
            some = column.array()
            row = np.full((total, *some.shape[1:]), np.nan if some.dtype.kind == "f" else -1, some.dtype)
            row[usable] = some
            rows.append(row)
        return rows, usable

    @property
    def _skips(self) -> bool:
        raise NotImplementedError
