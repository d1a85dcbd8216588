"""From a configuration to each of its components."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repertoire import registry
from repertoire.backbones import Backbone
from repertoire.data import ImageSet, Samples, Splits, fold_splits, load
from repertoire.errors import ConfigError, DataError, option
from repertoire.heads import Head
from repertoire.losses import LogitsLoss, Loss
from repertoire.methods import Classifier, Method, Needs, Normalize
from repertoire.recipe._config import TrainConfig
from repertoire.recipe._facts import Facts
from repertoire.tasks import Number

__all__ = [
    "DEFAULT_LOSSES",
    "IN_MEMORY",
    "build_backbone",
    "build_classifier",
    "build_loss",
    "build_method",
    "folded",
    "import_plugins",
    "is_pretrained",
    "load_splits",
    "needs_of",
    "only_head",
    "takes_loss",
]

DEFAULT_LOSSES = ("auto", "cross-entropy")
"""What `loss` is where the user named none; version 0.1.0 wrote the second."""

IN_MEMORY = "<memory>"
"""What `data` is where it was given as arrays, and cannot be read again."""

PHOTOGRAPHS = 128
"""The side of photographs in pixels where a network learns from scratch."""

FEW = 5_000
"""Training images of at most 64 pixels below which they are enlarged for a pretrained network."""


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


def load_splits(
    config: TrainConfig, *, unlabelled: bool | None = None, shapes: bool = False, single: bool = False
) -> Splits:
    """The data of a configuration, photographs at the size that its network was trained on.

    Images are brought to `size` where it is given. Otherwise photographs (RGB files of more than 64 pixels) come at the
    natural size of a pretrained network; smaller RGB images too, if a pretrained network is chosen for them because
    there are few.

    Args:
        config: resolved or not.
        unlabelled: whether data without any label will do; as its method says if None.
        shapes: whether shapes and targets are all that is wanted: images of files are black then, and none is decoded.
        single: whether data of a single class will do, for a run that knows others.

    Raises:
        DataError, UnreadableImages: the data cannot be used, or was given in memory.
    """

    if config.data == IN_MEMORY:
        raise DataError("the data was given in memory, and cannot be read again: give it once more")
    asked = config.method != "auto" and needs_of(config).labels != "required" if unlabelled is None else unlabelled

    def read(size: int | None, photographs: int = PHOTOGRAPHS) -> Splits:
        splits = load(
            config.data,
            size=size,
            fit=config.fit,
            seed=config.seed,
            val=config.val,
            test=config.test,
            skip_unreadable=config.skip_unreadable,
            download=config.download,
            unlabelled=asked,
            single=single,
            photographs=photographs,
            shapes=shapes,
            most=config.cache_most,
        )
        return folded(config, splits)

    meant = config.size is None and not config.from_scratch and (config.backbone == "auto" or is_pretrained(config))
    splits = read(config.size, photograph_size(config) if meant else PHOTOGRAPHS)
    if meant and isinstance(splits.train, ImageSet):
        wanted = _natural_size(config, splits) or min(max(splits.train.size), PHOTOGRAPHS)
        if max(splits.train.size) != wanted:
            splits = read(wanted)
    return splits


def folded(config: TrainConfig, splits: Splits) -> Splits:
    """The splits with the fold as test part that a configuration asks for; as they are where it asks for none.

    Raises:
        DataError: they cannot be divided into so many folds.
    """
    if config.fold is None:
        return splits
    number, of = map(int, config.fold.split("/"))
    return fold_splits(splits, number, of, seed=config.seed, val=config.val)


def _natural_size(config: TrainConfig, splits: Splits) -> int | None:
    """The size that a pretrained network wants, or None where no such network is meant."""
    if not isinstance(splits.train, ImageSet):
        return None
    if config.backbone == "auto":
        return photograph_size(config) if wants_pretrained(config, splits) else None
    if not is_pretrained(config):
        return None
    published = build_backbone(config.backbone, splits.train.channels, 32, pretrained=False).published
    if published is None:
        return None
    return published.size if published.size < 224 else photograph_size(config)


def photograph_size(config: TrainConfig) -> int:
    """The side of photographs in pixels: 224 on a GPU, 160 on a processor, where time is what bounds."""
    from repertoire.recipe._environment import find_device

    return 160 if find_device(config).type == "cpu" else 224


def wants_pretrained(config: TrainConfig, splits: Splits) -> bool:
    """True if images of this kind start from the built-in network: RGB photographs that come from files, if they are
    large, or few."""
    train = splits.train
    files = Path(config.data).exists() or config.data.startswith(("hf:", "table:"))
    if config.data == IN_MEMORY and isinstance(train, ImageSet):
        # What is small cannot be read again at a larger size.
        files = max(train.size) > 64
    if config.from_scratch or not files or not isinstance(train, ImageSet) or train.channels != 3:
        return False
    side = max(train.size)
    return side > 64 or (side >= 24 and len(train) < FEW)


def is_pretrained(config: TrainConfig) -> bool:
    """True if the network starts from weights that something else has learned."""
    if config.from_scratch:
        return False
    if config.weights is not None or config.start is not None:
        return True
    if config.backbone == "auto":
        return False
    spec = registry.parse(config.backbone)
    given = spec.kwargs.get("pretrained")
    if given is not None:
        return str(given).lower() in ("true", "1", "yes")
    parameter = registry.options(registry.get("backbones", spec.name).factory).get("pretrained")
    return parameter is not None and parameter.default is True


def only_head(config: TrainConfig) -> bool:
    """True if nothing but a head is trained, on features that are given or frozen."""
    return config.tune == "head" or registry.parse(config.backbone).name == "identity"


def needs_of(config: TrainConfig) -> Needs:
    """Needs of the method of a configuration, as far as they do not depend on its options."""
    found = registry.get("methods", registry.parse(config.method).name).factory.needs  # type: ignore[attr-defined]
    assert isinstance(found, Needs)
    return found


def takes_loss(config: TrainConfig) -> bool:
    """True if the method of a configuration takes a loss of the user's choice."""
    return "loss" in registry.options(registry.get("methods", registry.parse(config.method).name).factory)


