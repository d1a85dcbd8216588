"""Test images worth a look: the most confident mistakes and the least confident hits, and where the model looked."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from repertoire.errors import RepertoireError

if TYPE_CHECKING:
    from repertoire.data import ImageSet
    from repertoire.methods import Classifier

__all__ = ["Picture", "choose", "data_uri", "pictures"]

MOST = 12
"""Images of each kind."""

LARGEST = 160
"""Longest side of an image in the page, in pixels; larger ones are reduced, so that the page stays small."""

LOSSLESS = 64
"""Images up to this side are PNG, and are shown with their pixels visible."""


@dataclass(frozen=True)
class Picture:
    """An image, and the same image under its heat map where there is one, as `data:` addresses."""

    image: str
    overlay: str | None
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
    images: ImageSet, index: Sequence[int] | np.ndarray, model: Classifier | None
) -> tuple[list[Picture], str | None]:
    """Images with the Grad-CAM maps of the classes that the model predicts for them.

    Args:
        images: the test images.
        index: which of them.
        model: the classifier, or None to show the images alone.

    Returns:
        The pictures in the order of `index`, and why there are no maps, if there are none.
    """
    if len(index) == 0:
        return [], None
    pixels = images.pixels(np.asarray(index, dtype=np.int64))
    overlays: list[str | None] = [None] * len(pixels)
    reason = None
    if model is not None:
        try:
            overlays = list(_overlays(pixels, model))
        except RepertoireError as error:
            reason = str(error)
    small = max(images.size) <= LOSSLESS
    shown = [Picture(data_uri(image), overlay, small) for image, overlay in zip(pixels, overlays, strict=True)]
    return shown, reason


def _overlays(pixels: np.ndarray, model: Classifier) -> list[str]:
    import torch

    from repertoire import registry
    from repertoire.data import plain
    from repertoire.explain import overlay

    heats = registry.build("explainers", "grad-cam")(model, plain(torch.from_numpy(pixels)))
    return [data_uri(np.asarray(overlay(image, heat))) for image, heat in zip(pixels, heats, strict=True)]


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
