"""Dividing images into training, validation and test parts.

Which part an image is in is a function of its content and the seed: neither the order of files nor their names matter,
and adding images moves few of the others.
"""

from __future__ import annotations

import numpy as np

from repertoire.data._types import ImageSet, Splits
from repertoire.errors import DataError, Unreadable, ascii_path

__all__ = ["make_splits"]


def make_splits(
    images: ImageSet,
    *,
    val_set: ImageSet | None = None,
    test_set: ImageSet | None = None,
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.2,
    source: str,
    augmentation: str = "crop-flip",
    skipped: tuple[Unreadable, ...] = (),
    notes: tuple[str, ...] = (),
) -> Splits:
    """Draws the parts that a source does not have, class by class.

    Each class gives its share, at least one image, to each part that is drawn. Copies of an image stay together; copies
    that lie in several classes are trained on, where they do least harm. Images without a label are trained on.

    Args:
        images: the training images, or all of them.
        val_set, test_set: the parts that the source has; without their unlabelled images, and drawn like the others if
            nothing is left.
        seed: another seed, another draw.
        val, test: shares of each class to draw, of the images that `images` holds.
        source, augmentation, skipped, notes: passed on.

    Raises:
        DataError: fewer than two classes, classes too small to be divided (all are named), or shares that leave nothing
            to train on.
    """
    if len(images.classes) < 2:
        raise DataError(
            f"{source} has {len(images.classes)} class{'es' if not images.classes else ''}"
            f"{': ' + ascii_path(images.classes[0]) if images.classes else ''}; a classifier needs at least two"
        )
    test_set, unlabelled_test = _labelled_only(test_set, "test")
    val_set, unlabelled_val = _labelled_only(val_set, "validation")
    notes = notes + unlabelled_test + unlabelled_val
    shares = {"test": test if test_set is None else 0.0, "val": val if val_set is None else 0.0}
    if sum(shares.values()) >= 1:
        raise DataError(f"val {val:g} and test {test:g} leave nothing to train on; together they must be less than 1")
    part = _assign(images, shares, seed, source)
    notes = notes + tuple(
        f"The source has no {name} part: {share:.0%} of each class were drawn for it, by content and seed."
        for name, share in (("validation", shares["val"]), ("test", shares["test"]))
        if share
    )
    return Splits(
        train=images.subset(np.flatnonzero(part == 0)),
        val=images.subset(np.flatnonzero(part == 1)) if val_set is None else val_set,
        test=images.subset(np.flatnonzero(part == 2)) if test_set is None else test_set,
        source=source,
        augmentation=augmentation,
        skipped=skipped,
        notes=notes,
    )


def _labelled_only(images: ImageSet | None, part: str) -> tuple[ImageSet | None, tuple[str, ...]]:
    """A part without its unlabelled images, which can measure nothing; None if no image is left."""
    if images is None or (images.labels >= 0).all():
        return images, ()
    keep = np.flatnonzero(images.labels >= 0)
    note = f"{len(images) - len(keep)} {part} images have no label and were left out."
    return (images.subset(keep) if len(keep) else None), (note,)


def _assign(images: ImageSet, shares: dict[str, float], seed: int, source: str) -> np.ndarray:
    """0 (train), 1 (val) or 2 (test) for each image."""
    part = np.zeros(len(images), dtype=np.int8)
    drawn = [(number, share) for number, share in ((2, shares["test"]), (1, shares["val"])) if share]
    shared = _in_several_classes(images)
    order = _hash(images.keys, seed)
    small = []
    for label, name in enumerate(images.classes):
        members = np.flatnonzero(images.labels == label)
        free = members[~shared[members]]
        # Sorted by hash, copies are neighbours; `group` counts the distinct images among them.
        free = free[np.argsort(order[free], kind="stable")]
        group = np.cumsum(np.diff(order[free], prepend=order[free[:1]]) != 0) if len(free) else np.zeros(0, np.int64)
        distinct = int(group[-1]) + 1 if len(free) else 0
        if distinct + bool(len(members) > len(free)) < len(drawn) + 1 or distinct < len(drawn):
            small.append(f"{ascii_path(name)} ({len(members)})")
            continue
        start = 0
        for position, (number, share) in enumerate(drawn):
            # Leave a group for each part still to come.
            most = distinct - start - (len(drawn) - position)
            if len(members) > len(free) and position == len(drawn) - 1:
                most += 1
            count = min(max(1, round(share * distinct)), max(1, most))
            part[free[(group >= start) & (group < start + count)]] = number
            start += count
    if small:
        raise DataError(
            f"{source} has classes with too few different images to divide: {', '.join(small)}; each needs at least "
            f"{len(drawn) + 1}, one for each part. Add images, remove the classes, or provide the parts yourself "
            "(train/, val/, test/)"
        )
    return part


def _in_several_classes(images: ImageSet) -> np.ndarray:
    """Whether a copy of an image lies in another class, bool `[N]`."""
    _, inverse = np.unique(images.keys, return_inverse=True)
    low = np.full(inverse.max(initial=-1) + 1, np.iinfo(np.int64).max)
    high = np.full(len(low), np.iinfo(np.int64).min)
    np.minimum.at(low, inverse, images.labels)
    np.maximum.at(high, inverse, images.labels)
    return (low != high)[inverse]


def _hash(keys: np.ndarray, seed: int) -> np.ndarray:
    """A permutation of the 64-bit integers that depends on the seed (SplitMix64)."""
    salt = np.random.SeedSequence([seed, 0x5B11]).generate_state(1, np.uint64)
    mixed = keys.astype(np.uint64) ^ salt
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