def build_backbone(spec: str, channels: int, size: int, *, pretrained: bool = True) -> Backbone:
    """A network with fresh weights from torch's random state, or published ones where its spec says so.

    `pretrained=False` is for a network whose weights are about to be loaded: it fetches none, whatever the spec says.
    """
    parsed = registry.parse(spec)
    factory = registry.get("backbones", parsed.name).factory
    if not pretrained and "pretrained" in registry.options(factory):
        parsed = replace(parsed, kwargs={**parsed.kwargs, "pretrained": "false"})
    backbone: Backbone = registry.build("backbones", parsed, in_channels=channels, image_size=size)
    return backbone


def build_classifier(
    config: TrainConfig, facts: Facts, *, loss: Loss | None = None, pretrained: bool = True
) -> Classifier:
    """The network, with fresh weights from torch's random state.

    Args:
        config: a resolved configuration.
        facts: of the data.
        loss: what will be minimised; it says how wide the head must be.
        pretrained: False for a network whose weights are about to be loaded.
    """
    backbone = build_backbone(
        config.backbone, facts.channels, facts.size, pretrained=pretrained and not config.from_scratch
    )
    if facts.modality == "features":
        _check_takes_vectors(config, backbone, facts.channels)
    width = facts.task.outputs
    if isinstance(loss, LogitsLoss):
        width = loss.width(width)
    head: Head = registry.build(
        "heads", config.head, in_features=backbone.out_features, num_classes=width, image_size=facts.size
    )
    _check_dense(config, facts, head)
    # The weights were learned with constants of their own; a network from scratch takes those of the data.
    preset = backbone.preset
    if preset is not None and facts.modality == "images":
        preset = preset.for_channels(facts.channels)
        return Classifier(Normalize(preset.mean, preset.std), backbone, head)
    return Classifier(Normalize(facts.mean, facts.std), backbone, head)


