from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.data import ImageSet, Splits, load
from repertoire.data._splits import digest, make_splits
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
    with pytest.raises(DataError, match=r"class 1 \(3, only 1 different\)"):
        make_splits(image_set(labels, keys), source="s")


def test_one_class_is_no_classification():
    with pytest.raises(DataError, match="at least two"):
        make_splits(image_set(np.zeros(10, np.int64)), source="s")


def test_shares_must_leave_something():
    with pytest.raises(DataError, match="less than 1"):
        make_splits(image_set(np.repeat(np.arange(2), 10)), source="s", val=0.5, test=0.5)


def test_why_a_class_is_small():
    labels, keys = np.repeat(np.arange(2), 20), np.concatenate([np.arange(20)] * 2).astype(np.uint64)
    with pytest.raises(DataError, match=r"class 0 \(20, all in other classes too\)"):
        make_splits(image_set(labels, keys), source="s")


def with_targets(labels: np.ndarray, classes: tuple[str, ...] = (), **factors: np.ndarray) -> ImageSet:
    count = len(labels)
    keys = np.random.default_rng(7).integers(0, 2**63, count, dtype=np.uint64)
    names = classes or tuple(f"label {k}" for k in range(labels.shape[-1] if labels.ndim > 1 else 2))
    pixels = np.zeros((count, 2, 2, 1), np.uint8)
    return ImageSet(pixels, labels, [str(i) for i in range(count)], names, keys, factors=factors)


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(60, 300))
@settings(max_examples=20, deadline=None)
def test_several_labels_are_stratified(seed: int, count: int, samples: int):
    generator = np.random.default_rng(seed)
    labels = (generator.random((samples, count)) < generator.uniform(0.1, 0.6, count)).astype(np.uint8)
    splits = make_splits(with_targets(labels), seed=seed, source="s", val=0.2, test=0.3)
    assert sum(map(len, members(splits).values())) == len(set.union(*members(splits).values())) == samples
    for part, share in ((splits.val, 0.2), (splits.test, 0.3)):
        assert (abs(part.counts() - share * labels.sum(0)) <= 0.05 * samples + 1).all()
        assert abs(len(part) - share * samples) <= 0.05 * samples + 1


def test_the_rarest_label_is_divided_exactly():
    labels = np.zeros((400, 3), np.uint8)
    labels[:, 0] = 1
    labels[:100, 1] = 1
    labels[:10, 2] = 1
    splits = make_splits(with_targets(labels), source="s", val=0.2, test=0.3)
    assert splits.val.counts().tolist() == [80, 20, 2]
    assert splits.test.counts().tolist() == [120, 30, 3]
    assert any("20% of each label were drawn" in note for note in splits.notes)


def test_labels_that_nobody_knows_are_no_stratum_and_measure_nothing():
    labels = np.full((40, 2), 255, np.uint8)
    labels[:30] = np.eye(2, dtype=np.uint8)[np.arange(30) % 2]
    splits = make_splits(with_targets(labels), source="s", val=0.2, test=0.2)
    assert splits.val.known.all()
    assert splits.test.known.all()
    assert len(splits.extra["unlabelled"]) == 10
    assert len(splits.train) == 28


def test_numbers_are_spread_evenly():
    labels = np.random.default_rng(0).exponential(10, (500, 1)).astype(np.float32)
    splits = make_splits(with_targets(labels), source="s", val=0.2, test=0.2)
    edges = np.quantile(labels, np.linspace(0, 1, 11))
    for part in (splits.val, splits.test):
        assert np.histogram(part.labels, edges)[0].tolist() == [10] * 10


def test_few_numbers_are_divided_too():
    splits = make_splits(with_targets(np.arange(3, dtype=np.float32)[:, None]), source="s")
    assert [len(splits.train), len(splits.val), len(splits.test)] == [1, 1, 1]
    with pytest.raises(DataError, match="too few different images to divide: 2; at least 3"):
        make_splits(with_targets(np.arange(2, dtype=np.float32)[:, None]), source="s")


