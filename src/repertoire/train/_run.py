"""A finished (or unfinished) run, opened for use: the estimator that training leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from repertoire import registry
from repertoire.data import Samples
from repertoire.errors import (
    DataError,
    RunError,
    UnknownName,
    Unreadable,
    UnreadableImages,
    option,
)
from repertoire.methods import Classifier
from repertoire.tasks import Outputs
from repertoire.train._answers import Answers
from repertoire.train._early import EarlyExits
from repertoire.train._images import Images
from repertoire.train._labelled import Labelled, called
from repertoire.train._outputs import mixed_order, outputs
from repertoire.train._probe import PROBES, Probe, probe_outputs
from repertoire.train._rejecting import Rejecting

if TYPE_CHECKING:
    from repertoire.train._export import Format

__all__ = ["Run", "load", "top"]

MAP_BATCH = 16
"""Images at a time where a network answers for every pixel."""

_STILL = {"none", "shift"}
"""Augmentations of data that bears no mirror image: a mirrored 2 is no 2."""


class Run(Rejecting, EarlyExits):
    """Trained run in a directory: the model, its metrics, and how it came about.

    Opening a run runs no code of its maker's: modules that its configuration names as plugins are imported only if they
    are named again here.

    Args:
        path: the run's directory.
        device: where its model computes, "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one.
        plugins: modules to import first, which register components that the run was trained with.
        backbone, loss: the modules that the run was trained with, where it was given modules and no names.

    Raises:
        RunError: the directory is not a run, incomplete, damaged, or from a newer version.
        ConfigError: the device is unknown or absent, or a plugin cannot be imported.

    Example:
        >>> import repertoire
        >>> run = repertoire.load("runs/demo")  # doctest: +SKIP
        >>> run.predict("photo.jpg").argmax(1)  # doctest: +SKIP
    """

    def _scores(
        self,
        images: Images,
        device: str | torch.device | None,
        batch_size: int,
        tta: bool,
    ) -> Iterator[tuple[np.ndarray, Tensor, Tensor, list[Unreadable]]]:
        """Positions, features and logits of a batch at a time, on the CPU, and what could not be used."""
        # Built outside inference mode: its weights must take gradients afterwards, for explainers and fine-tuning.
        where = self._find(device)
        model = self._model_on(where)
        for index, chunk, failed in self._batches(images, batch_size):
            with torch.inference_mode():
                chunk = chunk.to(where)
                if tta and self.facts.modality == "images":
                    features, logits = self._averaged(model, chunk)
                else:
                    features, logits = model.embed_and_score(chunk)
                found = features.float().cpu(), logits.float().cpu()
            yield index, *found, failed

    def _averaged(self, model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits over versions of the images: the logits are those of the mean probabilities."""
        found = [model.embed_and_score(view) for view in self._versions(images)]
        features = torch.stack([f.float() for f, _ in found]).mean(0)
        logits = torch.stack([scores.float() for _, scores in found])
        if self.task.kind == "number":
            return features, logits.mean(0)
        smallest = torch.finfo(torch.float32).tiny
        if self.task.kind == "labels":
            return features, torch.logit(logits.sigmoid().mean(0), 1e-7)
        return features, logits.softmax(2).mean(0).clamp_min(smallest).log()

    def _versions(self, images: Tensor) -> Iterator[Tensor]:
        step = max(1, self.size // 32)
        padded = functional.pad(images, (step,) * 4, mode="replicate")
        mirrored = registry.parse(self.config.augment).name not in _STILL
        for down, right in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
            top, left = step * (1 + down), step * (1 + right)
            view = padded[:, :, top : top + self.size, left : left + self.size]
            yield view
            if mirrored:
                yield view.flip(3)

    def stream(  # type: ignore[override]
        self,
        images: Images,
        *,
        device: str | None = None,
        batch_size: int = 256,
        tta: bool = False,
        early_exit: float | None = None,
    ) -> Iterator[Answers]:
        """Answers a batch at a time, for results that do not fit into memory, or that are wanted as they come.

        Args:
            images, device, batch_size, tta: as in `predict`.
            early_exit: the probability that lets an image leave at an exit, for runs of local learning.

        Yields:
            The answers, and with them the images that cannot be used; none of these is an error here.
        """
        if self.task.kind == "none":
            raise RunError(
                f"{self.directory} was trained without targets and predicts none; its features: run.embed; whether "
                f"images are like those it was trained on: run.reject, or {option('reject', 0.95)}"
            )
        if self.task.kind == "maps":
            if tta or early_exit is not None:
                raise RunError(f"{self.directory} answers for every pixel: leave out tta and early_exit")
            # Logits of every pixel: few images at a time fill as much memory as many otherwise do.
            for index, _, logits, failed in self._scores(images, device, min(batch_size, MAP_BATCH), False):
                classes = logits[:, : len(self.classes)].argmax(1)
                yield Answers(index, classes.numpy().astype(np.int16), None, failed)
            return
        if early_exit is not None:
            yield from self._leave_early(images, early_exit, device, batch_size)
            return
        for index, _, logits, failed in self._scores(images, device, batch_size, tta):
            yield Answers(index, self.answers_of(logits.double()).numpy(), None, failed)

    def stream_features(self, images: Images, *, device: str | None = None, batch_size: int = 256) -> Iterator[Answers]:
        """Features a batch at a time: `embed` for results that do not fit into memory. The features are `values`."""
        for index, features, _, failed in self._scores(images, device, batch_size, False):
            yield Answers(index, features.numpy(), None, failed)

    def stream_logits(
        self, images: Images, *, device: str | None = None, batch_size: int = 256
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, list[Unreadable]]]:
        """Features and logits a batch at a time, for what looks at both.

        Args:
            images, device, batch_size: as in `predict`.

        Yields:
            Positions int64 `[n]`, features float32 `[n, d]`, logits float32 `[n, K]`, and the images of the batch that
            cannot be used.
        """
        for index, features, logits, failed in self._scores(images, device, batch_size, False):
            yield index, features.numpy(), logits.numpy(), failed

    def predict_proba(self, images: Images, **options: Any) -> np.ndarray:
        """Class probabilities, as scikit-learn calls them: `predict`, of a run that predicts classes or labels.

        Raises:
            RunError: the run predicts numbers. And the errors of `predict`.
        """
        if self.task.kind in ("number", "maps"):
            raise RunError(
                f"{self.directory} predicts {called(self.task.kind)} and has no probabilities; use run.predict"
            )
        return self.predict(images, **options)

    def embed(
        self,
        images: Images,
        *,
        device: str | None = None,
        batch_size: int = 256,
        skip_unreadable: bool | None = None,
    ) -> np.ndarray:
        """Features of the backbone, float32 `[N, d]`. Arguments and errors as in `predict`."""
        found = self.stream_features(images, device=device, batch_size=batch_size)
        batches = ((part.index, (part.values,), part.failed) for part in found)
        rows, _ = self._collect(batches, skip_unreadable)
        return rows[0] if rows else np.zeros((0, self.model.backbone.out_features), np.float32)

    # Labelled images in.

    def evaluate(
        self,
        images: Samples | str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        batch_size: int = 256,
        skip_unreadable: bool | None = None,
        tta: bool = False,
    ) -> dict[str, Any]:
        """Metrics on labelled images.

        Args:
            images: a folder with a directory per class; a .csv file with a column of paths and one of labels; of a run
                on features a file of these; a set with this run's classes; the run's own test images if None.
            device, batch_size, skip_unreadable, tta: as in `predict`.

        Returns:
            Plain numbers and lists by name, ready for JSON: see `score` of the run's task (`run.task`).

        Raises:
            RunError: the images have other classes. DataError: a label that is none of the run's classes, or a file
            that is no list of images. UnreadableImages: some images cannot be used; all of them are named.
        """
        return self.task.score(self.outputs(images, device, batch_size, skip_unreadable, tta))

    def outputs(
        self,
        images: Samples | str | os.PathLike[str] | None = None,
        device: str | None = None,
        batch_size: int = 256,
        skip_unreadable: bool | None = None,
        tta: bool = False,
    ) -> Outputs:
        """Logits, features and labels of labelled images. Arguments and errors as in `evaluate`."""
        samples = self.samples(images, skip_unreadable)
        if isinstance(samples, Labelled):
            found: Any = samples.paths
            labels = samples.labels
        else:
            found, labels = samples, np.asarray(samples.labels)
        if tta:
            self.check_answers("average over versions of an image")
        if not tta and isinstance(samples, Samples):
            where = self._find(device)
            if self.task.kind == "maps":
                batch_size = min(batch_size, MAP_BATCH)
            model = self._model_on(where)
            return outputs(model, samples, batch_size=batch_size, device=where, answer=self.reads_numbers)
        # Of files that are not read yet, no content is known to go by.
        keys = samples.keys if isinstance(samples, Samples) else np.random.default_rng(0).permutation(len(labels))
        order = mixed_order(self._model_on(self._find(device)), keys)
        if order is not None:
            found = samples.subset(order) if isinstance(samples, Samples) else [samples.paths[i] for i in order]
            labels = labels[order]
        batches = (
            (index, (logits.numpy(), features.numpy()), failed)
            for index, features, logits, failed in self._scores(found, device, batch_size, tta)
        )
        rows, usable = self._collect(batches, skip_unreadable)
        if order is not None and rows:
            back = np.argsort(order)
            rows, usable, labels = [row[back] for row in rows], usable[back], labels[back]
        if not usable.any():
            raise DataError("there is no image that can be used")
        logits, features = (row[usable] for row in rows)
        answers = None
        if self.task.kind == "number":
            answers = self._read_numbers(torch.from_numpy(logits)).float().numpy()
        return Outputs(logits, features, labels[usable], answers)

    def probe(
        self,
        kind: Probe = "knn",
        images: Samples | str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        batch_size: int = 256,
    ) -> dict[str, Any]:
        """Metrics of a classifier on the frozen features, fitted to the run's training images without augmentation.

        Args:
            kind: "knn", the vote of the 20 nearest training images by cosine, weighted with a temperature of 0.07; or
                "linear", logistic regression on standardised features.
            images: as in `evaluate`.
            device, batch_size: as in `predict`.

        Returns:
            What `evaluate` gives, of the probe in place of the run's own head, and what the probe was under `probe`.

        Raises:
            RunError: images of other classes, or training images of fewer than two. UnknownName: no such probe.
        """
        self.check_answers("probe features")
        if kind not in PROBES:
            raise UnknownName("probe", kind, list(PROBES))
        seen, unseen = (self.outputs(part, device, batch_size) for part in (self.splits.train, images))
        result, about = probe_outputs(kind, seen, unseen, len(self.classes))
        return {**self.task.score(result), "probe": about}

    # What else is done with a run.

    def explain(
        self,
        images: Images,
        explainer: str = "grad-cam",
        *,
        target: str | int | None = None,
        device: str | None = None,
        batch_size: int = 32,
    ) -> np.ndarray:
        """Heat maps that show where the model looked, float32 `[N, h, w]` in [0, 1].

        Args:
            images: as in `predict`.
            explainer: spec of an explainer; `repertoire list explainers` names them.
            target: the class to explain, by name or number; the most probable one of each image if None.
            device, batch_size: as in `predict`.

        Raises:
            UnknownName: no such explainer or class. UnreadableImages: some images cannot be used.
        """
        self.check_answers("explain")
        self.check_images("explain")
        if isinstance(target, str):
            if target not in self.classes:
                raise UnknownName(f"class of {self.directory}", target, self.classes)
            target = self.classes.index(target)
        explain = registry.build("explainers", explainer)
        where = self._find(device)
        model = self._model_on(where)
        maps: list[np.ndarray] = []
        failures: list[Unreadable] = []
        for _, chunk, failed in self._batches(images, batch_size):
            failures += failed
            if len(chunk):
                maps.append(explain(model, chunk.to(where), target).cpu().numpy())
        if failures:
            raise UnreadableImages(failures, sum(map(len, maps)) + len(failures))
        return np.concatenate(maps) if maps else np.zeros((0, self.size, self.size), np.float32)

    def export(
        self, format: Format = "onnx", out: str | Path | None = None, *, half: bool = False, int8: bool = False
    ) -> Path:
        """Writes the model for use without Repertoire. See `repertoire.train.export`."""
        from repertoire.train._export import export

        return export(self, format, out, half=half, int8=int8)

    def report(self, out: str | Path | None = None) -> Path:
        """Writes the page that explains the run, and gives its place. See `repertoire.report.write_report`."""
        import importlib

        # Upwards, on the user's request alone: the report knows runs, and runs do not know the report.
        return importlib.import_module("repertoire.report").write_report(self, out)

    def extend(self, epochs: int, *, patience: int | None = None, quiet: bool = True) -> Run:
        """Trains a finished run for longer.

        The learning rate goes on where a run of so many epochs would be: with a cosine schedule it rises again, and
        falls to zero at the new end. The result is not that of a run of so many epochs from the start, whose first
        epochs had other rates; it is bit for bit the same however often it is interrupted.

        Args:
            epochs: the new number of epochs in all.
            patience: epochs without a better validation accuracy after which to stop, in place of the run's.
            quiet: show nothing while training.

        Returns:
            The run, finished. Its metrics are of the best epoch of all.

        Raises:
            RunError: the run is not finished, or its data changed. ConfigError: it has as many epochs already.
        """
        from repertoire.train._extend import extend

        return extend(self, epochs, patience, self._plugins, quiet)


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    plugins: Sequence[str] = (),
    backbone: Any = None,
    loss: Any = None,
) -> Run:
    """Opens the run in a directory. See `Run`."""
    return Run(path, device=device, plugins=plugins, backbone=backbone, loss=loss)


def top(probabilities: np.ndarray, classes: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
    """The k most probable classes of each row, most probable first."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return [[(classes[j], float(row[j])) for j in best] for row, best in zip(probabilities, order, strict=True)]
