"""Scores of heat maps over sets of images with masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from repertoire.data import ImageSet, plain
from repertoire.explain import Explainer, class_sensitivity
from repertoire.methods import Method

Score = Callable[[Tensor, Tensor], Tensor]


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
