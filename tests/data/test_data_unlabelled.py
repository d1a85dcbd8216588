"""Further samples without labels beside vectors of features; those beside images are tested with folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repertoire.data import FeatureSet, load, load_unlabelled
from repertoire.errors import DataError


@pytest.fixture
def like(tmp_path: Path) -> FeatureSet:
    rows = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    np.savez(tmp_path / "labelled.npz", features=rows, labels=np.arange(40) % 2, classes=["cat", "dog"])
    train: FeatureSet = load(tmp_path / "labelled.npz").train
    return train


def test_a_file_of_features_loses_its_labels_and_keeps_its_content(like: FeatureSet, tmp_path: Path):
    rows = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    rows[3] = like.inputs([5])[0]
    np.savez(tmp_path / "more.npz", features=rows, labels=np.arange(9) % 3, names=[f"{i}.jpg" for i in range(9)])
    found = load_unlabelled(tmp_path / "more.npz", like=like)
    assert found.classes == like.classes
    assert found.labels.dtype == np.int64
    assert not found.known.any()
    np.testing.assert_array_equal(found.inputs(slice(None)), rows)
    assert found.names[3] == "3.jpg"
    # A copy of a labelled row is known by its content.
    assert np.flatnonzero(np.isin(found.keys, like.keys)).tolist() == [3]


def test_what_is_refused(like: FeatureSet, tmp_path: Path):
    np.savez(tmp_path / "wide.npz", features=np.zeros((3, 7), np.float32))
    with pytest.raises(DataError, match="7 features a row, and the data 6"):
        load_unlabelled(tmp_path / "wide.npz", like=like)
    with pytest.raises(DataError, match=r"is a folder, and the data holds vectors: .*repertoire embed"):
        load_unlabelled(tmp_path, like=like)
    with pytest.raises(DataError):
        load_unlabelled(tmp_path / "missing.npz", like=like)
