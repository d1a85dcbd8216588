"""Tables, texts and graphs that people made, as vectors."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from repertoire.data._arrays import pixel_keys
from repertoire.data._source import SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import FeatureSet, Splits
from repertoire.data.beds._find import arrays, drawn, read_text
from repertoire.errors import ConfigError, option
from repertoire.registry import register

__all__ = ["cifar10_lite0", "cora", "intents", "reviews", "tables", "yeast"]

WORDS = 4096
"""Columns that words and pairs of words are hashed into."""


def _vectors(
    request: SourceRequest,
    bed: str,
    features: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    count: int | None = None,
    **factors: np.ndarray,
) -> Splits:
    if request.size is not None:
        raise ConfigError(f"size is for images, and {bed!r} has vectors; leave it out")
    whole = _set(features, labels, classes, **factors)
    return make_splits(
        drawn(whole, count, request.seed),
        seed=request.seed,
        val=request.val,
        test=request.test,
        source=bed,
        augmentation="none",
    )


def _set(features: np.ndarray, labels: np.ndarray, classes: Sequence[str], **factors: np.ndarray) -> FeatureSet:
    rows = np.ascontiguousarray(features, dtype=np.float32)
    names = [str(number) for number in range(len(rows))]
    kept = labels if labels.ndim > 1 else labels.astype(np.int64)
    return FeatureSet(rows, kept, names, tuple(map(str, classes)), pixel_keys(rows), factors)


def _scaled(columns: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and deviation 1; measured over all rows, which no label has part in."""
    values = columns.astype(np.float64)
    return (values - values.mean(0)) / np.maximum(values.std(0), 1e-12)


_TABLES = {
    # name: (file, what to install, factor that says who belongs together)
    "letters": ("letter.npz", "apt install r-cran-mlbench, and convert LetterRecognition", None),
    "landsat": ("landsat.npz", "apt install r-cran-mlbench, and convert Satellite", None),
    "shuttle": ("shuttle.npz", "apt install r-cran-mlbench, and convert Shuttle", None),
    "dna": ("dna.npz", "apt install r-cran-mlbench, and convert DNA", None),
    "vowel": ("vowel.npz", "apt install r-cran-mlbench, and convert Vowel", "speaker"),
    "segment": ("segment.npz", "pip install river, and convert segment.csv.zip", None),
}


def _table(bed: str) -> Callable[[SourceRequest, int | None], Splits]:
    file, instead, group = _TABLES[bed]

    def source(request: SourceRequest, count: int | None = None) -> Splits:
        held = arrays(bed, file, instead)
        factors = {} if group is None else {"group": held[group].astype(np.int64)}
        names = held["class_names"].tolist()
        return _vectors(request, bed, _scaled(held["X"]), held["y"], names, count, **factors)

    source.__name__ = source.__qualname__ = bed
    source.__doc__ = f"""{_DESCRIBED[bed]}

    Columns are brought to mean 0 and deviation 1.

    Args:
        request: the seed divides the rows{"" if group is None else f", a {group} staying in one part"}.
        count: rows to draw by the seed; all by default.

    Raises:
        DataError: it is not here; the message says what to install.
        ConfigError: more rows are asked for than there are, or a size.
    """
    return source


_DESCRIBED = {
    "letters": "Letter recognition: 20,000 printed letters as 16 moments of their images, 26 classes.",
    "landsat": "Statlog Landsat: 6,435 patches of 3 x 3 pixels in four bands, six kinds of ground.",
    "shuttle": "Statlog Shuttle: 58,000 rows of nine readings; seven classes in a long tail of 45,586 rows down to 10.",
    "dna": "Statlog DNA: 3,186 stretches of 60 bases as 180 bits; is there a splice site in the middle, and which.",
    "vowel": "Deterding's vowels: 990 spectra, eleven vowels by 15 speakers; divided by speaker.",
    "segment": "Statlog segments: 2,310 pieces of outdoor photographs as 18 numbers, seven kinds of surface.",
}

tables = {bed: register("data", bed)(_table(bed)) for bed in _TABLES}
"""The sources of plain tables, by name."""


@register("data", "yeast")
def yeast(request: SourceRequest) -> Splits:
    """Yeast: 2,417 genes as 103 numbers, each with several of 14 functions.

    Elisseeff and Weston, *A Kernel Method for Multi-labelled Classification* (2001).

    Args:
        request: the seed divides the genes.

    Raises:
        DataError: it is not here; the message says what to install.
    """
    held = arrays("yeast", "yeast.npz", "pip install river, and convert yeast.csv.gz")
    return _vectors(request, "yeast", _scaled(held["X"]), held["Y"].astype(np.uint8), held["label_names"].tolist())


