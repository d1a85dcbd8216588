"""A class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import DataError
from repertoire.tasks._base import Best, Outputs, Task

__all__ = ["MapTally", "Maps", "tally_maps"]

RESAMPLES = 1000
"""Draws of the images behind an interval."""


@dataclass(frozen=True)
class MapTally:
    """Counts over maps of logits, which would not fit into memory for a whole set.

    Attributes:
        pixels: int64 `[N, 3, K]`: of each image and class the pixels that are rightly given it, that are given it, and
            that have it. Pixels whose class is not known count nowhere.
        nll: float64 `[N]`: the sum over the known pixels of each image of the negative logarithm of the probability of
            their class.
        confusion: int64 `[K, K]`: pixels of all images by true and predicted class.
    """

    pixels: np.ndarray
    nll: np.ndarray
    confusion: np.ndarray

    @classmethod
    def joined(cls, parts: list[MapTally]) -> MapTally:
        """Joins the counts of several batches, one after the other."""
        return cls(
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.nll for part in parts]),
            np.sum([part.confusion for part in parts], axis=0),
        )


def tally_maps(logits: Tensor, maps: Tensor, classes: int | None = None) -> MapTally:
    """Counts what maps of logits get right.

    Args:
        logits: float `[N, C, H, W]`; those after the first K are no classes.
        maps: int64 `[N, H, W]`, -1 where the class is not known.
        classes: K; C if None.

    Example:
        >>> logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])
        >>> tally_maps(logits, torch.tensor([[[0, 0]]])).confusion.tolist()
        [[1, 1], [0, 0]]
    """
    count = logits.shape[1] if classes is None else classes
    logits = logits[:, :count].float()
    known = maps >= 0
    truth = maps.clamp(min=0)
    image = torch.arange(len(maps), device=maps.device)[:, None, None].expand_as(maps)
    cell = (truth * count + logits.argmax(1)) + image * count**2
    each = torch.bincount(cell[known], minlength=len(maps) * count**2).view(len(maps), count, count)
    pixels = torch.stack([each.diagonal(dim1=1, dim2=2), each.sum(1), each.sum(2)], 1)
    nll = F.cross_entropy(logits, truth, reduction="none").double().mul(known).sum((1, 2))
    return MapTally(pixels.cpu().numpy(), nll.cpu().numpy(), each.sum(0).cpu().numpy())


class Maps(Task):
    r"""A class for every pixel of an image.

    Scored by the mean over the classes of the intersection over union,

    .. math:: \mathrm{IoU}_k = \frac{|P_k \cap T_k|}{|P_k \cup T_k|},

    of the pixels P that are given a class and those T that have it, in all images together. Classes that no pixel has
    or is given do not count, nor do pixels whose class is not known.

    Example:
        >>> import numpy as np
        >>> from repertoire.tasks import MapTally, Maps, Outputs
        >>> pixels = np.array([[[6, 2], [8, 2], [6, 4]]])
        >>> tally = MapTally(pixels, np.array([5.0]), np.array([[6, 0], [2, 2]]))
        >>> rows = np.zeros((1, 2), np.float32)
        >>> Maps(("ground", "tree")).score(Outputs(rows, rows, rows, tally=tally))["miou"]
        0.625
    """

    kind = "maps"
    loss = "cross-entropy"
    best = Best("miou", True, "nll", "mean IoU")
    headline = MappingProxyType({"miou": "mIoU {:.1%}", "pixel_accuracy": "pixels {:.1%}"})

    def score(self, outputs: Outputs) -> dict[str, Any]:
        """Metrics over the pixels whose class is known.

        Keys: `samples` (images with such pixels), `pixels`, `miou` and its `miou_interval` (95 %, of the mean IoU over
        draws of as many images with replacement), `mean_dice`, `pixel_accuracy`, `nll` (mean over pixels, natural
        logarithm), `per_region` (IoU, Dice, precision and recall a class) and `confusion[true][predicted]`, in pixels.

        Raises:
            DataError: the outputs have no tally, so they are not of maps.
        """
        tally = outputs.tally
        if tally is None:
            raise DataError("these outputs are not of maps: they have no tally of pixels")
        some = tally.pixels[:, 2].sum(1) > 0
        if not some.any():
            return {"samples": 0}
        hits, said, true = tally.pixels.sum(0)
        union, both = said + true - hits, said + true
        count = int(true.sum())
        rows = [
            {
                "class": name,
                "pixels": int(true[k]),
                "images": int((tally.pixels[:, 2, k] > 0).sum()),
                "iou": float(hits[k] / union[k]) if union[k] else None,
                "dice": float(2 * hits[k] / both[k]) if both[k] else None,
                "precision": float(hits[k] / said[k]) if said[k] else None,
                "recall": float(hits[k] / true[k]) if true[k] else None,
            }
            for k, name in enumerate(self.names)
        ]
        seen = union > 0
        return {
            "samples": int(some.sum()),
            "pixels": count,
            "miou": float((hits[seen] / union[seen]).mean()),
            "miou_interval": _interval(tally.pixels[some]),
            "mean_dice": float((2 * hits[seen] / both[seen]).mean()),
            "pixel_accuracy": float(hits.sum() / count),
            "nll": float(tally.nll.sum() / count),
            "per_region": rows,
            "confusion": tally.confusion.tolist(),
        }


def _interval(pixels: np.ndarray, confidence: float = 0.95) -> list[float]:
    """Percentiles of the mean IoU over draws of the images with replacement."""
    count = len(pixels)
    rows = pixels.reshape(count, -1).astype(np.float64)
    generator = np.random.Generator(np.random.Philox(0))
    found = np.empty(RESAMPLES)
    step = max(1, min(RESAMPLES, 2**22 // count))
    for start in range(0, RESAMPLES, step):
        part = found[start : start + step]
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=len(part))
        hits, said, true = (drawn @ rows).reshape(len(part), 3, -1).transpose(1, 0, 2)
        union = said + true - hits
        part[:] = (hits / np.maximum(union, 1)).sum(1) / np.maximum((union > 0).sum(1), 1)
    return [float(value) for value in np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])]
