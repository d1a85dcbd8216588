"""Sets of samples as Python and torch use them: by index, in a loop, in a DataLoader, printed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from repertoire.data import FeatureSet, ImageSet, Samples, Splits, kind_of, load
from repertoire.errors import DataError

KEYS = np.arange(10, dtype=np.uint64)
NAMES = [f"image {number}" for number in range(10)]
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 4, 6, 3), dtype=np.uint8)
VECTORS = np.random.default_rng(1).normal(size=(10, 5)).astype(np.float16)
TARGETS = {
    "classes": np.arange(10) % 2,
    "labels": np.eye(2, dtype=np.uint8)[np.arange(10) % 2],
    "number": np.linspace(0, 1, 20, dtype=np.float32).reshape(10, 2),
    "votes": np.arange(30).reshape(10, 3) % 2,
}


def image_set(kind: str = "classes") -> ImageSet:
    return ImageSet(PIXELS, TARGETS[kind], NAMES, ("even", "odd"), KEYS, factors={"group": np.arange(10) // 2})


def feature_set(kind: str = "classes") -> FeatureSet:
    return FeatureSet(VECTORS, TARGETS[kind], NAMES, ("even", "odd"), KEYS)


@pytest.mark.parametrize("make", [image_set, feature_set])
@pytest.mark.parametrize("kind", list(TARGETS))
def test_one_sample(make, kind: str):
    samples = make(kind).subset([7, 3, 5])
    assert samples.kind == kind_of(samples.labels) == kind
    value, target = samples[1]
    expected = PIXELS[3].transpose(2, 0, 1) / 255 if make is image_set else VECTORS[3]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float32))
    assert value.shape == samples.shape
    if kind == "classes":
        assert (type(target), target) == (int, 1)
    else:
        assert torch.equal(target, torch.from_numpy(TARGETS[kind][3]))
    assert torch.equal(samples[-1][0], samples[2][0])
    for position in (3, -4):
        with pytest.raises(IndexError):
            samples[position]


@pytest.mark.parametrize("make", [image_set, feature_set])
def test_a_loop_ends(make):
    assert [target for _, target in make()] == TARGETS["classes"].tolist()


@pytest.mark.parametrize("make", [image_set, feature_set])
@pytest.mark.parametrize("kind", list(TARGETS))
def test_a_data_loader_of_torch(make, kind: str):
    samples = make(kind)
    batches = list(DataLoader(samples, batch_size=4))
    assert [len(values) for values, _ in batches] == [4, 4, 2]
    values = torch.cat([values for values, _ in batches])
    torch.testing.assert_close(values, torch.stack([value for value, _ in samples]))
    targets = torch.cat([targets for _, targets in batches])
    assert torch.equal(targets, torch.from_numpy(TARGETS[kind]))
    shuffled = DataLoader(samples, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0))
    assert sum(len(values) for values, _ in shuffled) == 10


def test_workers_of_a_data_loader():
    found = torch.cat([values for values, _ in DataLoader(image_set(), batch_size=4, num_workers=1)])
    torch.testing.assert_close(found, torch.stack([value for value, _ in image_set()]))


def test_printing_says_what_there_is_and_no_pixels():
    assert repr(image_set()) == "<10 images [3, 4, 6], 2 classes: even, odd>"
    partly = replace(image_set(), labels=np.where(np.arange(10) < 3, -1, TARGETS["classes"]))
    assert repr(partly) == "<10 images [3, 4, 6], 2 classes: even, odd, 3 without a target>"
    assert repr(feature_set("labels")) == "<10 vectors [5], 2 labels: even, odd>"
    many = replace(image_set(), classes=tuple("abcdefg"))
    assert repr(many) == "<10 images [3, 4, 6], 7 classes: a, b, c, d, e, ...>"
    text = repr(load("digits"))
    assert len(text) < 1500
    assert "array" not in text


def test_what_has_a_target():
    labels = TARGETS["labels"].copy()
    labels[2], labels[3, 0] = 255, 255
    assert np.flatnonzero(~replace(image_set("labels"), labels=labels).known).tolist() == [2]
    numbers = TARGETS["number"].copy()
    numbers[4] = np.nan
    assert np.flatnonzero(~replace(image_set("number"), labels=numbers).known).tolist() == [4]
    votes = TARGETS["votes"].copy()
    votes[5], votes[6, 0] = -1, -1
    assert np.flatnonzero(~replace(image_set("votes"), labels=votes).known).tolist() == [5]


def test_counts():
    assert image_set().subset([0, 1, 2]).counts().tolist() == [2, 1]
    assert image_set("labels").subset([0, 1, 2]).counts().tolist() == [2, 1]
    assert image_set("number").counts().tolist() == [10, 10]
    assert image_set("votes").counts().tolist() == [15, 15]


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros(10),
        np.zeros(10, np.int32),
        np.zeros((10, 2)),
        np.zeros((10, 2), np.int32),
        np.zeros((10, 2, 2, 2), np.uint8),
        np.zeros((10, 2, 2), np.int64),
        np.array(list("ababababab")),
    ],
)
def test_targets_of_no_kind(labels: np.ndarray):
    with pytest.raises(DataError, match=r"labels must be int64 \[N\].*found"):
        ImageSet(PIXELS, labels, NAMES, ("even", "odd"), KEYS)


@pytest.mark.parametrize("make", [image_set, feature_set])
def test_lengths_that_differ(make):
    samples: Samples = make()
    for name in ("labels", "names", "keys"):
        with pytest.raises(DataError, match=f"{name} has 9 entries for 10"):
            replace(samples, **{name: getattr(samples, name)[:9]})


def test_inputs_of_the_wrong_type():
    with pytest.raises(DataError, match="images must be uint8"):
        replace(image_set(), images=PIXELS.astype(np.float32))
    with pytest.raises(DataError, match="features must be float16 or float32"):
        replace(feature_set(), features=VECTORS.astype(np.float64))


def test_splits_are_of_one_kind():
    part = image_set("number")
    splits = Splits(part, part, part, "somewhere")
    assert (splits.kind, splits.classes) == ("number", ("even", "odd"))