@register("data", "cora")
def cora(request: SourceRequest, hops: int = 0) -> Splits:
    """Cora: 2,708 papers as their words, seven subjects, with the citations between them.

    Sen et al., *Collective Classification in Network Data* (2008); divided by the seed, not as Planetoid does.

    Args:
        request: the seed divides the papers.
        hops: how often words are averaged over a paper and its neighbours (0: not at all; 2 as in SGC).

    Raises:
        DataError: it is not here; the message says what to install.
        ConfigError: a negative number of hops.
    """
    from scipy.sparse import csr_array, diags_array

    if hops < 0:
        raise ConfigError(f"hops must be 0 or more, found {hops}")
    held = arrays("cora", "cora.npz", "it has no package; get kimiyoung/planetoid and convert it")
    shape = tuple(held["features_shape"].tolist())
    words = csr_array(
        (held["features_data"].astype(np.float64), held["features_indices"], held["features_indptr"]), shape
    )
    rows, columns = np.concatenate([held["edge_index"], np.tile(np.arange(shape[0]), (2, 1))], 1)
    links = csr_array((np.ones(len(rows)), (rows, columns)), (shape[0], shape[0]))
    scale = diags_array(1 / np.sqrt(links.sum(1)))
    for _ in range(hops):
        words = scale @ links @ scale @ words
    subjects = [f"subject {number}" for number in range(int(held["labels"].max()) + 1)]
    return _vectors(request, "cora", words.toarray(), held["labels"], subjects)


@register("data", "cifar10-lite0")
def cifar10_lite0(request: SourceRequest, count: int | None = None) -> Splits:
    """Frozen features of CIFAR-10 by EfficientNet-Lite0: 5,000 to train on and 2,000 to test, 1,280 numbers each.

    Args:
        request: the seed draws the validation rows.
        count: training and validation rows to draw by the seed; all by default.

    Raises:
        DataError: it is not here; the message says what to install.
    """
    if request.size is not None:
        raise ConfigError("size is for images, and 'cifar10-lite0' has vectors; leave it out")
    held = arrays(
        "cifar10-lite0", "cifar10-lite0.npz", f"train on cifar10 with {option('backbone', 'lite0')} in its place"
    )
    train, test = (
        _set(held[f"{part}_features"], held[f"{part}_labels"], held["classes"].tolist()) for part in ("train", "test")
    )
    return make_splits(
        drawn(train, count, request.seed),
        test_set=test,
        seed=request.seed,
        val=request.val,
        source="cifar10-lite0",
        augmentation="none",
    )


@register("data", "intents")
def intents(
    request: SourceRequest, collection: Literal["banking77", "clinc150"] = "banking77", count: int | None = None
) -> Splits:
    """Short questions to a service, as hashed words and pairs of words, a class for each intent.

    Casanueva et al., *Efficient Intent Detection with Dual Sentence Encoders* (2020): BANKING77, 13,083 questions, 77
    intents, CC BY 4.0. Larson et al., *An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction*
    (2019): CLINC-150, 22,500 questions in scope, 150 intents, CC BY 3.0.

    Args:
        request: the seed draws the validation questions, and those that are taken.
        collection: which of the two.
        count: training and validation questions to draw; all by default.

    Raises:
        DataError: it is not here; the message says what to get.
    """
    if collection == "banking77":
        text = read_text("intents", "banking77.csv.gz", "it has no package; get PolyAI-LDN/task-specific-datasets")
        lines = list(csv.DictReader(io.StringIO(text)))
        parts = [[(row["text"], row["intent"]) for row in lines if row["split"] == part] for part in ("train", "test")]
    else:
        held = json.loads(read_text("intents", "clinc150.json.gz", "it has no package; get clinc/oos-eval"))
        parts = [[tuple(row) for row in (*held["train"], *held["val"])], [tuple(row) for row in held["test"]]]
    return _texts(request, "intents", parts, count)


@register("data", "reviews")
def reviews(request: SourceRequest, count: int | None = None) -> Splits:
    """Reviews of food, as hashed words and pairs of words: five stars or fewer; 5,000 of them.

    McAuley and Leskovec, *From Amateurs to Connoisseurs* (2013), as the package modeldata brings it.

    Args:
        request: the seed draws the validation reviews, and those that are taken.
        count: training and validation reviews to draw; all by default.

    Raises:
        DataError: it is not here; the message says what to install.
    """
    text = read_text("reviews", "food-reviews.csv.gz", "apt install r-cran-modeldata, and export small_fine_foods")
    lines = list(csv.DictReader(io.StringIO(text)))
    parts = [[(row["text"], row["label"]) for row in lines if row["split"] == part] for part in ("train", "test")]
    return _texts(request, "reviews", parts, count)


def _texts(request: SourceRequest, bed: str, parts: Sequence[Sequence[tuple[str, str]]], count: int | None) -> Splits:
    """Training and test texts as the square roots of how often words occur, scaled to length 1."""
    from sklearn.feature_extraction.text import HashingVectorizer

    if request.size is not None:
        raise ConfigError(f"size is for images, and {bed!r} has vectors; leave it out")
    counted = HashingVectorizer(n_features=WORDS, ngram_range=(1, 2), alternate_sign=False, norm=None)
    classes = sorted({label for part in parts for _, label in part})
    number = {name: position for position, name in enumerate(classes)}
    sets = []
    for part in parts:
        rows = np.sqrt(counted.transform([text for text, _ in part]).toarray())
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        sets.append(_set(rows, np.array([number[label] for _, label in part]), classes))
    return make_splits(
        drawn(sets[0], count, request.seed),
        test_set=sets[1],
        seed=request.seed,
        val=request.val,
        source=bed,
        augmentation="none",
    )
