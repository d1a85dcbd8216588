"""Drawn objects on textured ground, and networks that classify them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from repertoire.claims import Budget
from repertoire.claims._training import train
from repertoire.data import ImageSet, Splits, load, plain
from repertoire.explain import Explainer, class_sensitivity
from repertoire.methods import Method

Score = Callable[[Tensor, Tensor], Tensor]


def trained_on_shapes(budget: Budget, seed: int) -> tuple[Splits, Method]:
    """Shapes with their exact masks, and a small residual network that tells them apart."""
    count = budget.pick(smoke=300, small=2000, full=50_000)
    splits = load(f"shapes:count={count},classes=8", size=32, seed=seed)
    method = train(
        splits,
        backbone=budget.pick(smoke="resnet20:width=4", small="resnet20:width=8", full="resnet32"),
        augment="crop-flip",
        epochs=budget.pick(smoke=1, small=8, full=60),
        seed=seed,
        device=budget.device,
    )
    return splits, method


def mean_scores(
    explainers: Mapping[str, Explainer], method: Method, pieces: list[tuple[Tensor, Tensor, Tensor]], score: Score
) -> dict[str, float]:
    """The mean over the images of the score of each explainer's map of the true class."""
    found: dict[str, list[Tensor]] = {name: [] for name in explainers}
    for images, labels, masks in pieces:
        for name, explainer in explainers.items():
            found[name].append(score(explainer(method.model, images, labels), masks))
    return {name: torch.cat(parts).mean().item() for name, parts in found.items()}


def sensitivity_of(explainer: Explainer, method: Method, images: Tensor) -> float:
    """Mean correlation of the maps of the most and the least likely class."""
    return class_sensitivity(explainer, method.model, images).nanmean().item()


def in_pieces(images: ImageSet, device: str, size: int = 256) -> list[tuple[Tensor, Tensor, Tensor]]:
    """All images in [0, 1], labels and object masks of a set, piece by piece."""
    found = []
    for start in range(0, len(images), size):
        rows = range(start, min(start + size, len(images)))
        arrays = (images.pixels(rows), images.labels[rows], images.object_masks(rows))
        pixels, labels, masks = (torch.from_numpy(array).to(device) for array in arrays)
        found.append((plain(pixels), labels, masks))
    return found


def local_shapes(budget: Budget, seed: int) -> tuple[Splits, dict[str, Any]]:
    """Small images of six shapes, and how a residual network is trained on them: back-propagation comes near to its
    best within the epochs, so that a rule cannot win by learning faster at first. Nearly half of the images are for
    the test, because the differences are small."""
    count = budget.pick(smoke=140, small=2400, full=60_000)
    splits = load(
        f"shapes:count={count},classes=6", size=budget.pick(smoke=16, small=16, full=32), seed=seed, val=0.05, test=0.45
    )
    return splits, {
        "backbone": budget.pick(smoke="convnet:width=4", small="resnet20:width=8", full="resnet32"),
        "batch_size": budget.pick(smoke=32, small=32, full=128),
        "augment": "crop-flip",
        "seed": seed,
        "device": budget.device,
    }
