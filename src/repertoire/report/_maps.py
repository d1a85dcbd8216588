"""Maps of classes over their images: the true one and that which a run gives."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import torch

from repertoire.data import ImageSet, plain
from repertoire.errors import RepertoireError
from repertoire.report._samples import LOSSLESS, Picture, data_uri
from repertoire.report._text import label, percent
from repertoire.train import Run

__all__ = ["missed_maps"]

MOST = 6
"""Images that are shown."""

_GOLDEN = 0.618033988749895


def missed_maps(run: Run) -> tuple[list[dict[str, Any]], str | None]:
    """The test images with the largest share of wrong pixels, worst first, and why there are no pictures of them."""
    try:
        samples = run.splits.test
        tally = run.outputs(samples).tally
    except RepertoireError as error:
        return [], f"The data cannot be read any more: {error}"
    assert isinstance(samples, ImageSet)
    assert tally is not None
    right, known = tally.pixels[:, 0].sum(1), tally.pixels[:, 2].sum(1)
    wrong = np.where(known > 0, 1 - right / np.maximum(known, 1), 0)
    worst = np.argsort(-wrong, kind="stable")[:MOST]
    worst = worst[wrong[worst] > 0]
    pixels = samples.pixels(worst)
    said = run.predict(samples.subset(worst)) if len(worst) else pixels[..., 0]
    rows = []
    for i, image, given in zip(worst.tolist(), pixels, said, strict=True):
        overlays = {"true": _over(image, samples.labels[i]), "predicted": _over(image, given)}
        rows.append(
            {
                "name": label(samples.names[i]),
                "predicted": f"{percent(1 - wrong[i])} of the pixels right",
                "true": ", ".join(label(run.classes[k]) for k in np.flatnonzero(tally.pixels[i, 2])[:5]),
                "picture": Picture(
                    data_uri(image), {n: data_uri(o) for n, o in overlays.items()}, max(image.shape[:2]) <= LOSSLESS
                ),
            }
        )
    return rows, None


def _over(image: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A map of classes in colours over its image in grey, uint8 `[H, W, 3]`; pixels without a class are only grey."""
    grey = plain(torch.from_numpy(image[None])).mean(1)[0].numpy()
    known = (classes >= 0) & (classes < 255)
    # Neighbours in number are far apart in hue, however many there are.
    highest = int(classes[known].max(initial=0)) + 1
    colours = np.array([colorsys.hsv_to_rgb(k * _GOLDEN % 1, 0.75, 0.95) for k in range(highest)])
    mixed = 0.45 * grey[..., None] + 0.55 * colours[np.where(known, classes, 0).astype(np.int64)]
    return np.rint(255 * np.where(known[..., None], mixed, grey[..., None])).astype(np.uint8)
