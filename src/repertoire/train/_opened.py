"""A run, opened: what its directory says, its model, its data, and images as the model wants them."""

from __future__ import annotations

import copy
import functools
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from torch import Tensor

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
    other_data,
)
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
from repertoire.tasks import Number
from repertoire.train import _checkpoint
from repertoire.train._answers import Predictor
from repertoire.train._directory import RunDirectory
from repertoire.train._given import give_again, lacking
from repertoire.train._images import Images, Reading, stream
from repertoire.train._labelled import Labelled, labelled_samples, vectors
from repertoire.train._origin import put_back
from repertoire.weights import Stored, read_stored

if TYPE_CHECKING:
    from repertoire.train._run import Run

__all__ = ["Opened"]


class Opened(Predictor):
    """What is there of a run, before anything is asked of it. See `Run`."""

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

    def to(self, device: str | torch.device) -> Self:
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
                put_back(origin, cast("Run", self), model)
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

    # The data that it was trained on, and labelled images in.

    @functools.cached_property
    def splits(self) -> Splits:
        """The data the run was trained on, split as it was then. A warning says if it is no longer what it was."""
        if self.config.data == IN_MEMORY:
            raise DataError(f"{self.directory} was trained on data in memory, which it has not kept: {other_data()}")
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
