"""Runs in an index: what they say of probes, which of them suits a folder of images, what the index learns of them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire.data import ImageSet, Splits
from repertoire.errors import ConfigError, DataError, RunError
from repertoire.recipe import build, load_splits, make_config
from repertoire.train import Run, load
from repertoire.zoo._index import Found, Index
from repertoire.zoo._scores import leep, log_me, served

__all__ = ["add_runs", "ask_runs", "learn_from_runs", "new_index", "search_images"]

_MOST = 200
"""Samples of a part of a data set that all networks are asked about."""


def new_index(
    probes: str | os.PathLike[str], *, reference: str = "lite0", count: int = 256, seed: int = 0, device: str = "cpu"
) -> Index:
    """An index without runs, for probes that are drawn from a folder of images.

    Args:
        probes: data as `repertoire.fit` takes it; labels are not looked at, and need not be there. What the runs of the
            zoo may know is best among it.
        reference: the network that embeds probes and data: the spec of a backbone with published weights, or the
            directory of a run.
        count: how many probes, at most.
        seed: which of them.
        device: where the reference computes.

    Raises:
        ConfigError: a backbone with random weights. DataError: no images.
    """
    settings = {"probes": str(probes), "reference": reference, "count": count, "seed": seed}
    return Index(_probes(settings, device)[1], settings)


def _probes(settings: Mapping[str, Any], device: str) -> tuple[ImageSet, Tensor]:
    """The images that runs are asked about, and their features."""
    splits, features = _embedded(settings["probes"], settings["reference"], device)
    order = np.random.default_rng(settings["seed"]).permutation(len(splits.train))
    chosen = np.sort(order[: settings["count"]])
    return _images(splits.train).subset(chosen), features[0][torch.from_numpy(chosen)]


def add_runs(
    index: Index, runs: Sequence[Run], *, device: str = "cpu", report: Callable[[str], None] | None = None
) -> None:
    """Asks runs about the probes of an index, and adds them under the paths of their directories.

    Args:
        index: from `new_index`, or read from a file.
        runs: that tell classes apart.
        device: where the reference computes.
        report: gets a line for each run.

    Raises:
        RunError: a run predicts no classes, or is not one on images.
        DataError: the probes are not there any more, or not what they were.
    """
    for run in runs:
        if run.task.kind != "classes" or run.facts.modality != "images":
            raise RunError(f"{run.directory} does not tell classes of images apart, and cannot be asked about probes")
    images, features = _probes(index.settings, device)
    if features.shape != index.probes.shape or not torch.allclose(features, index.probes, rtol=1e-2, atol=1e-3):
        raise DataError(
            f"the probes of the index ({index.settings['probes']}) changed since it was made: make a new one"
        )
    for run in runs:
        index.add(str(run.path), torch.from_numpy(run.predict(images)))
        if report is not None:
            report(f"{run.path}: {len(run.classes)} classes")


def search_images(
    index: Index, data: str | os.PathLike[str], count: int | None = None, *, device: str = "cpu"
) -> list[Found]:
    """The runs of an index that suit labelled images, the nearest first; no run is asked.

    Args:
        index: from `new_index`, or read from a file.
        data: labelled images, as `repertoire.fit` takes them.
        count: how many runs to give; all if None.
        device: where the reference computes.

    Raises:
        DataError: no images, or without labels. ConfigError: the index is empty.
    """
    splits, features = _embedded(str(data), index.settings["reference"], device)
    return index.search(torch.cat(features), _labels(splits), count)


def ask_runs(
    index: Index, data: str | os.PathLike[str], by: str, count: int | None = None, *, device: str = "cpu"
) -> list[Found]:
    """The runs of an index that suit labelled images by what each of them says of these: slower, and told by no index.

    Args:
        index: of which the names are used.
        data: labelled images, as `repertoire.fit` takes them.
        by: "leep" or "logme".
        count: how many runs to give; all if None.
        device: where the runs compute.

    Raises:
        ConfigError: another score. RunError: a run is not there any more. DataError: no images, or without labels.
    """
    if by not in ("leep", "logme"):
        raise ConfigError(f"by must be leep or logme, found {by!r}")
    splits = load_splits(make_config(data=str(data)))
    images, labels = _images(splits.train), torch.from_numpy(np.asarray(splits.train.labels)).long()
    known = labels >= 0
    if not known.any():
        raise DataError(f"{data} has no labels to score the answers of networks by")
    found = []
    for name in index.names:
        run = load(name, device=device)
        said = torch.from_numpy(run.predict(images) if by == "leep" else run.embed(images))[known]
        found.append(Found(name, leep(said, labels[known]) if by == "leep" else log_me(said, labels[known])))
    return sorted(found, key=lambda each: -each.score)[:count]


def learn_from_runs(
    index: Index, *, device: str = "cpu", seed: int = 0, report: Callable[[str], None] | None = None
) -> Tensor:
    """Lets an index learn from the data that its runs were trained on: of each, how well every run serves it.

    Validation images are what a user would have labelled, and test images say how well a run serves
    (:func:`repertoire.zoo.served`), up to 200 of either. A run whose data is gone is asked about that of the others.

    Args:
        index: of two runs or more.
        device: where runs and reference compute.
        seed: of what is learned.
        report: gets a line for each data set, and for each that is left out.

    Returns:
        How well each run serves each data set `[data, runs]`, as accuracies.

    Raises:
        ConfigError: fewer than two runs. RunError: a run is not there any more. DataError: the data of none is.
    """
    if len(index) < 2:
        raise ConfigError(f"an index learns from two runs or more, found {len(index)}")
    runs = [load(name, device=device) for name in index.names]
    reference = index.settings["reference"]
    data, scores = [], []
    for run in runs:
        try:
            splits, features = _embedded(run.config.data, reference, device)
        except (ConfigError, DataError) as error:
            if report is not None:
                report(f"{run.path}: its data is left out: {error}")
            continue
        data.append((torch.cat(features), _labels(splits)))
        asked, tested = (_images(part).subset(np.arange(min(_MOST, len(part)))) for part in (splits.val, splits.test))
        y, test_y = (torch.from_numpy(np.asarray(part.labels)).long() for part in (asked, tested))
        pairs = [(torch.from_numpy(other.predict(part)) for part in (asked, tested)) for other in runs]
        scores.append([served(said, y, test_said, test_y) for said, test_said in pairs])
        if report is not None:
            report(f"{run.config.data}: served best by {index.names[int(np.argmax(scores[-1]))]}")
    if not data:
        raise DataError("the data of none of the runs can be read any more, so there is nothing to learn from")
    found = torch.tensor(scores)
    index.align(data, found, seed=seed)
    return found


@functools.lru_cache(maxsize=4)
def _embedded(data: str, reference: str, device: str) -> tuple[Splits, tuple[Tensor, Tensor, Tensor]]:
    """Images, and the features of the training, validation and test parts."""
    if (Path(reference) / "run.json").is_file():
        run = load(reference, device=device)
        splits = load_splits(make_config(data=data, size=run.size), unlabelled=True)
        parts = [_images(part) for part in (splits.train, splits.val, splits.test)]
        found = [torch.from_numpy(run.embed(part)) for part in parts]
    else:
        config = make_config(data=data, backbone=reference, tune="head", augment="none", device=device)
        splits = load_splits(config, unlabelled=True)
        made = build(config, splits, device=device).splits
        parts = [_images(part) for part in (splits.train, splits.val, splits.test)]
        rows = [part.inputs(np.arange(len(part))) for part in (made.train, made.val, made.test)]
        found = [torch.from_numpy(np.asarray(each, np.float32)) for each in rows]
    if any(len(features) != len(part) for features, part in zip(found, parts, strict=True)):
        raise DataError(f"some images of {data} have no label and some have: give those with labels alone")
    return splits, (found[0].float(), found[1].float(), found[2].float())


def _images(part: object) -> ImageSet:
    if not isinstance(part, ImageSet):
        raise DataError("networks of a zoo are asked about images, and this data holds none")
    return part


def _labels(splits: Splits) -> Tensor:
    parts = [np.asarray(part.labels) for part in (splits.train, splits.val, splits.test)]
    if splits.kind != "classes":
        raise DataError(f"{splits.source} has no class for each image, which a search goes by")
    return torch.from_numpy(np.concatenate(parts)).long()
