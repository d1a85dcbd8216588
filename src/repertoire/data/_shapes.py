"""Procedural images: coloured shapes over textured backgrounds, of which everything is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from repertoire.data._arrays import pixel_keys
from repertoire.data._draw import BACKGROUNDS, COLOURS, SHAPES, TEXTURES, draw
from repertoire.data._source import SourceRequest
from repertoire.data._types import ImageSet, Splits
from repertoire.errors import ConfigError
from repertoire.registry import register

__all__ = ["shapes"]

_PARTS = {"train": 0, "val": 1, "test": 2}
_WANTED = 24  # uniform numbers per image; more than are used, so that a new one changes no existing image


@register("data", "shapes")
def shapes(
    request: SourceRequest,
    count: int = 6000,
    classes: int = 6,
    correlation: float = 0.0,
    nuisance: Literal["texture", "colour"] = "texture",
    tail: float = 1.0,
    noise: float = 0.0,
    targets: Literal["classes", "maps"] = "classes",
) -> Splits:
    """Shapes of random colour, place, size and rotation over textured backgrounds, with exact object masks.

    The class is the shape. Object colour, background texture and background colour are nuisances, given with the true
    class in `factors` as `colour`, `texture`, `background` and `clean_label`, each int64 `[N]`; `masks` holds the
    pixels whose centre is inside the shape.

    Three things can be made hard, each at a set rate, and each in training only or in a way that the test exposes:

    - **a shortcut**: with probability `correlation` the nuisance takes the value tied to the class (its number, modulo
      the number of values) in the training and validation images. In the test images it is independent of the class, so
      that a network that learned the nuisance in place of the shape fails there.
    - **a long tail**: class c of C gets a share of the training images in proportion to `tail ** (-c / (C - 1))`, so
      that the first class has `tail` times the images of the last. Validation and test stay balanced.
    - **wrong labels**: each training label is replaced by another class, drawn uniformly, with probability `noise`.

    Image i of a split is a function of the seed, the split, its class and i, and does not depend on how many there are.

    Args:
        request: `size` is the side in pixels, 16 to 256, by default 32; `val` and `test` are shares of `count`.
        count: images in all three splits together.
        classes: number of shapes, 2 to 12.
        correlation: in [0, 1].
        nuisance: what is tied to the class, "texture" (of the background) or "colour" (of the object).
        tail: largest over smallest number of training images of a class, at least 1.
        noise: share of wrong training labels, in [0, 1).
        targets: "classes" (default), or "maps": a class for every pixel, 0 being the background.

    Raises:
        ConfigError: an option is out of its range, or `count` is too small for some class in some split.

    Example:
        >>> splits = shapes(SourceRequest(size=16), count=120, classes=3)
        >>> splits.classes, splits.train.images.shape, splits.test.masks.shape
        (('circle', 'square', 'triangle'), (84, 16, 16, 3), (24, 16, 16))
    """
    size = 32 if request.size is None else request.size
    if not 16 <= size <= 256:
        raise ConfigError(f"data source 'shapes': size must be in [16, 256], found {size}")
    if not 2 <= classes <= len(SHAPES):
        raise ConfigError(f"data source 'shapes': classes must be in [2, {len(SHAPES)}], found {classes}")
    if not 0 <= correlation <= 1:
        raise ConfigError(f"data source 'shapes': correlation must be in [0, 1], found {correlation}")
    if not 0 <= noise < 1:
        raise ConfigError(f"data source 'shapes': noise must be in [0, 1), found {noise}")
    if not 1 <= tail < np.inf:
        raise ConfigError(f"data source 'shapes': tail must be at least 1, found {tail}")
    if targets not in ("classes", "maps"):
        raise ConfigError(f"data source 'shapes': targets must be 'classes' or 'maps', found {targets!r}")
    if nuisance not in ("texture", "colour"):
        raise ConfigError(f"data source 'shapes': nuisance must be 'texture' or 'colour', found {nuisance!r}")

    counts = {"val": round(count * request.val), "test": round(count * request.test)}
    counts["train"] = count - sum(counts.values())
    sets = {}
    for part, number in counts.items():
        train = part == "train"
        truth = _labels(number, classes, tail if train else 1.0)
        if np.bincount(truth, minlength=classes).min() < 1:
            raise ConfigError(
                f"data source 'shapes': count={count} leaves {max(number, 0)} images for {part}, too few for one of "
                f"each of {classes} classes{f' with tail={tail:g}' if train and tail > 1 else ''}; ask for more"
            )
        sets[part] = _part(
            part,
            truth,
            seed=request.seed,
            size=size,
            classes=classes,
            tied=nuisance,
            correlation=0.0 if part == "test" else correlation,
            noise=noise if train else 0.0,
        )
    if targets == "maps":
        sets = {part: _mapped(samples) for part, samples in sets.items()}
    notes = []
    if correlation:
        notes.append(
            f"In training and validation the {nuisance} is the one tied to the class with probability "
            f"{correlation:g}, and otherwise random; in the test it is always random."
        )
    if tail > 1:
        notes.append(f"The largest class has {tail:g} times the training images of the smallest; the rest is balanced.")
    if noise:
        notes.append(f"A training label is wrong with probability {noise:g}; the factor clean_label has the truth.")
    return Splits(sets["train"], sets["val"], sets["test"], source="shapes", notes=tuple(notes))


def _labels(count: int, classes: int, tail: float) -> np.ndarray:
    """True classes of `count` images in shares that fall from 1 to 1 / tail, evenly mixed."""
    shares = tail ** (-np.arange(classes) / (classes - 1))
    shares /= shares.sum()
    # Image j of class c is due at (j + 1/2) / share. Taking images as they come due keeps every class within one image
    # of its share at every moment, so that what comes first does not depend on how many follow.
    due = [(np.arange(int(count * share) + 2) + 0.5) / share for share in shares]
    owner = np.repeat(np.arange(classes), [len(times) for times in due])
    return owner[np.argsort(np.concatenate(due), kind="stable")][: max(count, 0)]


def _part(
    part: str,
    truth: np.ndarray,
    *,
    seed: int,
    size: int,
    classes: int,
    tied: str,
    correlation: float,
    noise: float,
) -> ImageSet:
    """The images of one split."""
    count = len(truth)
    random = _uniforms(seed, _PARTS[part], count, _WANTED)
    factors = {
        name: (random[:, column] * len(values)).astype(np.int64)
        for column, (name, values) in enumerate(
            [("colour", COLOURS), ("texture", TEXTURES), ("background", BACKGROUNDS)]
        )
    }
    values = len(TEXTURES if tied == "texture" else COLOURS)
    factors[tied] = np.where(random[:, 3] < correlation, truth % values, factors[tied])
    others = 1 + (random[:, 5] * (classes - 1)).astype(np.int64)
    labels = np.where(random[:, 4] < noise, (truth + others) % classes, truth)

    images = np.empty((count, size, size, 3), dtype=np.uint8)
    masks = np.empty((count, size, size), dtype=bool)
    # Intermediate results of a chunk should stay in the cache of the processor.
    step = max(1, 2**17 // size**2)
    for start in range(0, count, step):
        rows = slice(start, start + step)
        images[rows], masks[rows] = draw(
            truth[rows],
            factors["colour"][rows],
            factors["texture"][rows],
            factors["background"][rows],
            random[rows, 6:],
            size,
        )
    return ImageSet(
        images,
        labels,
        [f"{part}-{number}" for number in range(count)],
        SHAPES[:classes],
        pixel_keys(images),
        masks,
        {**factors, "clean_label": truth},
    )


def _mapped(samples: ImageSet) -> ImageSet:
    """The same images with a class for every pixel: 0 outside the shape, and inside one more than that of the image."""
    assert samples.masks is not None
    maps = np.where(samples.masks, (samples.labels + 1).astype(np.uint8)[:, None, None], np.uint8(0))
    return replace(samples, labels=maps, classes=("background", *samples.classes))


def _uniforms(seed: int, part: int, count: int, columns: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 `[count, columns]`; row i is a function of seed, part and i."""
    key = np.random.SeedSequence([seed, part]).generate_state(1, np.uint64)
    position = np.arange(count * columns, dtype=np.uint64).reshape(count, columns)
    # SplitMix64: a counter-based generator, so that rows can be had in any number and order.
    mixed = key + (position + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)) * 2.0**-53
