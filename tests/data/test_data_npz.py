"""NumPy archives: what is accepted, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
        ({"x": PIXELS, "y": LABELS}, "lacks images, labels; it holds x, y"),
        ({"images_test": PIXELS, "labels_test": LABELS}, "lacks images_train, labels_train; it holds images_test"),
        ({"images_train": PIXELS, "labels_train": LABELS, "images_val": PIXELS}, "lacks labels_val"),
        ({"images": PIXELS, "labels": LABELS[:50]}, "60 images, and labels 50 labels"),
        ({"images": PIXELS[0, 0], "labels": LABELS[:8]}, r"found \[8, 3\]"),
        ({"images": PIXELS[..., :2], "labels": LABELS}, "C 1 or 3"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, r"found \[0, 8, 8, 3\]"),
        ({"images": PIXELS.astype(int), "labels": LABELS}, "must be uint8, or float"),
        ({"images": PIXELS.astype(float), "labels": LABELS}, r"in \[0, 1\]; found 0 to 255"),
        ({"images": PIXELS * np.nan, "labels": LABELS}, "found nan to nan"),
        ({"images": PIXELS, "labels": LABELS[:, None]}, r"found int64 \[60, 1\]"),
        ({"images": PIXELS, "labels": LABELS / 2}, "integers or class names"),
        ({"images": PIXELS, "labels": LABELS - 2}, "from 0 to 0, or -1 for none; found -2"),
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
    with pytest.raises(DataError, match="not a readable"):
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
