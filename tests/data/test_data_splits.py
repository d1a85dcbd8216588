from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.data import ImageSet, Splits
from repertoire.data._splits import make_splits
from repertoire.errors import DataError


def image_set(labels: np.ndarray, keys: np.ndarray | None = None, classes: int | None = None) -> ImageSet:
    count = len(labels)
    names = tuple(f"class {k}" for k in range(classes or int(labels.max()) + 1))
    keys = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) if keys is None else keys
    return ImageSet(np.zeros((count, 4, 4, 1), np.uint8), labels, [str(i) for i in range(count)], names, keys)


def members(splits: Splits) -> dict[str, set[str]]:
    return {part: set(getattr(splits, part).names) for part in ("train", "val", "test")}


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(3, 40), st.floats(0.05, 0.45), st.floats(0.05, 0.45))
@settings(max_examples=40, deadline=None)
def test_parts_are_disjoint_complete_and_stratified(seed: int, classes: int, each: int, val: float, test: float):
    labels = np.repeat(np.arange(classes), each)
    splits = make_splits(image_set(labels), seed=seed, val=val, test=test, source="s")
    parts = members(splits)
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == len(labels)
    for name, share in (("val", val), ("test", test)):
        counts = getattr(splits, name).counts()
        assert (counts >= 1).all()
        assert (abs(counts - share * each) <= 1).all()
    assert (splits.train.counts() >= 1).all()


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_neither_order_nor_names_matter(seed: int):
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 20)
    keys = generator.integers(0, 2**63, 60, dtype=np.uint64)
    order = generator.permutation(60)
    plain = make_splits(image_set(labels, keys), seed=seed, source="s")
    shuffled = make_splits(image_set(labels[order], keys[order]), seed=seed, source="s")
    for part in ("train", "val", "test"):
        assert set(getattr(plain, part).keys) == set(getattr(shuffled, part).keys)


def test_another_seed_gives_another_draw():
    labels = np.repeat(np.arange(2), 50)
    first, second = (members(make_splits(image_set(labels), seed=seed, source="s")) for seed in (0, 1))
    assert first["test"] != second["test"]


def test_adding_images_moves_few_of_the_others():
    labels = np.repeat(np.arange(2), 200)
    keys = np.random.default_rng(0).integers(0, 2**63, 400, dtype=np.uint64)
    before = make_splits(image_set(labels, keys), source="s")
    after = make_splits(image_set(labels[:-2], keys[:-2]), source="s")
    assert len(set(before.test.keys) ^ set(after.test.keys)) <= 6


def test_copies_stay_together():
    labels = np.repeat(np.arange(2), 60)
    keys = np.repeat(np.arange(40, dtype=np.uint64), 3)
    splits = make_splits(image_set(labels, keys), source="s", val=0.3, test=0.3)
    parts = [set(getattr(splits, part).keys) for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == 40


def test_copies_in_two_classes_are_trained_on():
    labels = np.repeat(np.arange(2), 30)
    keys = np.concatenate([np.arange(30), np.arange(25, 55)]).astype(np.uint64)
    splits = make_splits(image_set(labels, keys), source="s", val=0.3, test=0.3)
    assert set(range(25, 30)) <= set(map(int, splits.train.keys))
    assert not set(range(25, 30)) & {*map(int, splits.val.keys), *map(int, splits.test.keys)}


def test_parts_that_exist_are_kept():
    whole, given_test = image_set(np.repeat(np.arange(2), 10)), image_set(np.array([0, 1, 1]))
    splits = make_splits(whole, test_set=given_test, source="s")
    assert splits.test is given_test
    assert len(splits.train) + len(splits.val) == 20
    assert any("validation" in note for note in splits.notes)
    assert not any("test part" in note for note in splits.notes)


def test_unlabelled_images_are_trained_on():
    splits = make_splits(image_set(np.array([0] * 10 + [1] * 10 + [-1] * 10), classes=2), source="s")
    assert (splits.train.labels == -1).sum() == 10


def test_unlabelled_images_measure_nothing_and_are_left_out_of_the_other_parts():
    whole = image_set(np.repeat(np.arange(2), 20))
    half = image_set(np.array([0, 1, -1, -1]), classes=2)
    none = image_set(np.array([-1, -1]), classes=2)
    splits = make_splits(whole, val_set=half, test_set=none, source="s")
    assert splits.val.labels.tolist() == [0, 1]
    assert len(splits.test) > 0
    assert any("2 test images have no label" in note for note in splits.notes)


def test_classes_too_small_are_all_named():
    labels = np.array([0] * 10 + [1] + [2] * 2)
    with pytest.raises(DataError, match=r"class 1 \(1\), class 2 \(2\); each needs at least 3"):
        make_splits(image_set(labels), source="s")


def test_three_copies_are_one_image():
    labels, keys = np.array([0] * 10 + [1] * 3), np.array([*range(10), 99, 99, 99], dtype=np.uint64)
    with pytest.raises(DataError, match=r"class 1 \(3\)"):
        make_splits(image_set(labels, keys), source="s")


def test_one_class_is_no_classification():
    with pytest.raises(DataError, match="at least two"):
        make_splits(image_set(np.zeros(10, np.int64)), source="s")


def test_shares_must_leave_something():
    with pytest.raises(DataError, match="less than 1"):
        make_splits(image_set(np.repeat(np.arange(2), 10)), source="s", val=0.5, test=0.5)
