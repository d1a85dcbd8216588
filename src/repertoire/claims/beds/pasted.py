"""Garments pasted on photographs: an object whose pixels are known, on ground that may go with its class.

A garment of Fashion-MNIST lies somewhere on a photograph of CIFAR-10 that is nearly twice as wide. In training the
class of the photograph follows that of the garment as often as is asked for, which tempts a network to look at the
ground. Photographs and garments of training and test are those of the two sources' own parts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from repertoire.claims import Budget
from repertoire.claims.beds._named import get
from repertoire.data import ImageSet, Splits
from repertoire.explain import mask_intersection

__all__ = ["PASTED", "constant_map", "pasted"]

PASTED = "garments of Fashion-MNIST pasted on photographs of CIFAR-10"
SEEN = 24
"""Grey values, of 255, from which a pixel belongs to the garment."""


def pasted(
    budget: Budget,
    seed: int,
    count: int,
    *,
    tied: float = 0.0,
    tested: int = 600,
    side: int = 32,
    object_side: int = 18,
    classes: int = 10,
) -> Splits:
    """Images with masks of their objects: the ground of training and validation is tied to the class, that of the test
    is drawn at random.

    Args:
        count: training images, drawn by the seed, as their places and grounds are.
        tied: share of the images whose photograph is of the class that goes with the garment's.
        tested: test images, the same for every seed.
        side, object_side: of the photograph and of the garment, in pixels.
        classes: of garments, the first so many.
    """
    objects = replace(get("fashion-mnist"), size=object_side).splits(budget, 0)
    grounds = replace(get("cifar10"), size=side).splits(budget, 0)
    random, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    return Splits(
        _joined(_of_first(objects.train, classes), grounds.train, count, tied, random),
        _joined(_of_first(objects.val, classes), grounds.val, max(20, count // 5), tied, random),
        _joined(_of_first(objects.test, classes), grounds.test, tested, 0.0, fixed),
        source="pasted",
        augmentation="crop-flip",
    )


def constant_map(splits: Splits) -> float:
    """How well a map that looks at no image covers the objects of the test, in intersection over union: the share of
    training objects that are at each place, which is a little better than a square in the middle."""
    known = torch.from_numpy(splits.train.object_masks(slice(None))).double().mean(0)
    masks = torch.from_numpy(splits.test.object_masks(slice(None)))
    return float(mask_intersection(known.expand(len(masks), -1, -1), masks).mean())


def _of_first(images: ImageSet, classes: int) -> ImageSet:
    return replace(images.subset(np.flatnonzero(images.labels < classes)), classes=images.classes[:classes])


def _joined(objects: ImageSet, grounds: ImageSet, count: int, tied: float, random: np.random.Generator) -> ImageSet:
    picked = random.permutation(len(objects))[:count]
    labels = objects.labels[picked]
    of_class = [np.flatnonzero(grounds.labels == c) for c in range(len(grounds.classes))]
    follows = random.random(len(picked)) < tied
    behind = np.where(follows, labels % len(of_class), random.integers(len(of_class), size=len(picked)))
    places = np.array([random.choice(of_class[c]) for c in behind])
    images = np.repeat(grounds.pixels(places), 4 - grounds.channels, axis=3)[..., :3].copy()
    masks = np.zeros(images.shape[:3], dtype=bool)
    size = objects.size[0]
    corners = random.integers(images.shape[1] - size + 1, size=(len(picked), 2))
    for image, mask, grey, (top, left) in zip(images, masks, objects.pixels(picked), corners, strict=True):
        here = slice(top, top + size), slice(left, left + size)
        mask[here] = grey[..., 0] >= SEEN
        image[here] = np.where(mask[here][..., None], grey, image[here])
    names = [str(number) for number in range(len(picked))]
    return ImageSet(images, labels, names, objects.classes, objects.keys[picked], masks, {"ground": behind})
