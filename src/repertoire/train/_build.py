"""From a configuration to components."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repertoire import registry
from repertoire.data import Splits, load
from repertoire.errors import ConfigError
from repertoire.heads import Head
from repertoire.losses import LogitsLoss, Loss
from repertoire.methods import Classifier, Method, Normalize
from repertoire.train._config import TrainConfig
from repertoire.train._optim import learning_rate, weight_decay

__all__ = [
    "build_classifier",
    "build_loss",
    "build_method",
    "channel_statistics",
    "import_plugins",
    "load_splits",
    "resolve",
]


def import_plugins(config: TrainConfig) -> None:
    """Imports the modules that register the user's own components.

    Raises:
        ConfigError: one of them cannot be imported.
    """
    if not config.plugins:
        return
    here = str(Path.cwd())
    # The command's own directory is on the path of modules, the user's is not.
    sys.path.insert(0, here)
    try:
        for name in config.plugins:
            try:
                importlib.import_module(name)
            except Exception as error:
                raise ConfigError(f"plugins: cannot import {name!r}: {error}") from error
    finally:
        sys.path.remove(here)


def load_splits(config: TrainConfig) -> Splits:
    """The images of a configuration."""
    return load(
        config.data,
        size=config.size,
        fit=config.fit,
        seed=config.seed,
        val=config.val,
        test=config.test,
        skip_unreadable=config.skip_unreadable,
        download=config.download,
    )


def resolve(config: TrainConfig, splits: Splits) -> TrainConfig:
    """Replaces what was left open by what data, loss and batch call for; only the device stays the machine's."""
    size = max(splits.train.size)
    changes: dict[str, Any] = {"size": size, "lr": learning_rate(config), "weight_decay": weight_decay(config)}
    if config.backbone == "auto":
        changes["backbone"] = "convnet" if size <= 16 else "resnet20" if size <= 64 else "resnet20:width=32"
    if config.method == "auto":
        loss = registry.get("losses", registry.parse(config.loss).name).factory
        logits = isinstance(loss, type) and issubclass(loss, LogitsLoss)
        changes["method"] = "supervised" if logits else "embedding"
    head = getattr(
        registry.get("methods", registry.parse(changes.get("method", config.method)).name).factory, "head", ""
    )
    if head and config.head == TrainConfig.model_fields["head"].default:
        changes["head"] = head
    if config.augment == "auto":
        method = registry.get("methods", registry.parse(changes.get("method", config.method)).name).factory
        wanted = getattr(method, "augmentation", None)
        # What moves digits about is all that digits can bear: a view of a flipped or cropped 6 is no longer a 6.
        changes["augment"] = wanted if wanted and splits.augmentation != "shift" else splits.augmentation
    return config.model_copy(update=changes)


def channel_statistics(splits: Splits, most: int = 10_000) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over at most `most` evenly spaced training images, in [0, 1]."""
    images = splits.train
    count = len(images)
    index = np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))
    # Counts of the 256 values are exact, and need no floating-point copy of the images.
    histogram = np.zeros((images.channels, 256))
    step = max(1, 2**24 // images.images[0].nbytes)
    for start in range(0, len(index), step):
        chunk = images.pixels(index[start : start + step])
        for channel in range(images.channels):
            histogram[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255.0
    share = histogram / histogram.sum(1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return mean.tolist(), std.tolist()


def build_classifier(
    config: TrainConfig,
    *,
    num_classes: int,
    channels: int,
    size: int,
    mean: list[float],
    std: list[float],
    pretrained: bool = True,
) -> Classifier:
    """The network, with fresh weights from torch's random state.

    `pretrained=False` is for a network whose weights are about to be loaded: it fetches none, whatever the spec says.
    """
    spec = registry.parse(config.backbone)
    if not pretrained:
        spec = replace(spec, kwargs={key: value for key, value in spec.kwargs.items() if key != "pretrained"})
    backbone = registry.build("backbones", spec, in_channels=channels, image_size=size)
    head: Head = registry.build("heads", config.head, in_features=backbone.out_features, num_classes=num_classes)
    return Classifier(Normalize(mean, std), backbone, head)


def build_loss(config: TrainConfig, counts: np.ndarray, samples: int | None = None) -> Loss:
    """The loss, told the class counts, the number of classes or the number of samples if it asks for them.

    The samples are those of the counts unless there are more, without labels.

    Class weights, where asked for, are inverse to the class counts and of mean one over the images.

    Raises:
        ConfigError: class weights are asked of a loss that takes none.
    """
    context = {
        "counts": torch.tensor(np.maximum(counts, 1)),
        "num_classes": len(counts),
        "samples": int(counts.sum()) if samples is None else samples,
    }
    if not config.class_weights:
        return registry.build("losses", config.loss, **context)
    name = registry.parse(config.loss).name
    if "weight" not in registry.options(registry.get("losses", name).factory):
        raise ConfigError(f"loss {name!r} takes no class weights; use --balanced, which draws classes equally often")
    weight = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return registry.build("losses", config.loss, **context, weight=torch.tensor(weight, dtype=torch.float32))


def build_method(config: TrainConfig, model: Classifier, loss: Loss, samples: int | None = None) -> Method:
    """The method around a classifier and a loss, told the number of training images if it asks for it.

    Raises:
        ConfigError: a loss was chosen for a method that has one of its own, or a head that the method cannot train.
    """
    name = registry.parse(config.method).name
    own = "loss" not in registry.options(registry.get("methods", name).factory)
    if own and config.loss != TrainConfig.model_fields["loss"].default:
        raise ConfigError(f"method {name!r} has a loss of its own, found --loss {config.loss}; leave --loss out")
    if model.head.takes_maps and not getattr(registry.get("methods", name).factory, "head", ""):
        raise ConfigError(f"head {config.head!r} looks at maps, and method {name!r} trains on pooled features")
    context = {"model": model, "loss": loss, "image_size": config.size}
    return registry.build("methods", config.method, **context, **({} if samples is None else {"samples": samples}))
