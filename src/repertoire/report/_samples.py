"""Test images worth a look: the most confident mistakes and the least confident hits, and where the model looked."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from repertoire.data import ImageSet
    from repertoire.explain import Explainer
    from repertoire.methods import Classifier
from repertoire.report._device import device_of

__all__ = ["Picture", "choose", "data_uri", "pictures"]

MOST = 12
"""Images of each kind."""

AT_ONCE = 8
"""Images that are explained together: the maps of a few photographs fit into the processor's cache."""

LARGEST = 160
"""Longest side of an image in the page, in pixels; larger ones are reduced, so that the page stays small."""

LOSSLESS = 64
"""Images up to this side are PNG, and are shown with their pixels visible."""


@dataclass(frozen=True)
class Picture:
    """An image, and the same image under the heat map of each explainer, by name, as `data:` addresses."""

    image: str
    overlays: Mapping[str, str]
    pixelated: bool


def choose(probabilities: np.ndarray, labels: np.ndarray, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """The most confident mistakes and the least confident hits, most telling first; unlabelled images are passed over.

    Args:
        probabilities: `[N, K]`.
        labels: `[N]`, -1 where there is none.
        most: images of each kind.

    Returns:
        Two arrays of positions, int64.
    """
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    mistakes = np.flatnonzero((predicted != labels) & (labels >= 0))
    hits = np.flatnonzero(predicted == labels)
    return (
        mistakes[np.argsort(-confidence[mistakes], kind="stable")][:most],
        hits[np.argsort(confidence[hits], kind="stable")][:most],
    )


def pictures(
    images: ImageSet,
    index: Sequence[int] | np.ndarray,
    model: Classifier | None = None,
    explainers: Mapping[str, Explainer] | None = None,
    targets: np.ndarray | None = None,
) -> list[Picture]:
    """Images with maps of a class of each, in the order of `index`.

    Args:
        images: the test images.
        index: which of them.
        model: the classifier, or None to show the images alone.
        explainers: whose maps to show.
        targets: the class of each that the maps are of, int64; those that the model predicts if None, which takes it a
            pass more.
    """
    if len(index) == 0:
        return []
    pixels = images.pixels(np.asarray(index, dtype=np.int64))
    overlays: list[dict[str, str]] = [{} for _ in pixels]
    if model is not None and explainers:
        overlays = _overlays(pixels, model, explainers, targets)
    small = max(images.size) <= LOSSLESS
    return [Picture(data_uri(image), shown, small) for image, shown in zip(pixels, overlays, strict=True)]


def _overlays(
    pixels: np.ndarray, model: Classifier, explainers: Mapping[str, Explainer], targets: np.ndarray | None
) -> list[dict[str, str]]:
    """For each image what each explainer shows, by name."""
    import torch

    from repertoire.data import plain
    from repertoire.explain import overlay, shared_passes

    found: list[dict[str, str]] = []
    shown = torch.from_numpy(pixels)
    for start in range(0, len(shown), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        images = plain(shown[rows]).to(device_of(model))
        classes = None if targets is None else torch.from_numpy(targets[rows]).to(images.device)
        with shared_passes():
            heats = {name: explainer(model, images, classes).cpu() for name, explainer in explainers.items()}
        for i, image in enumerate(pixels[rows]):
            found.append({name: data_uri(np.asarray(overlay(image, heat[i]))) for name, heat in heats.items()})
    return found


def data_uri(image: np.ndarray) -> str:
    """An image as a `data:` address: PNG when it is small, else JPEG at no more than `LARGEST` pixels a side.

    Args:
        image: uint8 `[H, W]`, `[H, W, 1]` or `[H, W, 3]`.
    """
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    picture.thumbnail((LARGEST, LARGEST))
    form, options = ("PNG", {}) if max(image.shape[:2]) <= LOSSLESS else ("JPEG", {"quality": 85})
    buffer = io.BytesIO()
    picture.save(buffer, form, optimize=True, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
