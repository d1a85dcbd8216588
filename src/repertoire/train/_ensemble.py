"""Several runs that answer together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from repertoire.data import Samples
from repertoire.errors import RunError
from repertoire.tasks import Number, Outputs, Task
from repertoire.train._answers import Answers, Predictor
from repertoire.train._images import Images
from repertoire.train._run import Run

__all__ = ["Ensemble", "mean_outputs"]


class Ensemble(Predictor):
    """Several runs that answer together: the mean of their probabilities, or numbers.

    Args:
        runs: runs with the same classes; image size, network and data may differ.

    Raises:
        RunError: they are fewer than two, or have other classes or targets.

    Example:
        >>> import repertoire
        >>> runs = [repertoire.load(f"runs/seed-{i}") for i in range(3)]  # doctest: +SKIP
        >>> repertoire.train.Ensemble(runs).predict("photo.jpg")  # doctest: +SKIP
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        if len(runs) < 2:
            raise RunError(f"an ensemble needs two runs or more, found {len(runs)}")
        first = runs[0]
        for run in runs[1:]:
            if run.classes != first.classes or run.task.kind != first.task.kind:
                raise RunError(
                    f"{run.directory} has the {run.task.kind} {list(run.classes)}, {first.directory} the "
                    f"{first.task.kind} {list(first.classes)}; an ensemble needs the same"
                )
        first.check_answers("average over runs")
        self.runs = tuple(runs)
        self.classes = first.classes
        self.task = first.task

    def to(self, device: str | torch.device) -> Ensemble:
        """Computes on another device from now on; gives the ensemble back."""
        for run in self.runs:
            run.to(device)
        return self

    @property
    def _skips(self) -> bool:
        return any(run.config.skip_unreadable for run in self.runs)

    def stream(self, images: Images, **options: Any) -> Iterator[Answers]:
        """Mean answers a batch at a time. Options as in `Run.stream`, without early exits."""
        many = not isinstance(images, str | bytes | os.PathLike) and hasattr(images, "__next__")
        if many or hasattr(images, "read"):  # each run reads the images itself, and these can be read once
            images = [images.read()] if hasattr(images, "read") else list(images)
        for parts in zip(*(run.stream(images, **options) for run in self.runs), strict=True):
            yield Answers(parts[0].index, np.mean([part.values for part in parts], 0), None, parts[0].failed)

    def evaluate(
        self,
        images: Samples | str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        batch_size: int = 256,
        skip_unreadable: bool | None = None,
        tta: bool = False,
    ) -> dict[str, Any]:
        """Metrics of the mean answers. Arguments and errors as in `Run.evaluate`.

        Raises:
            RunError: no images are given, and the runs' own test images are not the same: what one was tested on,
                another may have been trained on.
        """
        if images is None and len({(run.info.get("data_digest"), run.size) for run in self.runs}) > 1:
            raise RunError(
                "the runs were trained on other images, or split them otherwise, so that none are test images of all; "
                "name labelled images"
            )
        found = [run.outputs(images, device, batch_size, skip_unreadable, tta) for run in self.runs]
        if self.task.kind == "number":
            pairs = zip(self.runs, found, strict=True)
            said = [run.task.decode(f.logits if f.answers is None else f.answers) for run, f in pairs]
        else:
            logits = [torch.from_numpy(f.logits).double() for f in found]
            said = [run.answers_of(each).numpy() for run, each in zip(self.runs, logits, strict=True)]
        return self.task.score(mean_outputs(np.mean(said, 0), found[0].embeddings, found[0].labels, self.task))


def mean_outputs(values: np.ndarray, embeddings: np.ndarray, labels: np.ndarray, task: Task) -> Outputs:
    """Probabilities, or numbers in the units of the data, as what a task scores.

    Args:
        values: `[N, K]`, as `Run.predict` gives them.
        embeddings, labels: of the same samples.
        task: of the runs that said so.
    """
    if isinstance(task, Number):
        read = ((values - task.mean) / task.std).astype(np.float32)
        return Outputs(read, embeddings, labels, read)
    mean = np.clip(values, 1e-12, 1 - 1e-12)
    logits = np.log(mean) - (np.log1p(-mean) if task.kind == "labels" else 0)
    return Outputs(logits, embeddings, labels)
