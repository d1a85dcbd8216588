"""Features of a network that nothing is trained of: data in, a file of features out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from repertoire.backbones import load_weights
from repertoire.data import FeatureSet, ImageSet, Samples, load_unlabelled
from repertoire.errors import ConfigError, DataError, option
from repertoire.files import atomic_path
from repertoire.methods import Classifier, Normalize
from repertoire.recipe._config import TrainConfig
from repertoire.recipe._environment import find_device
from repertoire.recipe._facts import channel_statistics
from repertoire.recipe._frozen import activations_of
from repertoire.recipe._parts import build_backbone, is_pretrained, load_splits

__all__ = ["embed_data"]


class _NoHead(nn.Module):
    """In the place of a head, of a network that is only looked at."""

    takes_maps = False


def embed_data(config: TrainConfig, out: Path, *, report: Callable[[str], None] | None = None) -> tuple[int, int]:
    """Writes the features that a pretrained network has for some images, ready to be trained on.

    The file holds `features` float32 `[N, d]`, `names`, `classes`, `labels` where there are any, and for each sample
    the part that it belongs to (`split`), as the configuration's seed and shares say: `fit(out)` goes on from there.
    What the network gives is kept in the user's cache, as in training with `tune="head"`.

    Args:
        config: of which `data`, what it says about reading it, `unlabelled`, `backbone`, `weights` and `device` count;
            images of `unlabelled` make a part of that name, in the place of those of `data` without a label.
        out: the `.npz` file, which appears when it is whole.
        report: gets lines about what takes time.

    Returns:
        How many samples there are, and the width of their features.

    Raises:
        ConfigError: the network has random weights. DataError: the data is no images, or cannot be used.
    """
    if not is_pretrained(config):
        raise ConfigError(
            f"backbone {config.backbone!r} has random weights, whose features say nothing: name one with weights, such "
            f"as lite0, or give {option('weights')}"
        )
    splits = load_splits(config, unlabelled=True)
    if not isinstance(splits.train, ImageSet):
        raise DataError(f"{splits.source} holds {splits.train.noun}s; features are computed from images")
    device = find_device(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = build_backbone(config.backbone, splits.train.channels, max(splits.train.size))
    if config.weights is not None:
        load_weights(backbone, config.weights, download=config.download)
    preset = backbone.preset
    mean, std = channel_statistics(splits) if preset is None else (None, None)
    if preset is not None:
        preset = preset.for_channels(splits.train.channels)
        mean, std = list(preset.mean), list(preset.std)
    model = Classifier(Normalize(mean, std), backbone, _NoHead()).to(device)  # type: ignore[arg-type]
    parts: dict[str, Samples] = {"train": splits.train, "val": splits.val, "test": splits.test}
    if config.unlabelled is not None:
        parts["unlabelled"] = load_unlabelled(
            config.unlabelled, like=splits.train, fit=config.fit, levels=splits.levels
        )
    elif "unlabelled" in splits.extra and splits.train.known.all():
        parts["unlabelled"] = splits.extra["unlabelled"]
    found = {
        name: activations_of(model, samples, len(backbone.blocks), device=device, report=report)
        for name, samples in parts.items()
        if len(samples)
    }
    _write(out, found)
    return sum(map(len, found.values())), backbone.out_features


def _write(out: Path, parts: dict[str, FeatureSet]) -> None:
    first = next(iter(parts.values()))
    held: dict[str, Any] = {
        "features": np.concatenate([np.asarray(part.inputs(slice(None)), np.float32) for part in parts.values()]),
        "names": np.array([_text(name) for part in parts.values() for name in part.names]),
        "split": np.repeat(list(parts), [len(part) for part in parts.values()]),
    }
    labels = np.concatenate([np.asarray(part.labels) for part in parts.values()])
    if any(part.known.any() for part in parts.values()):
        if first.kind == "labels":  # what nobody knows is -1 in a file
            labels = np.where(labels == 255, -1, labels.astype(np.int64))
        held["votes" if first.kind == "votes" else "labels"] = labels
        held["classes"] = np.array(first.classes)
    if all("group" in part.factors for part in parts.values()):
        held["group"] = np.concatenate([part.factors["group"] for part in parts.values()])
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, **held)


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
