"""What a run, or several, say of images, batch by batch and gathered."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from repertoire.errors import RepertoireWarning, Unreadable, UnreadableImages, ascii_path
from repertoire.train._images import Images

__all__ = ["Answers", "Predictor"]


@dataclass(frozen=True)
class Answers:
    """What a run says of some images, a batch of them.

    Attributes:
        index: which of the images that were given, int64 `[n]`, ascending.
        values: probabilities `[n, K]`, or the numbers of a run that predicts numbers, float64; of `stream_features` the
            features, float32 `[n, d]`.
        exits: which exit each image left by, int64 `[n]` from 0; None without early exits.
        failed: the images of the batch that cannot be used, and why.
    """

    index: np.ndarray
    values: np.ndarray
    exits: np.ndarray | None = None
    failed: list[Unreadable] = field(default_factory=list)


class Predictor:
    """What one run and several have in common: images in, answers out."""

    classes: tuple[str, ...]

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
        the numbers, of a run that predicts numbers.

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
        index: list[np.ndarray] = []
        columns: list[tuple[np.ndarray, ...]] = []
        failures: list[Unreadable] = []
        for numbers, values, failed in batches:
            index.append(numbers)
            columns.append(values)
            failures.extend(failed)
        if not columns:
            return [], np.zeros(0, bool)
        where = np.concatenate(index)
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
            return [np.concatenate(parts) for parts in zip(*columns, strict=True)], usable
        rows = []
        for parts in zip(*columns, strict=True):
            some = np.concatenate(parts)
            row = np.full((total, *some.shape[1:]), np.nan if some.dtype.kind == "f" else -1, some.dtype)
            row[usable] = some
            rows.append(row)
        return rows, usable

    @property
    def _skips(self) -> bool:
        raise NotImplementedError
