"""Classes that are described, a fifth of which are never seen: accented letters, and numbers of two digits.

Letters are drawn in the fonts that matplotlib brings, as features of a network that was trained on photographs; what
they are like is read off their Unicode names: the base letter, its case, the mark above or below. All fonts are styles
of DejaVu, with serifs or without, bold, slanted or monospaced; those of the test are not those that are learned from.
Numbers are two handwritten digits side by side, as principal components of their pixels; test digits are not those that
are learned from. A seed draws which combinations are never seen. Strengths of penalties are chosen by classes held out
of the seen ones, for every method from as many values.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.base import clone

from repertoire.claims import Budget
from repertoire.claims.beds import _named
from repertoire.data import ImageSet, Splits
from repertoire.recipe import build, make_config
from repertoire.zeroshot import SeenUnseen, ZeroShotClassifier, held_out, seen_unseen

LETTERS = (
    "accented Latin letters in unseen styles of a font, frozen features of a pretrained network; a fifth never seen"
)
NUMBERS = "numbers of two handwritten digits of MNIST, a fifth of the numbers never seen"

UNSEEN = 0.2
"""Share of the classes that are never seen."""

REDRAWN = UNSEEN / (1 - UNSEEN)
"""The `overlap` of claims on these classes: two seeds have a fifth of those that are never seen in common, each being
seen by the other's methods."""

RIDGES = (1e-4, 1e-3, 1e-2)
"""Strengths that every method may choose from."""


def ridges(budget: Budget) -> tuple[float, ...]:
    """The same; a smoke run does not choose."""
    return RIDGES[1:2] if budget.name == "smoke" else RIDGES


_MARKS = {
    "grave": "\u0300", "acute": "\u0301", "circumflex": "\u0302", "tilde": "\u0303", "macron": "\u0304",
    "breve": "\u0306", "dot above": "\u0307", "diaeresis": "\u0308", "ring above": "\u030a",
    "double acute": "\u030b", "caron": "\u030c", "cedilla": "\u0327", "ogonek": "\u0328",
}  # fmt: skip
_SIDE, _COMPONENTS = 64, 128


@dataclass(frozen=True)
class World:
    """Rows of described classes.

    Attributes:
        x, y: rows to learn from `[N, d]` and their classes, all of them seen.
        test_x, test_y: rows of seen and of unseen classes.
        more_x: rows of unseen classes that are in no test, for methods that look at unlabelled ones.
        descriptions: float `[C, a]`, a block of columns for each view, with one 1 in each block.
        seen: bool `[C]`.
        views: the widths of the blocks.
        names: of the classes.
    """

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    more_x: np.ndarray
    descriptions: np.ndarray
    seen: np.ndarray
    views: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def unseen(self) -> np.ndarray:
        """The classes that are never seen."""
        return np.flatnonzero(~self.seen)

    @property
    def new(self) -> np.ndarray:
        """Which test rows are of unseen classes."""
        mask: np.ndarray = ~self.seen[self.test_y]
        return mask


def letters(budget: Budget, seed: int) -> World:
    """Accented letters; a smoke run takes numbers of two small digits."""
    if budget.name == "smoke":
        return numbers(budget, seed)
    return _divided(*_letters(budget), seed)


