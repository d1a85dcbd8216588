"""A finished (or unfinished) run, opened for use: the estimator that training leaves behind."""

from __future__ import annotations

import copy
import functools
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from repertoire import registry
from repertoire.adapters import plain_state
from repertoire.data import Samples, Splits, digest
from repertoire.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    RepertoireWarning,
    RunError,
    UnknownName,
    Unreadable,
    UnreadableImages,
    ascii_path,
    option,
)
from repertoire.local import Exits
from repertoire.losses import LogitsLoss, Loss
from repertoire.methods import Classifier
from repertoire.recipe import (
    IN_MEMORY,
    Facts,
    TrainConfig,
    build_classifier,
    build_loss,
    find_device,
    given_names,
    import_plugins,
    load_splits,
    takes_loss,
)
from repertoire.tasks import Number, Outputs, exit_table
from repertoire.train import _checkpoint
from repertoire.train._answers import Answers, Predictor
from repertoire.train._directory import RunDirectory
from repertoire.train._early import leave_early, read_exits, said_at_exits
from repertoire.train._given import give_again, lacking
from repertoire.train._images import Images, Reading, stream
from repertoire.train._labelled import Labelled, called, labelled_samples, vectors
from repertoire.train._origin import put_back
from repertoire.train._outputs import mixed_order, outputs
from repertoire.train._probe import PROBES, Probe, probe_outputs
from repertoire.weights import Stored, read_stored

if TYPE_CHECKING:
    from repertoire.train._export import Format
    from repertoire.train._novelty import Rejector

__all__ = ["Run", "load", "top"]

MAP_BATCH = 16
"""Images at a time where a network answers for every pixel."""

_STILL = {"none", "shift"}
"""Augmentations of data that bears no mirror image: a mirrored 2 is no 2."""


