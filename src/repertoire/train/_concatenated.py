"""The features of several runs side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from repertoire.errors import RunError
from repertoire.train._answers import Answers
from repertoire.train._images import Images
from repertoire.train._run import Run

__all__ = ["Concatenated"]


class Concatenated:
    r"""The features of several runs side by side: richer than those of one network as wide, for tasks to come.

    Zhang and Bottou, *Learning useful representations for shifting tasks and distributions* (2022). A network learns
    the features that its task needs, and hardly any others. Runs that differ in nothing but their seed find other
    features on the way; their heads are left out, and what stands before them is put side by side,

    .. math:: \bigl[\varphi_1(x);\ \dots;\ \varphi_n(x)\bigr]

    for a linear probe of a new task, or of data from elsewhere. On the data that the runs learned from, one network of
    the same width in all does as well, the paper finds; elsewhere it does not. How much the probe is regularised has to
    be chosen anew for each width.

    Args:
        runs: two or more, all on images or all on features; classes, networks and sizes of images may differ.

    Raises:
        RunError: they are fewer than two, or some are on images and some on features.

    Example:
        >>> import repertoire
        >>> runs = [repertoire.load(f"runs/seed-{i}") for i in range(3)]  # doctest: +SKIP
        >>> repertoire.train.Concatenated(runs).embed("photos/").shape  # doctest: +SKIP
        (100, 1536)
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        if len(runs) < 2:
            raise RunError(f"features stand side by side of two runs or more, found {len(runs)}")
        first = runs[0]
        for run in runs[1:]:
            if run.facts.modality != first.facts.modality:
                raise RunError(
                    f"{run.directory} is a run on {run.facts.modality}, {first.directory} one on "
                    f"{first.facts.modality}; no data goes into both"
                )
        self.runs = tuple(runs)

    @property
    def width(self) -> int:
        """Width of the features of all runs together."""
        return sum(run.model.backbone.out_features for run in self.runs)

    def to(self, device: str | torch.device) -> Concatenated:
        """Computes on another device from now on; gives itself back."""
        for run in self.runs:
            run.to(device)
        return self

    def embed(self, images: Images, **options: Any) -> np.ndarray:
        """Features float32 `[N, width]`, those of the first run first. Arguments and errors as in `Run.embed`."""
        images = _again(images)
        return np.concatenate([run.embed(images, **options) for run in self.runs], 1)

    def stream_features(self, images: Images, **options: Any) -> Iterator[Answers]:
        """The same a batch at a time, in `values`. Arguments as in `Run.stream_features`.

        Raises:
            RunError: an image can be used by one run and not by another.
        """
        images = _again(images)
        for parts in zip(*(run.stream_features(images, **options) for run in self.runs), strict=True):
            first = parts[0]
            for run, part in zip(self.runs, parts, strict=True):
                if not np.array_equal(part.index, first.index):
                    raise RunError(
                        f"{run.directory} can use other images than {self.runs[0].directory}: leave them out"
                    )
            yield Answers(first.index, np.concatenate([part.values for part in parts], 1), None, first.failed)


def _again(images: Images) -> Images:
    """Images that each run can read for itself."""
    many = not isinstance(images, str | bytes | os.PathLike) and hasattr(images, "__next__")
    if many or hasattr(images, "read"):
        return [images.read()] if hasattr(images, "read") else list(images)
    return images
