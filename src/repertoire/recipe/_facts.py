"""What a network must know of the data it is made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from repertoire.data import ImageSet, Samples, Splits
from repertoire.tasks import Task, task_from, task_of

__all__ = ["Facts", "channel_statistics"]


@dataclass(frozen=True)
class Facts:
    """The shape of a network and of its answers; stored with a run, so that it can be built again without data.

    Attributes:
        task: what the targets are.
        modality: "images" or "features".
        channels: 1 or 3 of images; the width of features.
        size: side of the images in pixels; 1 of features.
        mean, std: of each channel over the training set, on the scale that the network sees.
    """

    task: Task
    modality: str
    channels: int
    size: int
    mean: list[float]
    std: list[float]

    @classmethod
    def of(cls, splits: Splits, *, statistics: bool = True) -> Facts:
        """The facts of some data; without `statistics`, where only shapes matter, mean 0 and deviation 1."""
        train = splits.train
        mean, std = channel_statistics(splits) if statistics else ([0.0] * train.shape[0], [1.0] * train.shape[0])
        if isinstance(train, ImageSet):
            return cls(task_of(train), "images", train.channels, max(train.size), mean, std)
        return cls(task_of(train), "features", train.shape[0], 1, mean, std)

    @classmethod
    def stored(cls, info: Mapping[str, Any]) -> Facts:
        """The facts that a run stored in its run.json."""
        return cls(
            task_from(info),
            info.get("modality", "images"),
            int(info["channels"]),
            int(info["size"]),
            list(info["mean"]),
            list(info["std"]),
        )

    def info(self) -> dict[str, Any]:
        """Record that a run stores."""
        return {
            "task": self.task.info(),
            "classes": list(self.task.names),
            "modality": self.modality,
            "channels": self.channels,
            "size": self.size,
            "mean": self.mean,
            "std": self.std,
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return (self.channels, self.size, self.size) if self.modality == "images" else (self.channels,)


def channel_statistics(splits: Splits, most: int = 10_000) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, or feature, over at most `most` evenly spaced training samples.

    On the scale that the network sees: images in [0, 1].
    """
    samples: Samples = splits.train
    count = len(samples)
    index = np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))
    if not isinstance(samples, ImageSet):
        values = samples.inputs(index).astype(np.float64)
        return values.mean(0).tolist(), values.std(0).tolist()
    # Counts of the 256 values are exact, and need no floating-point copy of the images.
    histogram = np.zeros((samples.channels, 256))
    step = max(1, 2**24 // samples.images[0].nbytes)
    for start in range(0, len(index), step):
        chunk = samples.pixels(index[start : start + step])
        for channel in range(samples.channels):
            histogram[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255.0
    share = histogram / histogram.sum(1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return mean.tolist(), std.tolist()