class Run(Predictor):
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

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "cpu",
        plugins: Sequence[str] = (),
        backbone: Any = None,
        loss: Any = None,
    ) -> None:
        self.directory = RunDirectory(Path(path))
        self.info: dict[str, Any] = self.directory.read_info()
        self.config: TrainConfig = self.directory.read_config()
        self._plugins = (plugins,) if isinstance(plugins, str) else tuple(plugins)
        import_plugins(self.config.model_copy(update={"plugins": self._plugins}))
        give_again(self.directory, self.config, backbone, loss)
        self.facts = self._facts()
        self.task = self.facts.task
        self._lock = threading.RLock()
        self._models: dict[str, Classifier] = {}
        self._exits: dict[str, Exits] = {}
        self.to(device)

    def _facts(self) -> Facts:
        try:
            return Facts.stored(self.info)
        except (KeyError, TypeError, ValueError, DataError) as error:
            raise RunError(f"{self.directory}/run.json is damaged: {' '.join(str(error).split())}") from None

    def __repr__(self) -> str:
        accuracy = self.metrics.get("accuracy")
        tail = f", test accuracy {accuracy:.3f}" if accuracy is not None else ""
        return f"Run({str(self.directory)!r}, {self.info['status']}{tail})"

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self.directory.path

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Class names, in the order of the logits; of a run that predicts numbers, the names of these."""
        return tuple(self.info["classes"])

    @property
    def size(self) -> int:
        """Height and width of the images the model sees, in pixels."""
        return self.facts.size

    @property
    def noun(self) -> str:
        """Noun for one of the samples: image or vector."""
        return "image" if self.facts.modality == "images" else "vector"

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
        if self.info["status"] != "finished":
            return {}
        if not self.directory.metrics_file.exists():
            raise RunError(f"{self.directory} is incomplete: it has no metrics.json")
        try:
            metrics = json.loads(self.directory.metrics_file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RunError(f"{self.directory}/metrics.json is damaged: {error}") from None
        if not isinstance(metrics, dict):
            raise RunError(f"{self.directory}/metrics.json is damaged: it does not hold metrics")
        return metrics

    # The model and where it is.

    @property
    def device(self) -> torch.device:
        """Device of `model`, on which `predict` and the others compute."""
        return self._device

    def to(self, device: str | torch.device) -> Run:
        """Computes on another device from now on; gives the run back.

        Args:
            device: "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one.

        Raises:
            ConfigError: it is unknown or absent.
        """
        self._device = self._find(device)
        return self

    def _find(self, device: str | torch.device | None) -> torch.device:
        if device is None:
            return self._device
        return find_device(self.config.model_copy(update={"device": str(device), "precision": "32"}))

    @property
    def model(self) -> Classifier:
        """The classifier with the best weights, in evaluation mode: images in [0, 1] to logits. On the run's device.

        Raises:
            CheckpointError: the run has no whole checkpoint of its best weights, or it has another number of classes.
            RunError: it was trained with components that are not known here.
        """
        return self._model_on(self._device)

    def _model_on(self, device: torch.device) -> Classifier:
        """The classifier on a device. Made once, also when several threads ask at the same time."""
        with self._lock:
            if "cpu" not in self._models:
                self._models["cpu"] = self._load()
            if str(device) not in self._models:
                self._models[str(device)] = copy.deepcopy(self._models["cpu"]).to(device)
            return self._models[str(device)]

    def _load(self) -> Classifier:
        try:
            loss = self.loss if isinstance(self.loss, LogitsLoss) else None
            with torch.random.fork_rng(devices=[]):
                model = build_classifier(self.config, self.facts, loss=loss, pretrained=False)
        except UnknownName as error:
            if given_names(self.config.backbone, self.config.loss):
                raise lacking(self.directory, self.config) from None
            if not self.config.plugins:
                raise
            named = " ".join(self.config.plugins)
            raise RunError(
                f"{error}. {self.directory} was trained with the plugins {named}; opening a run imports none. If you "
                f"trust them, name them: {option('plugin' if option('x') == '--x' else 'plugins', named)}"
            ) from None
        try:
            if origin := self.info.get("compressed", {}).get("origin"):
                put_back(origin, self, model)
            model = cast(Classifier, self.stored().build(model))
        except CheckpointError as error:
            reason = str(error).removeprefix("the tensors do not fit the network: ")
            raise CheckpointError(
                f"the weights in {self.directory} do not fit its configuration ({len(self.classes)} classes): {reason}"
            ) from None
        state = model.state_dict()
        if not all(bool(value.isfinite().all()) for value in state.values() if value.is_floating_point()):
            raise CheckpointError(f"the weights in {self.directory} are not finite numbers; nothing can be predicted")
        return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stored(self) -> Stored:
        """The best weights as they lie on the disk: of form "dense", or as merging or compression has left them.

        Those of the newest whole checkpoint, with a warning, where the file of the best is missing or damaged.

        Raises:
            CheckpointError: there is no whole checkpoint.
        """
        try:
            best = _checkpoint.load(self.directory.best_file)
        except CheckpointError as error:
            try:
                path, checkpoint, _ = _checkpoint.latest(self.directory.checkpoints)
            except CheckpointError:
                raise error from None
            warnings.warn(f"{error}; using the last weights, {path.name}, instead", RepertoireWarning, stacklevel=3)
            prefix = "average" if self.config.ema else "method"
            state = {n.removeprefix("model."): v for n, v in checkpoint.part(prefix).items() if n.startswith("model.")}
            return Stored("dense", plain_state(state, self.config.adapter))
        import repertoire.compress  # noqa: F401  (its forms are known once it is imported)

        return read_stored(best.tensors, best.values.get("stored"))

    def answers_of(self, logits: Tensor) -> Tensor:
        """Reads logits `[N, K]` in the units of a user: probabilities, or numbers `[N, k]`."""
        kind = self.task.kind
        if kind == "labels":
            return logits.sigmoid()
        if kind != "number":
            return logits.softmax(1)
        assert isinstance(self.task, Number)
        found = self._read_numbers(logits)
        std, mean = (torch.as_tensor(value).to(found) for value in (self.task.std, self.task.mean))
        return found * std + mean

    @functools.cached_property
    def loss(self) -> Loss | None:
        """Loss that the run minimised, to read logits by; None where its method has one of its own."""
        return build_loss(self.config, self.facts) if takes_loss(self.config) else None

    @property
    def reads_numbers(self) -> Callable[[Tensor], Tensor] | None:
        """What reads numbers out of logits, of a run that predicts numbers; None of any other."""
        return self._read_numbers if self.task.kind == "number" else None

    def _read_numbers(self, logits: Tensor) -> Tensor:
        """What the loss reads out of the logits of a run that predicts numbers, `[N, k]` in standard deviations."""
        found = self.loss.predict(logits) if isinstance(self.loss, LogitsLoss) else logits
        return found if found.ndim == 2 else found[:, None]

    # Images in.

    @property
    def reading(self) -> dict[str, Any]:
        """Options of `repertoire.data.read_images` with which image files are read for this run."""
        reading = {"size": self.size, "fit": self.config.fit, "channels": self.facts.channels}
        return {**reading, "levels": self.info.get("levels")}

    def read(self, images: Images) -> Tensor:
        """Images as the model wants them: float `[N, C, size, size]` in [0, 1]. What they may be: see `predict`.

        Raises:
            UnreadableImages: some cannot be used; all of them are named.
        """
        parts = [torch.zeros(0, *self.facts.shape)]
        failures: list[Unreadable] = []
        for _, chunk, failed in self._batches(images, 256):
            parts.append(chunk)
            failures += failed
        if failures:
            raise UnreadableImages(failures, sum(map(len, parts)) + len(failures))
        return torch.cat(parts)

    def _batches(self, images: Images, batch_size: int) -> Iterator[tuple[np.ndarray, Tensor, list[Unreadable]]]:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
        if self.facts.modality == "features":
            return vectors(images, self.facts.channels, batch_size)
        return stream(images, Reading(**self.reading), batch_size)

    @property
    def _skips(self) -> bool:
        return self.config.skip_unreadable

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

    @functools.cached_property
    def splits(self) -> Splits:
        """The data the run was trained on, split as it was then. A warning says if it is no longer what it was."""
        if self.config.data == IN_MEMORY:
            raise DataError(f"{self.directory} was trained on data in memory; say what to look at, or set run.splits")
        splits = load_splits(self.config)
        if self._other(splits):
            warnings.warn(
                f"the data of {self.directory} ({ascii_path(self.config.data)}) changed since it was trained: its test "
                "images may be others now, and some may have been trained on",
                RepertoireWarning,
                stacklevel=3,
            )
        return splits

    def _other(self, splits: Splits) -> bool:
        before = self.info.get("data_digest")
        return before is not None and before != digest(splits)

    @property
    def data_changed(self) -> bool:
        """True if the data is no longer what the run was trained on: other samples, targets, or another order."""
        return self._other(self.splits)

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

    def samples(
        self, images: Samples | str | os.PathLike[str] | None, skip_unreadable: bool | None = None
    ) -> Samples | Labelled:
        """Labelled images, from whatever `evaluate` takes.

        Raises:
            RunError, DataError, UnreadableImages: as in `evaluate`.
        """
        if images is None:
            return self.splits.test
        reading = self.reading if self.facts.modality == "images" else None
        skip = self._skips if skip_unreadable is None else skip_unreadable
        return labelled_samples(images, self.classes, self.task, reading, skip, str(self.directory))

    def check_answers(self, what: str) -> None:
        """Refuses what is only defined of one answer for an image.

        Raises:
            RunError: the run answers for every pixel.
        """
        if self.task.kind == "maps":
            raise RunError(
                f"cannot {what} with {self.directory}: it gives every pixel a class, and that is for one answer for an "
                "image. Use predict, evaluate, embed or report"
            )

    def check_images(self, what: str) -> None:
        """Refuses what is only defined of pictures.

        Raises:
            RunError: the run was trained on features.
        """
        if self.facts.modality != "images":
            raise RunError(
                f"cannot {what} with {self.directory}: it was trained on features, which are no pictures. Use predict, "
                "evaluate, embed or report"
            )

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

    # What is of no known class.

    def reject(self, keep: float = 0.95, score: str = "auto") -> Rejector:
        """The run as one that may say "unknown": where a score of an image lies below a threshold.

        The score is fitted to the training images, and the threshold taken from validation images, so that a new image
        of a known class is kept with a probability of `keep` or more: see `repertoire.openset.threshold`. No unknown
        image is needed.

        Args:
            keep: share of images of known classes that are to keep their class, above 0 and below 1.
            score: spec of a novelty score; `repertoire list novelty-scores` names them. "auto" holds classes out in
                turn, on one half of the validation images, and takes the score that tells these best from the others;
                the threshold is from the other half. Of a run without classes, or with one, it is the distance to the
                second nearest training image.

        Raises:
            RunError: the run has several labels, numbers or maps. UnknownName: there is no such score.
            ConfigError: keep out of range, too few validation images for it, or a score that this network cannot have.
            DataError: the images that the run was trained on are not there.

        Example:
            >>> import repertoire
            >>> run = repertoire.load("runs/demo")  # doctest: +SKIP
            >>> run.reject(keep=0.95, score="energy").predict_classes("new/")  # doctest: +SKIP
        """
        from repertoire.train._novelty import rejector

        return rejector(self, keep, score)

    def novelty(
        self,
        unknown: Images | None = None,
        images: Samples | str | os.PathLike[str] | None = None,
        scores: Sequence[str] = (),
        *,
        skip_unreadable: bool | None = None,
    ) -> dict[str, Any]:
        """How well novelty scores tell images of known classes from others.

        Args:
            unknown: images of other classes, as in `predict`; without, the run's own classes are held out in turn: that
                says which score to take, though not what to expect of it; see `repertoire.openset.choose`.
            images: images of known classes with their labels, as in `evaluate`; the run's own test images if None.
            scores: specs of novelty scores; those of `repertoire.openset.QUICK` if none are named, and nearest
                neighbours and Deep SVDD of a run without classes.
            skip_unreadable: as in `predict`.

        Returns:
            With unknown images `accuracy`, `known` and `unknown` (numbers of images), and under `scores` what
            `repertoire.openset.Detection` holds, for each score, its `threshold` for keeping 95 % of the known, the
            shares that `passed` it, and a `histogram`; without, `best`, `groups` (the classes held out together) and
            under `scores` the AUROC of each. A score that cannot be used has a `reason` instead. Of a run without
            classes, what is about right answers is left out.

        Raises:
            RunError: the run has several labels, numbers or maps. UnknownName: there is no such score.
            ConfigError: no score can be used, or there are neither unknown images nor two classes.
            DataError, UnreadableImages: as in `evaluate`.
        """
        from repertoire.train._novelty import held_out, novelty

        if unknown is None:
            return held_out(self, images, scores, skip_unreadable=skip_unreadable)
        return novelty(self, unknown, images, scores, skip_unreadable=skip_unreadable)

    # Early exits.

    @property
    def exits(self) -> Exits:
        """The classifier with an exit after each block, in evaluation mode; for runs of local learning.

        Raises:
            RunError: the run was trained by another rule. CheckpointError: its best weights are not whole.
        """
        return self._exits_on(self._device)

    def _exits_on(self, device: torch.device) -> Exits:
        with self._lock:
            if str(device) not in self._exits:
                model = self._model_on(torch.device("cpu"))
                self._exits[str(device)] = read_exits(self.directory, self.config, self.facts, model).to(device)
            return self._exits[str(device)]

    def _leave_early(
        self, images: Images, confidence: float, device: str | torch.device | None, batch_size: int
    ) -> Iterator[Answers]:
        where = self._find(device)
        return leave_early(self._exits_on(where), self._batches(images, batch_size), confidence, where)

    def predict_early(
        self,
        images: Images,
        confidence: float,
        *,
        device: str | None = None,
        batch_size: int = 256,
        skip_unreadable: bool | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities, float64 `[N, K]`, and the exit that each image left by, int64 `[N]` from 0.

        Args:
            images, device, batch_size, skip_unreadable: as in `predict`; a skipped image has exit -1.
            confidence: probability that lets an image leave, in [0, 1].

        Raises:
            ConfigError: a confidence out of range. RunError: the run has no exits. And the errors of `predict`.
        """
        found = self._leave_early(images, confidence, device, batch_size)
        batches = ((a.index, (a.values, np.asarray(a.exits)), a.failed) for a in found)
        rows, _ = self._collect(batches, skip_unreadable)
        if not rows:
            return np.zeros((0, len(self.classes))), np.zeros(0, np.int64)
        return rows[0], rows[1]

    def exit_curve(
        self,
        images: Samples | str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        batch_size: int = 256,
        skip_unreadable: bool | None = None,
    ) -> dict[str, Any]:
        """Accuracy of each exit, and accuracy against work over a range of confidences.

        Args:
            images, device, batch_size, skip_unreadable: as in `evaluate`.

        Returns:
            `exits`: for each exit its block from 1, the block's last unit, accuracy, and work relative to the network
            without exits. `early_exit`: for each confidence the accuracy, the mean work, and the share of images that
            leave by each exit.
        """
        samples = self.samples(images, skip_unreadable)
        where = self._find(device)
        exits = self._exits_on(where)
        source: Any = samples.paths if isinstance(samples, Labelled) else samples
        said = said_at_exits(exits, self._batches(source, batch_size), where)
        rows, usable = self._collect(said, skip_unreadable)
        labels = np.asarray(samples.labels)[usable]
        return exit_table(np.stack([row[usable] for row in rows]), labels, exits.names, exits.work)

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
