from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_splits import image_set

from repertoire.data import FeatureSet, ImageSet, Splits, digest, fold_splits, load, make_splits
from repertoire.errors import DataError


def folds(samples: ImageSet | FeatureSet, of: int, seed: int = 0) -> list[Splits]:
    whole = make_splits(samples, source="s")
    return [fold_splits(whole, number, of, seed=seed) for number in range(1, of + 1)]


def keys(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**63, count, dtype=np.uint64)


@given(st.integers(2, 7), st.lists(st.integers(8, 40), min_size=2, max_size=5), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_every_sample_is_tested_once_and_classes_and_sizes_differ_by_one(of: int, sizes: list[int], seed: int):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    found = folds(image_set(labels, keys(len(labels), seed)), of, seed)
    tested = [name for fold in found for name in fold.test.names]
    assert sorted(tested) == sorted(map(str, range(len(labels))))
    for fold in found:
        parts = [set(part.names) for part in (fold.train, fold.val, fold.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(labels)
        assert (fold.val.counts() >= 1).all()
    counts = np.array([fold.test.counts() for fold in found])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(1)) <= 1


def test_groups_and_copies_stay_in_one_fold():
    generator = np.random.default_rng(0)
    count = 200
    group = generator.integers(0, 40, count)
    samples = replace(image_set(np.arange(count) % 4, keys(count)), factors={"group": group})
    found = folds(samples, 5)
    where: dict[int, set[int]] = {}
    for number, fold in enumerate(found):
        for one in fold.test.factors["group"]:
            where.setdefault(int(one), set()).add(number)
    assert len(where) == len(np.unique(group))
    assert all(len(numbers) == 1 for numbers in where.values())
    assert max(len(fold.test) for fold in found) <= 50

    copied = image_set(np.arange(count) // 2 % 2, keys(100)[np.arange(count) // 2])
    for fold in folds(copied, 4):
        assert not np.isin(fold.test.keys, fold.train.keys).any()


def test_labels_and_numbers_are_spread_evenly():
    generator = np.random.default_rng(0)
    tags = (generator.random((300, 5)) < [0.05, 0.1, 0.3, 0.5, 0.7]).astype(np.uint8)
    features = generator.normal(size=(300, 3)).astype(np.float32)
    many = FeatureSet(features, tags, list(map(str, range(300))), tuple("abcde"), keys(300))
    counts = np.array([fold.test.counts() for fold in folds(many, 5)])
    assert (np.ptp(counts, axis=0) <= 3).all()
    assert np.ptp(counts[:, 0]) <= 1  # the rarest first

    numbers = generator.normal(size=(300, 1)).astype(np.float32)
    found = folds(FeatureSet(features, numbers, list(map(str, range(300))), ("x",), keys(300)), 5)
    means = [fold.test.labels.mean() for fold in found]
    assert np.ptp(means) < 0.25
    assert sum(len(fold.test) for fold in found) == 300


def test_what_has_no_label_is_always_trained_on():
    labels = np.where(np.arange(90) % 3 == 0, -1, np.arange(90) % 2)
    for fold in folds(image_set(labels, keys(90)), 3):
        assert (fold.train.labels == -1).sum() == 30
        assert len(fold.test) == 20


def test_parts_of_the_source_stay_what_they_are():
    samples = image_set(np.arange(60) % 3, keys(60))
    held = image_set(np.arange(9) % 3, keys(9, 1))
    whole = make_splits(samples, test_set=held, val_set=held, source="s")
    assert whole.drawn == ()
    fold = fold_splits(whole, 2, 3)
    assert len(fold.test) == 20
    assert len(fold.train) == 40
    assert fold.val is held
    assert fold.extra["test"] is held
    assert make_splits(samples, source="s").drawn == ("test", "val")


def test_notes_speak_of_the_parts_that_there_are():
    notes = " ".join(fold_splits(load("digits"), 1, 4).notes)
    assert "Fold 1 of 4" in notes
    assert "validation part" in notes
    assert "test part" not in notes


def test_order_changes_nothing_and_the_seed_does():
    labels = np.arange(80) % 2
    order = np.random.default_rng(1).permutation(80)
    plain = folds(image_set(labels, keys(80)), 4)
    shuffled = folds(image_set(labels[order], keys(80)[order]), 4)
    for one, other in zip(plain, shuffled, strict=True):
        assert set(one.test.keys) == set(other.test.keys)
    other = folds(image_set(labels, keys(80)), 4, seed=1)
    assert digest(plain[0]) != digest(other[0])


@pytest.mark.parametrize(
    ("number", "of", "words"), [(0, 3, "no fold 0 of 3"), (4, 3, "no fold 4 of 3"), (1, 1, "two or more")]
)
def test_folds_that_cannot_be(number: int, of: int, words: str):
    with pytest.raises(DataError, match=words):
        fold_splits(load("digits"), number, of)


def test_too_few_samples_or_no_targets():
    with pytest.raises(DataError, match=r"has 12 different images .* fewer than 20 folds; ask for fewer: folds=12"):
        fold_splits(make_splits(image_set(np.arange(12) % 2, keys(12)), source="s"), 1, 20)
    bare = make_splits(image_set(np.full(12, -1), keys(12), 2), source="s", unlabelled=True)
    with pytest.raises(DataError, match="no targets"):
        fold_splits(bare, 1, 3)
