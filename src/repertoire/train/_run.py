"""A finished (or unfinished) run, opened for use."""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire import registry
from repertoire.data import ImageSet, Splits, plain
from repertoire.errors import CheckpointError, RepertoireWarning, RunError, ShapeError, UnknownName
from repertoire.local import Exits, Local
from repertoire.methods import Classifier
from repertoire.train import _checkpoint
from repertoire.train._build import build_classifier, import_plugins, load_splits
from repertoire.train._config import TrainConfig
from repertoire.train._directory import RunDirectory
from repertoire.train._metrics import Outputs, exit_table, outputs, score
from repertoire.train._probe import PROBES, Probe, probe_outputs

__all__ = ["Run"]


class Run:
    """What training left in a directory: the model, its metrics, and how it came about.

    Args:
        path: the run's directory.

    Raises:
        RunError: the directory is not a run, incomplete, damaged, or from a newer version.

    Example:
        >>> import repertoire
        >>> run = repertoire.train.load("runs/demo")  # doctest: +SKIP
        >>> run.predict(["photo.jpg"]).argmax(1)  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.directory = RunDirectory(Path(path))
        self.info: dict[str, Any] = self.directory.read_info()
        self.config: TrainConfig = self.directory.read_config()
        import_plugins(self.config)

    def __repr__(self) -> str:
        accuracy = self.metrics.get("accuracy") if self.directory.metrics_file.exists() else None
        tail = f", test accuracy {accuracy:.3f}" if accuracy is not None else ""
        return f"Run({str(self.directory)!r}, {self.info['status']}{tail})"

    @property
    def path(self) -> Path:
        return self.directory.path

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return tuple(self.info["classes"])

    @property
    def size(self) -> int:
        """Height and width of the images the model sees, in pixels."""
        return int(self.info["size"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch."""
        return self.directory.history()

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics on the test images; empty while the run is not finished.

        Raises:
            RunError: the run is finished, but metrics.json is missing or damaged.
        """
        if not self.directory.metrics_file.exists():
            if self.info["status"] == "finished":
                raise RunError(f"{self.directory} is incomplete: it has no metrics.json")
            return {}
        try:
            metrics = json.loads(self.directory.metrics_file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{self.directory}/metrics.json is damaged: {error}") from None
        if not isinstance(metrics, dict):
            raise RunError(f"{self.directory}/metrics.json is damaged: it does not hold metrics")
        return metrics

    @functools.cached_property
    def model(self) -> Classifier:
        """The classifier with the best weights, on the CPU in evaluation mode: images in [0, 1] to logits.

        Raises:
            CheckpointError: the run has no whole checkpoint of its best weights, or it has another number of classes.
        """
        with torch.random.fork_rng(devices=[]):
            model = build_classifier(
                self.config,
                num_classes=len(self.classes),
                channels=int(self.info["channels"]),
                size=self.size,
                mean=self.info["mean"],
                std=self.info["std"],
                pretrained=False,
            )
        state = self._best_state()
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"the weights in {self.directory} do not fit its configuration ({len(self.classes)} classes): {reason}"
            ) from None
        return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _best_state(self) -> dict[str, Tensor]:
        """The best weights; those of the newest whole checkpoint where the file of the best is missing or damaged."""
        try:
            return _checkpoint.load(self.directory.best_file).part("model")
        except CheckpointError as error:
            try:
                path, checkpoint, _ = _checkpoint.latest(self.directory.checkpoints)
            except CheckpointError:
                raise error from None
            warnings.warn(f"{error}; using the last weights, {path.name}, instead", RepertoireWarning, stacklevel=3)
            prefix = "average" if self.config.ema else "method"
            return {n.removeprefix("model."): v for n, v in checkpoint.part(prefix).items() if n.startswith("model.")}

    @functools.cached_property
    def exits(self) -> Exits:
        """The classifier with an exit after each block, in evaluation mode; for runs of local learning.

        Raises:
            RunError: the run was trained by another rule. CheckpointError: its best weights are not whole.
        """
        rule = registry.build("rules", self.config.rule)
        if not isinstance(rule, Local):
            raise RunError(
                f"{self.directory} has no early exits: it was trained by the rule {self.config.rule!r}. Exits are the "
                "auxiliary networks of local learning: train with --rule local:blocks=4"
            )
        with torch.random.fork_rng(devices=[]):
            exits = rule.exits(self.model, torch.zeros(2, int(self.info["channels"]), self.size, self.size))
        state = _checkpoint.load(self.directory.best_file).part("local")
        try:
            exits.classifiers[:-1].load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"the exits in {self.directory} do not fit its configuration: {reason}") from None
        return exits.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict_early(
        self,
        images: Iterable[str | os.PathLike[str]] | np.ndarray | Tensor,
        confidence: float,
        *,
        batch_size: int = 256,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities, float64 `[N, K]`, and the exit that each image left by, int64 `[N]` from 0.

        Args:
            images: as in `predict`.
            confidence: probability that lets an image leave, in [0, 1].

        Raises:
            ConfigError: a confidence out of range. RunError: the run has no exits. And the errors of `predict`.
        """
        exits = self.exits
        logits, left = [], []
        with torch.inference_mode():
            for chunk in self._chunks(images, batch_size):
                found, numbers = exits.predict(chunk, confidence)
                logits.append(found.double().softmax(1))
                left.append(numbers)
        if not logits:
            return np.zeros((0, len(self.classes))), np.zeros(0, np.int64)
        return torch.cat(logits).numpy(), torch.cat(left).numpy()

    def exit_curve(self, images: ImageSet | None = None, *, batch_size: int = 256) -> dict[str, Any]:
        """Accuracy of each exit, and accuracy against work over a range of confidences.

        Args:
            images: labelled images with this run's classes; the run's own test images if None.

        Returns:
            `exits`: for each exit its block from 1, the block's last unit, accuracy, and work relative to the network
            without exits. `early_exit`: for each confidence the accuracy, the mean work, and the share of images that
            leave by each exit.
        """
        images = self.splits.test if images is None else images
        exits = self.exits
        found: list[list[Tensor]] = [[] for _ in exits.names]
        with torch.inference_mode():
            for start in range(0, len(images), batch_size):
                pixels = torch.from_numpy(images.pixels(slice(start, start + batch_size)))
                for number, logits in enumerate(exits(plain(pixels))):
                    found[number].append(logits.double().softmax(1))
        probabilities = torch.stack([torch.cat(parts) for parts in found])
        return exit_table(probabilities.numpy(), np.asarray(images.labels), exits.names, exits.work)

    @functools.cached_property
    def splits(self) -> Splits:
        """The data the run was trained on, split as it was then."""
        return load_splits(self.config)

    def predict(
        self, images: Iterable[str | os.PathLike[str]] | np.ndarray | Tensor, *, batch_size: int = 256
    ) -> np.ndarray:
        """Class probabilities, float64 `[N, K]`.

        Args:
            images: a path of an image file, or several; or uint8 `[N, H, W, C]`; or float
                `[N, C, H, W]` in [0, 1], at the run's size.

        Raises:
            UnreadableImages: some files cannot be used; all of them are named.
            ShapeError: an array has the wrong shape or type.
        """
        return self._apply(images, batch_size).probabilities

    def embed(
        self, images: Iterable[str | os.PathLike[str]] | np.ndarray | Tensor, *, batch_size: int = 256
    ) -> np.ndarray:
        """Features of the backbone, float32 `[N, d]`. Arguments and errors as in `predict`."""
        return self._apply(images, batch_size).embeddings

    def evaluate(self, images: ImageSet | None = None, *, batch_size: int = 256) -> dict[str, Any]:
        """Metrics on a set of images with this run's classes; on the run's own test images if None."""
        images = self.splits.test if images is None else images
        if images.classes != self.classes:
            raise RunError(f"the images have the classes {list(images.classes)}, the run {list(self.classes)}")
        return score(outputs(self.model, images, batch_size=batch_size), self.classes)

    def probe(self, kind: Probe = "knn", images: ImageSet | None = None, *, batch_size: int = 256) -> dict[str, Any]:
        """Metrics of a classifier on the frozen features, fitted to the run's training images without augmentation.

        Args:
            kind: "knn", the vote of the 20 nearest training images by cosine, weighted with a temperature of 0.07; or
                "linear", logistic regression on standardised features.
            images: labelled images with this run's classes; the run's own test images if None.

        Returns:
            What `evaluate` gives, of the probe in place of the run's own head, and what the probe was under `probe`.

        Raises:
            RunError: images of other classes, or training images of fewer than two. UnknownName: no such probe.
        """
        images = self.splits.test if images is None else images
        if images.classes != self.classes:
            raise RunError(f"the images have the classes {list(images.classes)}, the run {list(self.classes)}")
        if kind not in PROBES:
            raise UnknownName("probe", kind, list(PROBES))
        seen, unseen = (outputs(self.model, part, batch_size=batch_size) for part in (self.splits.train, images))
        result, about = probe_outputs(kind, seen, unseen, len(self.classes))
        return {**score(result, self.classes), "probe": about}

    def read(self, paths: Iterable[str | os.PathLike[str]]) -> Tensor:
        """Image files as the model wants them: float `[N, C, size, size]` in [0, 1].

        Raises:
            UnreadableImages: some cannot be used; all of them are named.
        """
        from repertoire.data import read_images

        return plain(torch.from_numpy(read_images(list(paths), **self.reading)))

    @property
    def reading(self) -> dict[str, Any]:
        """How image files are to be read for this run: the options of `repertoire.data.read_images`."""
        return {"size": self.size, "fit": self.config.fit, "channels": int(self.info["channels"])}

    def _apply(self, images: Iterable[str | os.PathLike[str]] | np.ndarray | Tensor, batch_size: int) -> Outputs:
        # Built outside inference mode: its weights must take gradients afterwards, for explainers and fine-tuning.
        model = self.model
        logits, embeddings, count = [], [], 0
        with torch.inference_mode():
            for chunk in self._chunks(images, batch_size):
                features, scores = model.embed_and_score(chunk)
                embeddings.append(features.float())
                logits.append(scores.float())
                count += len(chunk)
        width = self.model.backbone.out_features
        return Outputs(
            torch.cat(logits).numpy() if logits else np.zeros((0, len(self.classes)), np.float32),
            torch.cat(embeddings).numpy() if embeddings else np.zeros((0, width), np.float32),
            np.full(count, -1),
        )

    def _chunks(
        self, images: Iterable[str | os.PathLike[str]] | np.ndarray | Tensor, batch_size: int
    ) -> Iterator[Tensor]:
        """Batches of whatever `predict` takes, as the model wants them."""
        if isinstance(images, str | os.PathLike):
            images = [images]
        if not isinstance(images, np.ndarray | Tensor):
            images = self.read(images)
        tensor = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
        channels = int(self.info["channels"])
        if tensor.ndim != 4:
            raise ShapeError(f"images must have four dimensions, found {list(tensor.shape)}")
        for start in range(0, len(tensor), batch_size):
            chunk = tensor[start : start + batch_size]
            if chunk.dtype == torch.uint8:
                chunk = plain(chunk)
            if not chunk.is_floating_point() or chunk.shape[1:] != (channels, self.size, self.size):
                raise ShapeError(
                    f"images must be uint8 [N, {self.size}, {self.size}, {channels}] or float "
                    f"[N, {channels}, {self.size}, {self.size}], found {tensor.dtype} {list(tensor.shape)}"
                )
            yield chunk.float()


def load(path: str | os.PathLike[str]) -> Run:
    """Opens the run in a directory. See `Run`."""
    return Run(path)


def top(probabilities: np.ndarray, classes: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
    """The k most probable classes of each row, most probable first."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return [[(classes[j], float(row[j])) for j in best] for row, best in zip(probabilities, order, strict=True)]
