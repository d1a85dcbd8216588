"""What directories mean: every file ends up somewhere, whatever they are called."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.data._layout import Place, match_masks, place
from repertoire.data._names import alike, part_of
from repertoire.errors import DataError

WORDS = ["train", "Test", "val", "masks", "unlabelled", "cat", "dog", "seg_train", "a.b", "Masks", "1"]
PATHS = st.lists(st.sampled_from(WORDS), min_size=0, max_size=3).flatmap(
    lambda folders: st.integers(0, 5).map(lambda number: "/".join([*folders, f"{number}.png"]))
)


@given(st.lists(PATHS, unique=True, max_size=25), st.sampled_from(["auto", "classes", "groups"]))
@settings(max_examples=300, deadline=None)
def test_every_file_ends_up_somewhere(files: list[str], arrangement: str):
    try:
        layout = place("somewhere", files, arrangement)
    except DataError:
        return
    masks = {name for name in files if name not in layout.placed and name not in layout.unused}
    assert set(layout.masks.values()) <= masks
    assert not set(layout.placed) & set(layout.unused)
    assert layout.masks or not masks
    assert set(layout.masks) <= set(layout.placed)
    for name, found in layout.placed.items():
        assert found.part in ("train", "val", "test", "unlabelled")
        assert found.label is None or found.label in name.split("/")[:-1]
    assert list(layout.placed) == [name for name in files if name in layout.placed]


def test_places():
    files = ["train/cat/1.png", "train/cat/deep/2.png", "Test/dog/3.png", "extra/4.png", "train/5.png"]
    layout = place("somewhere", files)
    assert layout.placed == {
        "train/cat/1.png": Place("train", "cat"),
        "train/cat/deep/2.png": Place("train", "cat"),
        "Test/dog/3.png": Place("test", "dog"),
    }
    assert layout.unused == ["extra/4.png", "train/5.png"]


def test_a_mask_is_found_by_its_path_without_extension():
    images = ["cat/1.jpg", "cat/2.x.jpg", "dog/1.jpg", "dog/noext"]
    masks = {"masks/cat/1.png": "cat/1.png", "masks/cat/2.x.gif": "cat/2.x.gif", "masks/dog/noext": "dog/noext"}
    assert match_masks(images, masks) == {
        "cat/1.jpg": "masks/cat/1.png",
        "cat/2.x.jpg": "masks/cat/2.x.gif",
        "dog/noext": "masks/dog/noext",
    }


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", "train Train TRAINING train_set training-set trainset seg_train train2017 train.images traindata"),
        ("val", "val valid validation Validation_Set dev dev-set development val_images"),
        ("test", "test TEST testing test_set testset seg_test Evaluation eval holdout"),
        ("unlabelled", "unlabelled Unlabeled unsupervised"),
        (None, "cat trains contest latest valley devil attest train_test data images set trainers evaluate_me"),
    ],
)
def test_names_of_parts(part: str | None, names: str):
    assert {name: part_of(name) for name in names.split()} == dict.fromkeys(names.split(), part)


def test_names_that_are_alike():
    assert alike("s", ("a", "b", "c")) == ()
    assert "A, a" in alike("s", ("A", "a", "b"))[0]
    for same in ("\u00c5 \u212b", "cafe\u0301 caf\u00e9"):
        with pytest.raises(DataError, match="form of their Unicode"):
            alike("s", same.split())
    with pytest.raises(DataError, match="spaces"):
        alike("s", ("a\u00a0b", "a b"))
