from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire.data import FeatureSet, from_memory, load
from repertoire.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
NAMES = ["even", "odd"] * 20


def test_arrays_are_split_as_their_file_would_be(tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=np.array(NAMES))
    stored, found = load(tmp_path / "a.npz", seed=3), from_memory(PIXELS, NAMES, seed=3)
    for part in ("train", "val", "test"):
        a, b = getattr(stored, part), getattr(found, part)
        np.testing.assert_array_equal(a.keys, b.keys)
        np.testing.assert_array_equal(a.labels, b.labels)
    assert found.classes == ("even", "odd")


@pytest.mark.parametrize(
    "images",
    [torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.from_numpy(PIXELS / 255.0).permute(0, 3, 1, 2), PIXELS / 255],
)
def test_forms_of_the_same_images_are_the_same_images(images):
    np.testing.assert_array_equal(from_memory(images, NAMES).train.keys, from_memory(PIXELS, NAMES).train.keys)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [(np.arange(40) % 3, "classes"), (torch.arange(40) % 3, "classes"), (np.array(NAMES, dtype=object), "classes"),
     (np.linspace(0, 1, 40), "number"), (np.eye(4, dtype=int)[np.arange(40) % 4], "labels")],
)  # fmt: skip
def test_labels_of_every_kind(labels, kind):
    assert from_memory(PIXELS, labels).kind == kind


def test_features_and_sets():
    x = np.random.default_rng(0).normal(size=(40, 5))
    splits = from_memory(x, NAMES)
    assert isinstance(splits.train, FeatureSet)
    again = from_memory(splits.train)
    assert len(again.train) + len(again.val) + len(again.test) == len(splits.train)
    with pytest.raises(DataError, match="labels of its own"):
        from_memory(splits.train, NAMES)


@pytest.mark.parametrize(
    ("samples", "labels", "message"),
    [
        (np.zeros(40), NAMES, r"found float64 \[40\]"),
        (PIXELS, NAMES[:-1], "40 images, and labels 39 labels"),
        (PIXELS, [None] * 40, "labels must be text or numbers"),
        (PIXELS * 2.0, NAMES, "must be in"),
        ([[1.0], [2.0, 3.0]], [0, 1], "do not form an array"),
        (np.full((40, 3), np.nan), NAMES, "not finite"),
        (PIXELS, ["one"] * 40, "one class|1 class"),
        (PIXELS, None, "lacks labels"),
    ],
)
def test_what_does_not_fit_is_refused(samples, labels, message):
    with pytest.raises(DataError, match=message):
        from_memory(samples, labels)