def _check_dense(config: TrainConfig, facts: Facts, head: Head) -> None:
    """Refuses a head that gives one answer for an image where targets are maps, and the other way round."""
    maps = facts.task.kind == "maps"
    if maps and not head.dense:
        raise ConfigError(
            f"head {config.head!r} gives one answer for an image, and this data has a class for every pixel: use "
            f"{option('head', 'dense')}"
        )
    if head.dense and not maps:
        raise ConfigError(
            f"head {config.head!r} gives a class for every pixel, and this data has no maps of classes: use "
            f"{option('head', 'linear')}, or put maps beside the images"
        )


def _check_takes_vectors(config: TrainConfig, backbone: Backbone, width: int) -> None:
    """Refuses a network of images for vectors of features, which it would stumble over in its first step."""
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(2, width, device=device))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        raise ConfigError(
            f"backbone {config.backbone!r} looks at images, and the data holds vectors of {width} features: leave "
            f"{option('backbone')} out, or use {option('backbone', 'mlp')}"
        ) from None
    finally:
        backbone.train(training)


def build_loss(config: TrainConfig, facts: Facts, samples: Samples | None = None) -> Loss:
    """The loss, given the class counts, the number of classes or of samples, or the range of numbers if it asks.

    Class weights, where asked for, are inverse to the class counts and of mean one over the samples.

    Args:
        config: a resolved configuration.
        facts: of the data.
        samples: the training set; without it the loss is one that only reads its logits (`Loss.predict`).

    Raises:
        ConfigError: class weights are asked of a loss that takes none.
    """
    spec = registry.parse(config.loss)
    entry = registry.get("losses", spec.name)
    options = registry.options(entry.factory)
    context: dict[str, Any] = {"num_classes": facts.task.outputs}
    counts = np.ones(facts.task.outputs, dtype=np.int64) if samples is None else samples.counts()
    context["counts"] = torch.tensor(np.maximum(counts, 1))
    context["samples"] = int(counts.sum()) if samples is None else len(samples)
    if isinstance(facts.task, Number):
        # The loss sees standardised numbers; what the user says about their range goes first.
        low, high = facts.task.range
        context |= {"low": low, "high": high}
        context = {name: value for name, value in context.items() if name not in spec.kwargs}
    if config.class_weights:
        if "weight" not in options:
            raise ConfigError(
                f"loss {spec.name!r} takes no class weights; use {option('balanced', True)}, which draws "
                f"classes equally often"
            )
        weight = counts.sum() / (len(counts) * np.maximum(counts, 1))
        context["weight"] = torch.tensor(weight, dtype=torch.float32)
    loss: Loss = registry.build("losses", spec, **context)
    return loss


def build_method(
    config: TrainConfig, model: Classifier, loss: Loss | None, samples: int | None = None, **context: Any
) -> Method:
    """The method around a classifier and a loss, with what else it asks for.

    That is the number of training samples, the size of images, a teacher.

    Raises:
        ConfigError: a loss was chosen for a method that has one of its own, or a head that the method cannot train.
    """
    name = registry.parse(config.method).name
    if not takes_loss(config) and config.loss not in DEFAULT_LOSSES:
        raise ConfigError(f"method {name!r} has a loss of its own, found {option('loss', config.loss)}; leave it out")
    if model.head.takes_maps and not model.head.dense and not needs_of(config).takes_maps:
        raise ConfigError(
            f"head {config.head!r} looks at maps, and method {name!r} trains on pooled features: use "
            f"{option('method')} {_methods_for_maps()}, or another head"
        )
    known: Mapping[str, Any] = {"model": model, "loss": loss, "image_size": config.size, "samples": samples, **context}
    method: Method = registry.build(
        "methods", config.method, **{key: value for key, value in known.items() if value is not None}
    )
    return method


def _methods_for_maps() -> str:
    return " or ".join(e.name for e in registry.entries("methods") if e.factory.needs.takes_maps)  # type: ignore[attr-defined]
