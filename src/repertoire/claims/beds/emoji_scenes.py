"""Emoji pasted on photographs: one object in a picture of its own, with its exact mask, that nobody drew for a test.

Each picture is a photograph of CIFAR-10, enlarged, with an emoji of Google's somewhere on it, a third to three fifths
as wide as the picture. A picture of this kind has what the finding of objects without labels needs: one object that
stands out, on a ground that is not plain. Which emoji, on which photograph, how large and where is the seed's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.claims import Budget
from repertoire.claims.beds._named import get
from repertoire.data import ImageSet

__all__ = ["SCENES", "Scenes", "cells_overlap", "centre", "emoji_scenes"]

SCENES = "emoji pasted on photographs of CIFAR-10, 192 pixels, with exact masks"
SHARES = 0.3, 0.6
"""Smallest and largest side of an emoji, as a share of the picture's."""
SEEN = 24
"""Grey values, of 255, from which a pixel of the digits of a smoke run, which have no masks, belongs to the object."""


class Scenes(NamedTuple):
    """Pictures in [0, 1], float `[N, 3, H, W]`, and where the object is, bool `[N, H, W]`."""

    images: Tensor
    masks: Tensor


def emoji_scenes(budget: Budget, seed: int, count: int, *, side: int = 192) -> Scenes:
    """Pictures that the seed draws; no emoji and no photograph occurs twice.

    Args:
        count: number of pictures; fewer, if there are not as many emoji or photographs.
        side: of the picture in pixels.
    """
    objects = replace(get("emoji"), size=64).splits(budget, 0).train
    grounds = get("cifar10").splits(budget, 0).test
    random = np.random.default_rng(seed)
    count = min(count, len(objects), len(grounds))
    return _pasted(
        objects.subset(random.permutation(len(objects))[:count]),
        grounds.subset(random.permutation(len(grounds))[:count]),
        side,
        random,
    )


def _pasted(objects: ImageSet, grounds: ImageSet, side: int, random: np.random.Generator) -> Scenes:
    everything = slice(None)
    drawn = objects.pixels(everything)
    inside = drawn[..., 0] >= SEEN if objects.masks is None else objects.object_masks(everything)
    images = F.interpolate(_colours(grounds.pixels(everything)), size=(side, side), mode="bicubic").clamp(0, 1)
    masks = torch.zeros(len(images), side, side, dtype=torch.bool)
    for image, mask, pixels, place in zip(
        images, masks, _colours(drawn), torch.from_numpy(inside).float()[:, None], strict=True
    ):
        size = round(side * random.uniform(*SHARES))
        top, left = random.integers(side - size + 1, size=2)
        here = slice(top, top + size), slice(left, left + size)
        colours, covered = (
            F.interpolate(part[None], size=(size, size), mode="bilinear", antialias=True)[0] for part in (pixels, place)
        )
        mask[here] = covered[0] > 0.5
        image[:, here[0], here[1]] = torch.where(mask[here], colours, image[:, here[0], here[1]])
    return Scenes(images, masks)


def _colours(pixels: np.ndarray) -> Tensor:
    """uint8 `[N, H, W, C]`, grey or coloured, as `[N, 3, H, W]` in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1) / 255


def cells_overlap(cells: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union of the objects that cells `[N, h, w]` show with masks `[N, H, W]`, `[N]`; both bool."""
    found = F.interpolate(cells[:, None].float(), size=masks.shape[1:])[:, 0] > 0
    return (found & masks).sum((1, 2)) / (found | masks).sum((1, 2)).clamp_min(1)


def centre(masks: Tensor, share: float = 0.6) -> Tensor:
    """The same square in the middle of every picture, of this share of the side, as a guess: bool like `masks`."""
    guess = torch.zeros_like(masks)
    inner = [round(length * (1 - share) / 2) for length in masks.shape[1:]]
    guess[:, inner[0] : masks.shape[1] - inner[0], inner[1] : masks.shape[2] - inner[1]] = True
    return guess