def numbers(budget: Budget, seed: int, *, unseen: float = UNSEEN) -> World:
    """Numbers of two digits, each written by somebody; drawn by the seed. A share of the numbers is never seen."""
    splits = _named.get("mnist5k").splits(budget, 0)
    generator = np.random.default_rng(seed)
    each = budget.pick(smoke=4, small=20, full=60)
    classes = np.arange(100)
    parts = []
    for part in (splits.train, splits.test):
        pixels = part.inputs(np.arange(len(part))).reshape(len(part), -1).astype(np.float64) / 255
        members = [np.flatnonzero(part.labels == digit) for digit in range(10)]
        y = np.repeat(classes, each)
        halves = [
            np.stack([pixels[generator.choice(members[digit])] for digit in digits]) for digits in (y // 10, y % 10)
        ]
        parts.append((np.concatenate(halves, 1), y))
    (x, y), (test_x, test_y) = parts
    project = _components(x)
    rows = np.concatenate([project(x), project(test_x)])
    labels, later = np.concatenate([y, test_y]), np.arange(2 * len(y)) >= len(y)
    blocks = [np.eye(10)[classes // 10], np.eye(10)[classes % 10]]
    return _divided(rows, labels, later, blocks, tuple(f"{number:02}" for number in classes), seed, unseen)


@functools.lru_cache(maxsize=1)
def _letters(
    budget: Budget,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray], tuple[str, ...]]:
    """Features of all letters that all fonts have, their classes, whether the font is one of the test, descriptions."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [
        ImageFont.truetype(str(path), 42) for path in sorted(folder.glob("DejaVuS*.ttf")) if "Display" not in path.name
    ]
    known = []
    for base in "ACEGILNORSTUYZacegilnorstuyz":
        for mark, sign in {"": "", **_MARKS}.items():
            composed = unicodedata.normalize("NFC", base + sign)
            if len(composed) == 1 and all(_has(font, composed) for font in fonts):
                known.append((composed, base.lower(), base.isupper(), mark))
    images = np.stack([_drawn(font, letter) for font in fonts for letter, *_ in known])[..., None]
    labels = np.tile(np.arange(len(known)), len(fonts))
    number = np.repeat(np.arange(len(fonts)), len(known))
    names = tuple(unicodedata.name(letter).lower() for letter, *_ in known)
    rows = ImageSet(
        images, labels, [str(i) for i in range(len(images))], names, np.arange(len(images), dtype=np.uint64)
    )
    few = rows.subset(np.arange(len(known)))
    splits = Splits(rows, few, few, source="glyphs", augmentation="none")
    config = make_config(data="glyphs", backbone="lite0", tune="head", augment="none", device=budget.device)
    frozen = build(config, splits, device=budget.device).splits.train
    features = frozen.inputs(np.arange(len(frozen))).astype(np.float64)
    later = number % 3 == 2
    blocks = [
        np.array([[part[place] == value for value in dict.fromkeys(p[place] for p in known)] for part in known], float)
        for place in (1, 2, 3)
    ]
    return _components(features[~later])(features), labels, later, blocks, names


def _has(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    return bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))


def _drawn(font: ImageFont.FreeTypeFont, letter: str) -> np.ndarray:
    image = Image.new("L", (_SIDE, _SIDE))
    ImageDraw.Draw(image).text((_SIDE / 2, 46), letter, fill=255, font=font, anchor="ms")
    return np.asarray(image)


def _components(x: np.ndarray):  # type: ignore[no-untyped-def]
    """A projection to the first principal components of rows."""
    mean = x.mean(0)
    _, _, directions = np.linalg.svd(x - mean, full_matrices=False)
    basis = directions[:_COMPONENTS].T
    return lambda rows: (rows - mean) @ basis


def _divided(
    rows: np.ndarray,
    labels: np.ndarray,
    later: np.ndarray,
    blocks: Sequence[np.ndarray],
    names: tuple[str, ...],
    seed: int,
    unseen: float = UNSEEN,
) -> World:
    """A world in which a share of the classes is not seen, each value of each attribute being seen twice or more."""
    descriptions = np.concatenate(blocks, 1)
    seen = np.ones(len(names), dtype=bool)
    for c in np.random.default_rng([seed, 1]).permutation(len(names)):
        if (~seen).sum() >= int(unseen * len(names)):
            break
        if (descriptions[seen].sum(0) - descriptions[c] >= 2 * (descriptions[c] > 0)).all():
            seen[c] = False
    kept = ~later & seen[labels]
    widths = tuple(block.shape[1] for block in blocks)
    more = rows[~later & ~seen[labels]]
    return World(rows[kept], labels[kept], rows[later], labels[later], more, descriptions, seen, widths, names)


def chosen(models: Sequence[ZeroShotClassifier], world: World, descriptions: np.ndarray) -> ZeroShotClassifier:
    """The model that names classes best that are held out of the seen ones, fitted to all of these.

    Args:
        models: to choose from.
        world: whose rows are learned from.
        descriptions: what classes are described by, `[C, a]`.
    """
    if len(models) == 1:
        return clone(models[0]).fit(world.x, world.y, descriptions)
    right = np.zeros(len(models))
    for part in held_out(world.y, 3):
        for number, model in enumerate(models):
            fitted = clone(model).fit(world.x[part.fitted], world.y[part.fitted], descriptions)
            scores = fitted.decision_function(world.x[part.unseen])[:, part.classes]
            right[number] += per_class(part.classes[scores.argmax(1)], world.y[part.unseen])
    return clone(models[int(right.argmax())]).fit(world.x, world.y, descriptions)


def per_class(found: np.ndarray, labels: np.ndarray) -> float:
    """Mean accuracy of the classes."""
    return float(np.mean([(found[labels == c] == c).mean() for c in np.unique(labels)]))


def among_unseen(model: ZeroShotClassifier, world: World) -> float:
    """Mean accuracy of unseen classes, of which it is known that they are unseen."""
    rows = world.new
    scores = model.decision_function(world.test_x[rows])[:, world.unseen]
    return per_class(world.unseen[scores.argmax(1)], world.test_y[rows])


def curve(model: ZeroShotClassifier, world: World) -> SeenUnseen:
    """Accuracies on seen and unseen classes, all being allowed."""
    return seen_unseen(model.decision_function(world.test_x), world.test_y, world.seen)


def most_alike(budget: Budget, seed: int) -> float:
    """Accuracy on unseen letters, among them, of the nearest mean of the seen classes that share most attributes with
    each: what descriptions tell without a map to them."""
    world = letters(budget, seed)
    shared = np.where(world.seen, world.descriptions[world.unseen] @ world.descriptions.T, -1)
    means = np.stack([world.x[world.y == c].mean(0) if world.seen[c] else world.x[0] for c in range(len(world.seen))])
    near = np.stack([means[row == row.max()].mean(0) for row in shared])
    rows = world.test_x[world.new]
    found = (2 * rows @ near.T - np.square(near).sum(1)).argmax(1)
    return per_class(world.unseen[found], world.test_y[world.new])
