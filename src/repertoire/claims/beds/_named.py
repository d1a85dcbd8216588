"""Named beds: which data, how much of it at each budget, and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from repertoire.claims._claim import Budget
from repertoire.errors import UnknownName
from repertoire.papers import Tier

if TYPE_CHECKING:
    from repertoire.data import Samples, Splits

__all__ = ["LETTERS_REDRAWN", "NAMED", "Bed", "features", "get", "majority", "neighbour_accuracy"]


@dataclass(frozen=True)
class Bed:
    """Data that claims are decided on.

    A smoke run must work where none of the real data is: it takes digits, in the form that the bed has.

    Attributes:
        name: what claims call it.
        title: for a reader, beside every verdict.
        small, full: spec of the data source at these budgets.
        form: what its samples are: "images", "vectors", or vectors with "several" labels each.
        size: side of the images in pixels; None for vectors.
        tier: what it is worth.
    """

    name: str
    title: str
    small: str
    full: str
    form: Literal["images", "vectors", "several"] = "images"
    size: int | None = None
    tier: Tier = "real, small"

    def splits(self, budget: Budget, seed: int) -> Splits:
        """The data of a seed, or the user's own in its place.

        Raises:
            DataError: it is not here; the message says what to install.
        """
        options = {} if self.size is None else {"size": self.size}
        if budget.name != "smoke" or budget.data:
            return budget.splits(budget.pick(smoke="", small=self.small, full=self.full), seed=seed, **options)
        splits = budget.splits("digits", seed=seed, **options)
        if self.form == "images":
            return splits
        train, val, test = (_as_vectors(part, self.form) for part in (splits.train, splits.val, splits.test))
        return replace(splits, train=train, val=val, test=test)


def _as_vectors(samples: Samples, form: str) -> Samples:
    import numpy as np

    from repertoire.data import FeatureSet

    rows = samples.inputs(np.arange(len(samples))).reshape(len(samples), -1).astype(np.float32) / 255
    labels = samples.labels
    if form == "several":
        labels = np.eye(len(samples.classes), dtype=np.uint8)[labels]
    return FeatureSet(rows, labels, samples.names, samples.classes, samples.keys, samples.factors)


def features(name: str, budget: Budget, seed: int, backbone: str = "lite0", size: int = 128) -> Splits:
    """The splits of a bed of images with frozen features in the place of the images; computed once, and kept.

    Args:
        name: of the bed.
        budget: of the measurement; a smoke run takes the pixels of digits for features.
        seed: of the division, which is the same as without features.
        backbone: spec of a backbone with pretrained weights.
        size: side that the images are brought to first.

    Raises:
        ConfigError: the weights are not installed; the message says what to install.
        DataError: the data is not here.
    """
    from repertoire.recipe import build, make_config

    if budget.name == "smoke" and not budget.data:
        return replace(get(name), form="vectors", size=None).splits(budget, seed)
    splits = replace(get(name), size=size).splits(budget, seed)
    config = make_config(data=splits.source, backbone=backbone, tune="head", augment="none", device=budget.device)
    return build(config, splits, device=budget.device).splits


def majority(samples: Samples) -> float:
    """Accuracy of always naming the most frequent class: the least that a classifier must beat."""
    counts = samples.counts()
    return float(counts.max() / counts.sum())


def neighbour_accuracy(train: Samples, test: Samples, count: int = 5) -> float:
    """Accuracy of the nearest neighbours by raw inputs: what learned features must beat.

    Args:
        train, test: samples with a class each.
        count: number of neighbours that vote.
    """
    import numpy as np
    from sklearn.neighbors import KNeighborsClassifier

    rows = [part.inputs(np.arange(len(part))).reshape(len(part), -1).astype(np.float32) for part in (train, test)]
    return float(KNeighborsClassifier(count).fit(rows[0], train.labels).score(rows[1], test.labels))


def _bed(name: str, title: str, small: str = "", size: int | None = None, form: str = "vectors", full: str = "") -> Bed:
    return Bed(name, title, small or name, full or name, "images" if size else form, size)  # type: ignore[arg-type]


# One definition for each bed, called as the bed is: `omniglot-all` is OMNIGLOT_ALL. Evidence knows the definitions that
# it depends on, and finds that of a bed by the name that a claim calls it by; another bed more changes no evidence.
FASHION_MNIST = _bed("fashion-mnist", "Fashion-MNIST, 10,000 photographs", "fashion-mnist:count=10000,tested=2000", 28)
MNIST5K = _bed("mnist5k", "5,000 handwritten digits of MNIST", size=28)
OMNIGLOT = _bed("omniglot", "Omniglot, three alphabets, unseen drawers", "omniglot:alphabets=3", 28)
OMNIGLOT_ALL = _bed("omniglot-all", "Omniglot, 242 characters of eight alphabets", "omniglot", 28, full="omniglot")
EMOJI = _bed("emoji", "emoji as Google draws them, by category", size=32)
CIFAR10 = _bed("cifar10", "CIFAR-10, 5,000 photographs", "cifar10:count=5000,tested=2000", 32)
GLYPHS = _bed("glyphs", "Latin letters of unseen fonts", size=28)
SPOKEN_DIGITS = _bed("spoken-digits", "spoken digits of unseen speakers", size=32)
LETTERS = _bed("letters", "Letter recognition, 5,000 rows", "letters:count=5000")
LANDSAT = _bed("landsat", "Landsat, 6,435 patches of ground")
SHUTTLE = _bed("shuttle", "Shuttle, 10,000 rows in a natural long tail", "shuttle:count=10000")
DNA = _bed("dna", "DNA, 3,186 splice sites")
VOWEL = _bed("vowel", "vowels of unseen speakers")
SEGMENT = _bed("segment", "2,310 pieces of outdoor photographs")
YEAST = _bed("yeast", "Yeast, 2,417 genes with several functions", form="several")
CORA = _bed("cora", "Cora, words of 2,708 papers")
INTENTS = _bed("intents", "BANKING77, 5,000 questions", "intents:count=5000")
REVIEWS = _bed("reviews", "5,000 reviews of food")
CIFAR10_LITE0 = _bed("cifar10-lite0", "CIFAR-10, frozen features of a pretrained network")

LETTERS_REDRAWN = 1000 / 19_000
"""The `overlap` of claims whose seeds divide the bed `letters` anew: a thousand rows are tested on, of twenty thousand.
Two seeds have a twentieth of them in common, where Nadeau and Bengio have the share of the test in the whole."""

NAMED = {bed.name: bed for bed in tuple(globals().values()) if isinstance(bed, Bed)}
"""The beds by name."""


def get(name: str) -> Bed:
    """The bed of that name.

    >>> get("fashion-mnist").tier
    'real, small'

    Raises:
        UnknownName: there is none; the message suggests the nearest.
    """
    if name not in NAMED:
        raise UnknownName("bed", name, list(NAMED))
    return NAMED[name]