def test_votes_are_divided_by_what_most_say():
    votes = np.repeat(np.array([[0, 0, 1], [1, 1, -1]]), 50, axis=0)
    splits = make_splits(with_targets(votes, ("a", "b")), source="s", val=0.2, test=0.2)
    assert (splits.test.labels[:, 0] == 0).sum() == (splits.test.labels[:, 0] == 1).sum() == 10


@pytest.mark.parametrize("kind", ["classes", "labels", "number", "votes"])
def test_a_group_is_on_one_side(kind: str):
    generator = np.random.default_rng(1)
    group = generator.integers(0, 40, 400)
    labels = {
        "classes": generator.integers(0, 2, 400),
        "labels": generator.integers(0, 2, (400, 3)).astype(np.uint8),
        "number": generator.normal(size=(400, 1)).astype(np.float32),
        "votes": generator.integers(0, 2, (400, 3)),
    }[kind]
    splits = make_splits(with_targets(labels, ("a", "b", "c"), group=group), source="s", val=0.2, test=0.2)
    parts = [set(getattr(splits, part).factors["group"].tolist()) for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == 40
    assert abs(len(splits.test) - 80) <= 12
    assert abs(len(splits.val) - 80) <= 12
    assert any("20% in whole groups were drawn" in note for note in splits.notes)


def test_groups_that_share_an_image_stay_together():
    images = with_targets(np.arange(60) % 2, ("a", "b"), group=np.arange(60) // 6)
    images.keys[6] = images.keys[0]
    splits = make_splits(images, source="s", val=0.2, test=0.2)
    for part in (splits.train, splits.val, splits.test):
        groups = set(part.factors["group"].tolist())
        assert (0 in groups) == (1 in groups)


def test_too_few_groups():
    images = with_targets(np.arange(60) % 2, ("a", "b"), group=np.arange(60) // 30)
    with pytest.raises(DataError, match="s has 2 groups that share no image, and 3 parts"):
        make_splits(images, source="s")
    images = with_targets(np.arange(60) // 20 % 2, ("a", "b"), group=np.arange(60) // 20)
    with pytest.raises(DataError, match="leaves no training image of"):
        make_splits(images, source="s")


def test_without_any_label():
    nothing = with_targets(np.full(30, -1), ())
    with pytest.raises(DataError, match=r"has no label; methods without labels"):
        make_splits(nothing, source="s")
    splits = make_splits(nothing, source="s", unlabelled=True)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [21, 3, 6]
    assert not splits.extra
    given = make_splits(nothing, test_set=splits.test, source="s", unlabelled=True)
    assert given.test is splits.test
    assert [len(given.train), len(given.val)] == [27, 3]


def test_what_has_no_label_is_a_set_of_its_own_too():
    splits = make_splits(image_set(np.array([0] * 10 + [1] * 10 + [-1] * 10), classes=2), source="s")
    assert set(splits.extra["unlabelled"].names) == set(map(str, range(20, 30)))
    given = make_splits(image_set(np.array([0] * 10 + [1] * 10)), extra={"unlabelled": splits.train}, source="s")
    assert given.extra["unlabelled"] is splits.train


def test_names_that_look_the_same():
    labels = np.repeat(np.arange(2), 10)
    for names in (("cat", "cat "), ("caf\u00e9", "cafe\u0301"), ("a b", "a  b")):
        with pytest.raises(DataError, match="differ in spaces or in the form of their Unicode only"):
            make_splits(with_targets(labels, names), source="s")
    splits = make_splits(with_targets(labels, ("A", "a")), source="s")
    assert "Classes whose names differ in case only are taken for different ones: A, a." in splits.notes


def test_the_digest_is_of_content_labels_and_further_sets():
    labels = np.repeat(np.arange(2), 10)
    splits = make_splits(image_set(labels), source="s")
    assert digest(splits) == digest(make_splits(image_set(labels), source="another name"))
    others = [make_splits(image_set(1 - labels), source="s"), make_splits(image_set(labels), seed=1, source="s")]
    further = image_set(labels, np.arange(20, dtype=np.uint64) + np.uint64(99))
    others.append(make_splits(image_set(labels), extra={"unlabelled": further}, source="s"))
    assert len({digest(splits), *map(digest, others)}) == 4
    assert digest(load("digits")) == "df568ab4d8f37207874c610b7699d64c", "runs of earlier versions keep it"
