"""Features as data: what a file of vectors may hold, what is refused, and that large ones stay where they are."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from repertoire.data import FeatureSet, SourceRequest, Splits, _archive, features, load
from repertoire.errors import ConfigError, DataError

VECTORS = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
LABELS = np.arange(60) % 3


def read(folder: Path, request: SourceRequest | None = None, **arrays: Any) -> Splits:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return features(request or SourceRequest(), path)


def rows(samples: FeatureSet) -> list[int]:
    return [int(name) for name in samples.names]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_vectors_and_labels(tmp_path: Path, dtype: Any):
    values = VECTORS.astype(dtype)
    splits = read(tmp_path, features=values, labels=LABELS, classes=np.array(["a", "b", "c"]))
    assert (splits.classes, splits.augmentation, splits.source) == (("a", "b", "c"), "none", "data.npz")
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [42, 6, 12]
    for part in (splits.train, splits.val, splits.test):
        assert isinstance(part, FeatureSet)
        assert part.shape == (5,)
        assert part.features.dtype == (np.float16 if dtype == np.float16 else np.float32)
        assert (part.inputs(slice(None)) == values[rows(part)].astype(part.features.dtype)).all()
        assert (part.labels == LABELS[rows(part)]).all()


def test_the_same_door(tmp_path: Path):
    np.savez(tmp_path / "a.npz", features=VECTORS, labels=LABELS)
    np.savez(tmp_path / "b.npz", X=VECTORS, y=LABELS)
    np.savez(tmp_path / "c.npz", train_features=VECTORS, train_labels=LABELS, test_features=VECTORS, test_labels=LABELS)
    for name in ("a.npz", "b.npz", "c.npz"):
        assert isinstance(load(tmp_path / name).train, FeatureSet)
    assert len(load(tmp_path / "c.npz").test) == 60
    assert any("54 of 60 test vectors are copies" in note for note in load(tmp_path / "c.npz").notes)
    with pytest.raises(ConfigError, match="size is for images"):
        load(tmp_path / "a.npz", size=32)


def test_copies_stay_together(tmp_path: Path):
    splits = read(tmp_path, features=np.tile(VECTORS[:30], (2, 1)), labels=np.tile(LABELS[:30], 2))
    sides = [{row % 30 for row in rows(part)} for part in (splits.train, splits.val, splits.test)]
    assert sum(map(len, sides)) == 30


def test_names_parts_groups_and_no_label(tmp_path: Path):
    names = np.array([str(number) for number in range(60)])
    labels = np.where(LABELS == 2, -1, LABELS)
    splits = read(tmp_path, features=VECTORS, labels=labels, names=names, group=np.arange(60) // 6)
    assert len(splits.extra["unlabelled"]) == (splits.train.labels == -1).sum() > 0
    assert not set(splits.train.factors["group"]) & set(splits.test.factors["group"])
    split = np.array(["train"] * 30 + ["val"] * 10 + ["test"] * 20)
    splits = read(tmp_path, features=VECTORS, labels=LABELS, split=split)
    assert rows(splits.val) == list(range(30, 40))
    assert rows(splits.test) == list(range(40, 60))
    with pytest.raises(DataError, match="lacks labels"):
        read(tmp_path, features=VECTORS)
    assert (read(tmp_path, SourceRequest(unlabelled=True), features=VECTORS).train.labels == -1).all()


def test_numbers_and_several_labels(tmp_path: Path):
    assert read(tmp_path, features=VECTORS, labels=VECTORS[:, :2]).kind == "number"
    assert read(tmp_path, features=VECTORS, labels=(VECTORS[:, :2] > 0)).kind == "labels"


def changed(value: float) -> np.ndarray:
    values = VECTORS.copy()
    values[50, 3] = value
    return values


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": changed(np.nan), "labels": LABELS}, "not finite, first in row 50"),
        ({"features": changed(np.inf), "labels": LABELS}, "not finite, first in row 50"),
        ({"features": VECTORS.astype(np.float64) * 1e300, "labels": LABELS}, "too large for float32"),
        ({"features": VECTORS.astype(np.int64), "labels": LABELS}, "must be float16 or float32, .*found int64"),
        ({"features": VECTORS.astype(object), "labels": LABELS}, "features is an array of Python objects"),
        ({"features": VECTORS[:, 0], "labels": LABELS}, r"found float32 \[60\]"),
        ({"features": VECTORS[:, :0], "labels": LABELS}, r"found float32 \[60, 0\]"),
        ({"features": VECTORS, "labels": LABELS[:50]}, "has 60 features, and labels 50 labels"),
        ({"features": VECTORS, "labels": np.zeros(60, int)}, "has 1 class: 0; a classifier needs at least two"),
        (
            {"features_train": VECTORS, "labels_train": LABELS, "features_test": VECTORS[:, :4], "labels_test": LABELS},
            r"have \[4, 5\] columns",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str):
    with pytest.raises(DataError, match=message):
        read(tmp_path, **arrays)


def test_safetensors(tmp_path: Path):
    path = tmp_path / "features.safetensors"
    split = ["train"] * 40 + ["test"] * 20
    words = {"classes": json.dumps(["a", "b", "c"]), "split": json.dumps(split), "format": "pt"}
    save_file({"features": VECTORS.astype(np.float16), "labels": LABELS}, path, metadata=words)
    splits = load(path)
    assert splits.classes == ("a", "b", "c")
    assert rows(splits.test) == list(range(40, 60))
    assert (splits.test.features[splits.test.rows] == VECTORS[40:].astype(np.float16)).all()


@pytest.mark.parametrize("change", ["cut", "header", "shape", "words", "type", "empty"])
def test_safetensors_that_are_damaged(tmp_path: Path, change: str):
    path = tmp_path / "features.safetensors"
    save_file({"features": VECTORS, "labels": LABELS}, path)
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    if change == "shape":
        header["features"]["shape"] = [10**12, 5]
    if change == "type":
        header["features"]["dtype"] = "F8_E4M3"
    text = json.dumps(header).encode()
    damaged = {
        "cut": whole[: -9000 if len(whole) > 9000 else -700],
        "header": struct.pack("<Q", 2**60) + whole[8:],
        "words": whole[:8] + b"x" * length + whole[8 + length :],
        "empty": b"",
    }.get(change, struct.pack("<Q", len(text)) + text + whole[8 + length :])
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"is not a readable \.safetensors file"):
        load(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_large_features_stay_in_their_file(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_archive, "_MAP_BYTES", 1000)
    path = tmp_path / f"features{suffix}"
    if suffix == ".npz":
        np.savez(path, features=VECTORS, labels=LABELS)
    else:
        save_file({"features": VECTORS, "labels": LABELS}, path)
    splits = load(path)
    assert isinstance(splits.train.features, np.memmap)
    assert np.shares_memory(splits.train.features, splits.test.features)
    assert (splits.test.inputs(slice(None)) == VECTORS[rows(splits.test)]).all()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@given(st.integers(0, 3000), st.integers(0, 255), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_is_no_traceback(tmp_path: Path, suffix: str, place: int, value: int, at_the_end: bool):
    path = tmp_path / f"data{suffix}"
    if suffix == ".npz":
        np.savez(path, features=VECTORS, labels=LABELS)
    else:
        save_file({"features": VECTORS, "labels": LABELS}, path)
    data = bytearray(path.read_bytes())
    place = place % len(data)
    data[-1 - place if at_the_end else place] = value
    path.write_bytes(data)
    with suppress(DataError):
        features(SourceRequest(), path)
