"""NumPy archives: what is accepted, and what is refused with which words."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repertoire.data import _archive
from repertoire.data._npz import npz
from repertoire.data._source import SourceRequest
from repertoire.data._types import Splits
from repertoire.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3


def read(folder: Path, request: SourceRequest | None = None, **arrays: Any) -> Splits:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return npz(request or SourceRequest(), path)


def test_images_and_labels(tmp_path: Path) -> None:
    splits = read(tmp_path, images=PIXELS, labels=LABELS)
    assert splits.source == "data.npz"
    assert splits.classes == ("0", "1", "2")
    seen = []
    for part in (splits.train, splits.val, splits.test):
        rows = np.array([int(name) for name in part.names])
        np.testing.assert_array_equal(part.pixels(slice(None)), PIXELS[rows])
        np.testing.assert_array_equal(part.labels, LABELS[rows])
        seen.append(rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(60))


def test_splits_do_not_depend_on_the_order(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(60)
    left = read(tmp_path, images=PIXELS, labels=LABELS)
    right = read(tmp_path, images=PIXELS[order], labels=LABELS[order])
    assert set(left.test.keys.tolist()) == set(right.test.keys.tolist())


def test_grey_and_floats(tmp_path: Path) -> None:
    whole = read(tmp_path, images=PIXELS, labels=LABELS)
    for dtype in (np.float32, np.float64):
        floats = read(tmp_path, images=(PIXELS / 255).astype(dtype), labels=LABELS)
        np.testing.assert_array_equal(np.sort(floats.train.keys), np.sort(whole.train.keys))
    grey = read(tmp_path, images=PIXELS[..., 0], labels=LABELS)
    assert grey.train.channels == 1
    assert read(tmp_path, images=PIXELS[..., :1], labels=LABELS).train.size == (8, 8)


def test_given_parts(tmp_path: Path) -> None:
    splits = read(
        tmp_path,
        images_train=PIXELS[:40],
        labels_train=LABELS[:40],
        images_test=PIXELS[40:],
        labels_test=LABELS[40:],
    )
    np.testing.assert_array_equal(splits.test.pixels(slice(None)), PIXELS[40:])
    assert len(splits.train) + len(splits.val) == 40
    assert len(splits.val) > 0
    full = read(
        tmp_path,
        images_train=PIXELS[:30],
        labels_train=LABELS[:30],
        images_val=PIXELS[30:40],
        labels_val=LABELS[30:40],
        images_test=PIXELS[40:],
        labels_test=LABELS[40:],
    )
    assert [len(part) for part in (full.train, full.val, full.test)] == [30, 10, 20]


def test_class_names(tmp_path: Path) -> None:
    names = np.array(["cat", "dog", "ape"])
    assert read(tmp_path, images=PIXELS, labels=LABELS, classes=names).classes == ("cat", "dog", "ape")
    spelled = read(tmp_path, images=PIXELS, labels=names[LABELS])
    assert spelled.classes == ("ape", "cat", "dog")
    for part in (spelled.train, spelled.test):
        rows = [int(name) for name in part.names]
        assert [spelled.classes[label] for label in part.labels] == names[LABELS[rows]].tolist()
    both = read(tmp_path, images=PIXELS, labels=names[LABELS], classes=names)
    assert both.classes == ("cat", "dog", "ape")
    for part in (both.train, both.test):
        np.testing.assert_array_equal(part.labels, LABELS[[int(name) for name in part.names]])


@pytest.mark.parametrize(("fit", "shape"), [("crop", (8, 12)), ("pad", (12, 8)), ("squash", (8, 12))])
def test_images_become_square_of_the_size_asked_for(tmp_path: Path, fit: Any, shape: tuple[int, int]) -> None:
    images = np.full((60, *shape, 3), 200, dtype=np.uint8)
    images[..., 0] = np.arange(60)[:, None, None]
    assert read(tmp_path, SourceRequest(fit=fit), images=images, labels=LABELS).train.size == (8, 8)
    splits = read(tmp_path, SourceRequest(size=16, fit=fit), images=images, labels=LABELS)
    pixels = splits.train.pixels(slice(None))
    assert pixels.shape[1:] == (16, 16, 3)
    black = (pixels[..., 1] == 0).mean()
    assert (0.2 < black < 0.4) if fit == "pad" else black == 0
    centre = pixels[:, 8, 8]
    np.testing.assert_array_equal(centre[:, 0], [int(name) for name in splits.train.names])
    assert (centre[:, 1] == 200).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, "lacks labels; it holds images"),
        ({"labels": LABELS}, "lacks images; it holds labels"),
        ({"a": PIXELS, "b": LABELS}, "lacks images; it holds a, b"),
        ({"images_test": PIXELS, "labels_test": LABELS}, "lacks images_train; it holds images_test"),
        ({"images_train": PIXELS, "labels_train": LABELS, "images_val": PIXELS}, "lacks labels_val"),
        ({"images": PIXELS, "labels": LABELS[:50]}, "60 images, and labels 50 labels"),
        ({"images": PIXELS[0, 0], "labels": LABELS[:8]}, r"found \[8, 3\]"),
        ({"images": PIXELS[..., :2], "labels": LABELS}, "C 1 or 3"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, r"found \[0, 8, 8, 3\]"),
        ({"images": PIXELS.astype(int), "labels": LABELS}, "must be uint8, or float"),
        ({"images": PIXELS.astype(float), "labels": LABELS}, r"in \[0, 1\]; found 0 to 255"),
        ({"images": PIXELS * np.nan, "labels": LABELS}, "found nan to nan"),
        ({"images": PIXELS, "labels": LABELS[:, None, None]}, r"integers or class names.*found int64 \[60, 1, 1\]"),
        ({"images": PIXELS, "labels": LABELS * 1j}, "integers or class names"),
        ({"images": PIXELS, "labels": LABELS[:, None] * [1, 1]}, r"must be 0 and 1.*found 0 to 2"),
        ({"images": PIXELS, "labels": LABELS / 0.0}, "infinite"),
        ({"images": PIXELS, "labels": LABELS - 2}, "from 0, or -1 for none; found -2"),
        ({"images": PIXELS, "labels": LABELS.astype(np.uint64) + np.uint64(2**63)}, r"found more than 2\*\*63"),
        ({"images": PIXELS, "labels": LABELS, "names": LABELS}, r"names must be text, \[60\]; found int64"),
        ({"images": PIXELS, "labels": LABELS, "group": LABELS[1:]}, r"group must be \[60\].*found \[59\]"),
        ({"images": PIXELS, "labels": LABELS, "split": LABELS + 1}, "split holds 3; expected train, val or test"),
        ({"images": PIXELS, "labels": LABELS, "split": LABELS * 0 + 1}, "nothing to train on"),
        ({"images": PIXELS, "labels": LABELS, "classes": np.array(["a", "b"])}, "from 0 to 1, or -1 for none; found 2"),
        ({"images": PIXELS, "labels": LABELS, "classes": np.array(["a", "b", "a"])}, "classes must be different"),
        ({"images": PIXELS, "labels": LABELS, "classes": LABELS[:3]}, "classes must be different names"),
        (
            {"images": PIXELS, "labels": np.array(["a", "z"])[LABELS % 2], "classes": np.array(["a"])},
            "not in classes: z",
        ),
        ({"images": PIXELS, "labels": LABELS.astype(object)}, "labels is an array of Python objects"),
        (
            {"images_train": PIXELS, "labels_train": LABELS, "images_test": PIXELS[:, :6, :6], "labels_test": LABELS},
            r"images_test are \[6, 6, 3\] each, and images_train \[8, 8, 3\]",
        ),
        (
            {"images_train": PIXELS, "labels_train": LABELS, "images_test": PIXELS, "labels_test": LABELS.astype(str)},
            "integers in all parts, or class names in all parts",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, **arrays)
    assert "data.npz" in str(caught.value)


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        npz(SourceRequest(), tmp_path / "none.npz")
    text = tmp_path / "text.npz"
    text.write_bytes(b"hello")
    with pytest.raises(DataError, match=r"text\.npz is not a readable"):
        npz(SourceRequest(), text)
    text.write_bytes(b"")
    with pytest.raises(DataError, match=r"text\.npz is not a readable"):
        npz(SourceRequest(), text)
    single = tmp_path / "single.npy"
    np.save(single, PIXELS)
    with pytest.raises(DataError, match="single array"):
        npz(SourceRequest(), single)
    with pytest.raises(DataError, match="there is no file"):
        npz(SourceRequest(), tmp_path)


def test_an_archive_cut_short_at_any_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=PIXELS, labels=LABELS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="not a readable"):
            npz(SourceRequest(), path)
    broken = bytearray(whole)
    broken[2000] ^= 255
    path.write_bytes(bytes(broken))
    with pytest.raises(DataError, match="not a readable"):
        npz(SourceRequest(), path)


def test_masks_follow_their_images(tmp_path: Path) -> None:
    masks = PIXELS[..., 0] > 100
    for given in (masks, masks.astype(np.uint8), masks * 255.0):
        splits = read(tmp_path, images=PIXELS, labels=LABELS, masks=given)
        for part in (splits.train, splits.val, splits.test):
            np.testing.assert_array_equal(part.object_masks(slice(None)), part.pixels(slice(None))[..., 0] > 100)
    # Images that show their masks, cut and enlarged: both stay the same.
    wide = np.random.default_rng(1).random((60, 8, 12)) < 0.4
    splits = read(
        tmp_path, SourceRequest(size=16), images=wide.astype(np.uint8) * np.uint8(255), labels=LABELS, masks=wide
    )
    np.testing.assert_array_equal(splits.test.object_masks([0]), splits.test.pixels([0])[..., 0] > 127)
    assert read(tmp_path, images=PIXELS, labels=LABELS).train.masks is None


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"masks must be bool or numbers, \[60, 8, 8\] like the images"):
        read(tmp_path, images=PIXELS, labels=LABELS, masks=np.zeros((60, 4, 4), dtype=bool))
    with pytest.raises(DataError, match="lacks masks_test; give every part"):
        read(
            tmp_path,
            images_train=PIXELS[:40],
            labels_train=LABELS[:40],
            masks_train=np.zeros((40, 8, 8), dtype=bool),
            images_test=PIXELS[40:],
            labels_test=LABELS[40:],
        )


def test_integers_that_are_identities(tmp_path: Path) -> None:
    """One label of 10**8 is one class, not 10**8 of them."""
    for ids in (np.array([7, 10**8, 3]), np.array([7, 10**8, 3], dtype=np.uint64)):
        splits = read(tmp_path, images=PIXELS, labels=ids[LABELS])
        assert splits.classes == ("3", "7", "100000000")
        for part in (splits.train, splits.val, splits.test):
            rows = [int(name) for name in part.names]
            assert [int(splits.classes[label]) for label in part.labels] == ids[LABELS[rows]].tolist()


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", member.getvalue() + b"few bytes")
        archive.writestr("labels.npy", b"")
    with pytest.raises(DataError, match=r"64,000,000,000,000 bytes, and 9 follow"):
        npz(SourceRequest(), path)


@pytest.mark.parametrize(
    ("images", "labels"), [("x_train", "y_train"), ("train_images", "train_labels"), ("X-Train", "Y-Train")]
)
def test_other_names_of_arrays(tmp_path: Path, images: str, labels: str) -> None:
    test = {
        name.lower().replace("train", "test"): values for name, values in ((images, PIXELS[:30]), (labels, LABELS[:30]))
    }
    splits = read(tmp_path, **{images: PIXELS, labels: LABELS[:, None]}, **test)
    assert (len(splits.test), len(splits.train) + len(splits.val)) == (30, 60)


def test_several_labels_numbers_and_votes(tmp_path: Path) -> None:
    several = np.stack([LABELS == 0, LABELS > 0], axis=1).astype(np.int64)
    several[3] = -1
    splits = read(tmp_path, images=PIXELS, labels=several, classes=np.array(["none", "some"]))
    assert (splits.kind, splits.classes, splits.train.labels.dtype) == ("labels", ("none", "some"), np.uint8)
    rows = [int(name) for name in splits.train.names]
    assert (splits.train.labels == np.where(several == -1, 255, several)[rows]).all()
    numbers = LABELS + 0.5
    splits = read(tmp_path, images=PIXELS, labels=numbers)
    assert (splits.kind, splits.classes, splits.train.labels.shape[1]) == ("number", ("number",), 1)
    assert (splits.test.labels[:, 0] == numbers[[int(name) for name in splits.test.names]].astype(np.float32)).all()
    votes = np.stack([LABELS, (LABELS + 1) % 3, np.full(60, -1)], axis=1)
    splits = read(tmp_path, images=PIXELS, votes=votes)
    assert (splits.kind, splits.classes) == ("votes", ("0", "1", "2"))
    assert (splits.val.labels == votes[[int(name) for name in splits.val.names]]).all()


def test_names_split_and_group(tmp_path: Path) -> None:
    names = np.array([f"image {number}" for number in range(60)])
    group = np.array([f"patient {number // 5}" for number in range(60)])
    splits = read(tmp_path, images=PIXELS, labels=LABELS, names=names, group=group)
    assert set(splits.train.names) <= set(names)
    sides = [set(part.factors["group"].tolist()) for part in (splits.train, splits.val, splits.test)]
    assert sum(map(len, sides)) == 12
    assert splits.train.factors["group"].dtype == np.int64
    for split in (np.array(["train"] * 40 + ["Testing"] * 20), np.array([0] * 40 + [2] * 20)):
        splits = read(tmp_path, images=PIXELS, labels=LABELS, split=split)
        assert splits.test.names == [str(number) for number in range(40, 60)]
        assert len(splits.train) + len(splits.val) == 40


def test_without_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks labels; it holds images.*Methods without labels") as caught:
        read(tmp_path, images=PIXELS)
    assert "method='simclr'" in str(caught.value)
    for arrays in ({"images": PIXELS}, {"images": PIXELS, "labels": np.full(60, -1)}):
        splits = read(tmp_path, SourceRequest(unlabelled=True), **arrays)
        assert (splits.train.labels == -1).all()
        assert [len(splits.train), len(splits.val), len(splits.test)] == [42, 6, 12]
    with pytest.raises(DataError, match=r"has 0 classes"):
        read(tmp_path, images=PIXELS, labels=np.full(60, -1))


def test_large_arrays_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archive, "_MAP_BYTES", 1000)
    splits = read(tmp_path, images=PIXELS, labels=LABELS)
    assert isinstance(splits.train.images, np.memmap)
    assert not splits.train.images.flags.writeable
    rows = [int(name) for name in splits.train.names]
    np.testing.assert_array_equal(splits.train.pixels(slice(None)), PIXELS[rows])
    fortran = read(tmp_path, images=np.asfortranarray(PIXELS), labels=LABELS)
    np.testing.assert_array_equal(fortran.train.pixels(slice(None)), PIXELS[rows])
    path = tmp_path / "compressed.npz"
    np.savez_compressed(path, images=PIXELS, labels=LABELS)
    np.testing.assert_array_equal(npz(SourceRequest(), path).train.pixels(slice(None)), PIXELS[rows])
