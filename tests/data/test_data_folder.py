from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from repertoire.data import SourceRequest, Splits, read_images
from repertoire.data._folder import folder, load_folder_set
from repertoire.data._walk import find_images, walk
from repertoire.errors import ConfigError, DataError, UnreadableImages
from repertoire.registry import build

COLOURS = {"cat": (250, 0, 0), "dog": (0, 250, 0), "eel": (0, 0, 250)}


def photograph(path: Path, label: str, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    """An image that has the colour of its class on average, and differs from all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 6, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise + np.array(COLOURS[label], dtype=np.uint8)).save(path, "PNG")


def photographs(root: Path, labels: tuple[str, ...] = ("cat", "dog"), each: int = 10, seed: int = 0) -> Path:
    for position, label in enumerate(labels):
        for number in range(each):
            photograph(root / label / f"{number}.png", label, seed + 1000 * position + number)
    return root


def opened(root: Path, **request: Any) -> Splits:
    return folder(SourceRequest(**request), root)


def check_labels(splits: Splits) -> None:
    """Every image has the colour of its class."""
    for part in (splits.train, splits.val, splits.test):
        expected = np.array([COLOURS[name] for name in part.classes])[part.labels]
        means = part.pixels(np.arange(len(part))).reshape(len(part), -1, 3).mean(axis=1)
        assert abs(means - expected).max() < 6


def test_a_directory_for_each_class(tmp_path: Path):
    splits = opened(photographs(tmp_path / "photos"))
    assert splits.classes == ("cat", "dog")
    assert splits.source == "photos"
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [14, 2, 4]
    assert splits.train.size == (8, 8)
    assert {name.split("/")[0] for name in splits.val.names} == {"cat", "dog"}
    check_labels(splits)


def test_directories_in_a_class_belong_to_it(tmp_path: Path):
    root = photographs(tmp_path)
    photograph(root / "cat" / "2024" / "may" / "1.png", "cat", 77)
    splits = opened(root)
    assert sum(part.counts()[0] for part in (splits.train, splits.val, splits.test)) == 11
    check_labels(splits)


@pytest.mark.parametrize("val", ["val", "valid", "validation", None])
def test_parts_of_the_folder_are_used(tmp_path: Path, val: str | None):
    photographs(tmp_path / "train", each=10)
    photographs(tmp_path / "test", each=3, seed=5000)
    if val is not None:
        photographs(tmp_path / val, each=2, seed=9000)
    splits = opened(tmp_path)
    assert all(name.startswith("test/") for name in splits.test.names)
    assert [len(splits.val), len(splits.test)] == [4 if val else 2, 6]
    check_labels(splits)


def test_the_splits_do_not_depend_on_names_or_place(tmp_path: Path):
    root = photographs(tmp_path / "a")
    other = tmp_path / "b"
    for label in ("cat", "dog"):
        (other / label).mkdir(parents=True)
        for number, name in enumerate(sorted(os.listdir(root / label), reverse=True)):
            shutil.copy(root / label / name, other / label / f"renamed {number}")
    for part in ("train", "val", "test"):
        first, second = (getattr(opened(path), part) for path in (root, other))
        assert set(first.keys.tolist()) == set(second.keys.tolist())


def test_train_may_be_a_class(tmp_path: Path):
    photographs(tmp_path, ("cat", "dog"))
    (tmp_path / "dog").rename(tmp_path / "train")
    assert opened(tmp_path).classes == ("cat", "train")


def test_the_natural_size(tmp_path: Path):
    root = photographs(tmp_path)
    assert opened(root).train.size == (8, 8)
    photograph(root / "cat" / "large.png", "cat", 9, (300, 200))
    assert opened(root).train.size == (128, 128)
    assert opened(root, photographs=160).train.size == (160, 160)
    assert opened(root, size=20).train.size == (20, 20)
    oblong = tmp_path / "oblong"
    for label in ("cat", "dog"):
        for number in range(4):
            photograph(oblong / label / f"{number}.png", label, number, (40, 30))
    assert opened(oblong).train.size == (30, 30)
    with pytest.raises(ConfigError, match="size"):
        opened(root, size=0)


def test_what_is_no_image_is_ignored_and_noted(tmp_path: Path):
    root = photographs(tmp_path)
    for name in ("labels.csv", "cat/Thumbs.db", "cat/.DS_Store", "dog/notes.TXT", ".git/config", "dog/.hidden.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    photograph(root / "loose.png", "cat", 12345)
    (root / "empty").mkdir()
    splits = opened(root)
    notes = " ".join(splits.notes)
    assert "6 files not taken for images: 1 .csv, 1 .txt, 4 hidden or left by a system." in notes
    assert "Images outside the directories of classes were not used: 1 (loose.png)." in notes
    assert splits.classes == ("cat", "dog")


def test_all_unusable_images_are_named_at_once(tmp_path: Path):
    root = photographs(tmp_path)
    (root / "cat" / "truncated.png").write_bytes((root / "cat" / "0.png").read_bytes()[:60])
    (root / "cat" / "zero.jpg").touch()
    (root / "dog" / "text.jpg").write_text("no image")
    (root / "dog" / "new\nline").symlink_to("nowhere")
    with pytest.raises(UnreadableImages) as caught:
        opened(root)
    assert caught.value.total == 24
    assert {os.path.relpath(f.path, root): f.reason for f in caught.value.failures} == {
        "cat/truncated.png": "is truncated",
        "cat/zero.jpg": "is empty (0 bytes)",
        "dog/text.jpg": "is not an image, or of a format that is not supported",
        "dog/new\nline": "does not exist, or is a link to something that does not",
    }
    splits = opened(root, skip_unreadable=True)
    assert splits.skipped == caught.value.failures
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 20
    check_labels(splits)


def test_a_png_named_jpg_is_an_image(tmp_path: Path):
    root = photographs(tmp_path)
    (root / "cat" / "0.png").rename(root / "cat" / "0.jpg")
    assert "cat/0.jpg" in {name for part in ("train", "val", "test") for name in getattr(opened(root), part).names}


def test_images_of_all_kinds(tmp_path: Path):
    root = photographs(tmp_path, each=6)
    image = Image.open(root / "cat" / "0.png").convert("RGB")
    image.convert("CMYK").save(root / "cat" / "cmyk.jpg", quality=95)
    image.convert("P").save(root / "cat" / "palette.gif")
    image.convert("RGBA").save(root / "cat" / "alpha.webp", lossless=True)
    splits = opened(root)
    assert sum(part.counts()[0] for part in (splits.train, splits.val, splits.test)) == 9
    assert splits.train.channels == 3


@pytest.mark.parametrize(
    "name", ["a b", 'it\'s "quoted"', "new\nline", "<script>alert(1)", "図形 ü", "\udcff\udcfe", "-rf", "%s{}"]
)
def test_names_are_only_names(tmp_path: Path, name: str):
    root = photographs(tmp_path / "root")
    (root / "cat").rename(root / name)
    (root / name / "0.png").rename(root / name / f"{name}.png")
    splits = opened(root)
    assert set(splits.classes) == {name, "dog"}


def test_links_are_followed_and_circles_end(tmp_path: Path):
    root = photographs(tmp_path / "root")
    elsewhere = photographs(tmp_path / "elsewhere", ("eel",))
    (root / "eel").symlink_to(elsewhere / "eel")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "self").symlink_to(root / "cat")
    (root / "dog" / "turn.png").symlink_to("turn.png")
    with pytest.raises(UnreadableImages, match=r"turn\.png: is a link that leads back to itself") as caught:
        opened(root)
    assert len(caught.value.failures) == 1
    splits = opened(root, skip_unreadable=True)
    assert splits.classes == ("cat", "dog", "eel")
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 30


def test_a_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = photographs(tmp_path)
    (root / "cat" / "locked").mkdir()
    original = os.scandir

    def refuse(path: str | int) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UnreadableImages, match=r"locked: may not be read \(permission denied\)"):
        opened(root)
    with pytest.raises(DataError, match="locked may not be read"):
        find_images(root)


def test_an_empty_folder(tmp_path: Path):
    with pytest.raises(DataError, match="has no images; expected a directory for each class"):
        opened(tmp_path)
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(DataError, match=r"1 file not taken for images: 1 \.txt"):
        opened(tmp_path)


def test_no_folder(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        opened(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        opened(tmp_path / "file")


def test_images_without_directories(tmp_path: Path):
    photograph(tmp_path / "1.png", "cat", 0)
    with pytest.raises(DataError, match="has images, but no directories; expected one for each class"):
        opened(tmp_path)


def test_one_class(tmp_path: Path):
    with pytest.raises(DataError, match="has one class, cat; a classifier needs at least two"):
        opened(photographs(tmp_path, ("cat",)))


def test_a_class_with_one_image(tmp_path: Path):
    root = photographs(tmp_path)
    photograph(root / "eel" / "1.png", "eel", 0)
    with pytest.raises(DataError, match=r"too few different images.*eel \(1\)"):
        opened(root)


def test_a_test_set_with_an_unknown_class(tmp_path: Path):
    photographs(tmp_path / "train")
    photographs(tmp_path / "test", ("cat", "eel"), each=2, seed=50)
    (tmp_path / "test" / "eel").rename(tmp_path / "test" / "dogs")
    with pytest.raises(DataError, match=r"test images .* unknown class: dogs \(did you mean dog\?\); the classes"):
        opened(tmp_path)


def test_a_class_that_the_test_set_lacks_and_copies_are_noted(tmp_path: Path):
    photographs(tmp_path / "train")
    photographs(tmp_path / "test", ("cat",), each=3)
    notes = " ".join(opened(tmp_path).notes)
    assert "The test part has no image of dog." in notes
    assert "3 of 3 test images are copies of training images." in notes


def test_classes_from_outside(tmp_path: Path):
    root = photographs(tmp_path)
    splits = opened(root, classes=("dog", "cat"))
    assert splits.classes == ("dog", "cat")
    check_labels(splits)
    with pytest.raises(DataError, match="unknown class: dog"):
        opened(root, classes=("cat", "eel"))


def test_it_is_registered(tmp_path: Path):
    root = photographs(tmp_path / "root")
    splits = build("data", f"folder:{root}", request=SourceRequest(cache_dir=tmp_path / "cache"))
    assert splits.classes == ("cat", "dog")
    assert (tmp_path / "cache" / "decoded").is_dir()


def test_one_set_with_the_classes_of_a_model(tmp_path: Path):
    root = photographs(tmp_path, ("eel", "cat"), each=3)
    images = load_folder_set(root, classes=("eel", "dog", "cat"), size=6)
    assert images.classes == ("eel", "dog", "cat")
    assert images.counts().tolist() == [3, 0, 3]
    assert images.images.shape[1:] == (6, 6, 3)
    means = images.pixels(np.arange(6)).mean(axis=(1, 2))
    assert (means.argmax(axis=1) == np.array([2, 1, 0])[images.labels]).all()
    grey = load_folder_set(root, classes=("eel", "dog", "cat"), size=6, channels=1)
    assert grey.images.shape == (6, 6, 6, 1)
    luma = images.pixels(slice(None)) @ np.array([0.299, 0.587, 0.114])
    assert abs(grey.pixels(slice(None))[..., 0] - luma).max() <= 0.51


def test_errors_of_one_set(tmp_path: Path):
    root = photographs(tmp_path, ("cat", "dog"), each=2)
    with pytest.raises(DataError, match="unknown class: dog; the classes are cat, eel"):
        load_folder_set(root, classes=("cat", "eel"), size=8)
    with pytest.raises(DataError, match="no images in directories"):
        load_folder_set(root / "cat", classes=("cat", "dog"), size=8)
    with pytest.raises(ConfigError, match="channels"):
        load_folder_set(root, classes=("cat", "dog"), size=8, channels=2)
    (root / "dog" / "bad.png").touch()
    with pytest.raises(UnreadableImages):
        load_folder_set(root, classes=("cat", "dog"), size=8)
    assert len(load_folder_set(root, classes=("cat", "dog"), size=8, skip_unreadable=True)) == 4


def test_find_images(tmp_path: Path):
    root = photographs(tmp_path, each=1)
    (root / "b.txt").touch()
    photograph(root / "z.png", "cat", 3)
    assert find_images(root) == [root / "cat/0.png", root / "dog/0.png", root / "z.png"]
    assert walk(root).signatures["z.png"][0] == (root / "z.png").stat().st_size


def test_a_link_to_what_the_folder_lies_in_is_named_and_not_followed(tmp_path: Path) -> None:
    root = photographs(tmp_path / "outer" / "photos")
    (root / "round").symlink_to(tmp_path / "outer", target_is_directory=True)
    (root / "empty").mkdir()
    splits = opened(root)
    assert set(splits.classes) == {"cat", "dog"}
    assert any("links that lead round in a circle" in note for note in splits.notes)
    assert any("Empty folders: empty" in note for note in splits.notes)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", None, "Testing"),
        ("TRAIN", "Val", "TEST"),
        ("train_set", "dev_set", "test_set"),
        ("seg_train", None, "seg_test"),
        ("training", "validation", "testing"),
        ("train2017", "val2017", "test2017"),
    ],
)
def test_parts_by_all_their_usual_names(tmp_path: Path, train: str, val: str | None, test: str):
    photographs(tmp_path / train, each=10)
    photographs(tmp_path / test, each=3, seed=5000)
    if val is not None:
        photographs(tmp_path / val, each=2, seed=9000)
    splits = opened(tmp_path)
    assert splits.classes == ("cat", "dog")
    assert all(name.startswith(f"{test}/") for name in splits.test.names)
    assert [len(splits.val), len(splits.test)] == [4 if val else 2, 6]
    check_labels(splits)


def test_a_part_inside_a_folder_of_its_own_name(tmp_path: Path):
    photographs(tmp_path / "seg_train" / "seg_train")
    photographs(tmp_path / "seg_test" / "seg_test", each=3, seed=5000)
    photograph(tmp_path / "seg_pred" / "seg_pred" / "1.png", "cat", 7)
    splits = opened(tmp_path)
    assert splits.classes == ("cat", "dog")
    assert len(splits.test) == 6
    assert any("not used: 1 (seg_pred/seg_pred/1.png)" in note for note in splits.notes)


def test_classes_that_all_hold_the_same_directories(tmp_path: Path):
    for site in ("north", "south", "west", "east"):
        photographs(tmp_path / site, each=5, seed=hash(site) % 10**6)
    with pytest.raises(DataError, match=r"\(east, north, south, west\) all hold the same directories \(cat, dog\)"):
        opened(tmp_path)
    outer = build("data", f"folder:{tmp_path},layout=classes", request=SourceRequest())
    assert outer.classes == ("east", "north", "south", "west")
    inner = build("data", f"folder:{tmp_path},layout=groups", request=SourceRequest())
    assert inner.classes == ("cat", "dog")
    check_labels(inner)
    sides = [set(part.factors["group"].tolist()) for part in (inner.train, inner.val, inner.test)]
    assert sorted(map(len, sides)) == [1, 1, 2]
    with pytest.raises(ConfigError, match="layout"):
        build("data", f"folder:{tmp_path},layout=sites", request=SourceRequest())


def test_parts_that_are_not_known_are_not_silently_classes(tmp_path: Path):
    photographs(tmp_path / "learn")
    photographs(tmp_path / "exam", seed=500)
    with pytest.raises(DataError, match="are they parts, groups or classes"):
        opened(tmp_path)


def test_classes_below_a_single_directory(tmp_path: Path):
    photographs(tmp_path / "archive")
    with pytest.raises(DataError, match=r"has one class, archive.*if they are the classes, give .*/archive"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir",
        "#recycle",
        "@Recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "@__thumb",
        "#snapshot",
    ],
)
def test_what_network_storage_leaves(tmp_path: Path, name: str):
    root = photographs(tmp_path / "root")
    photographs(root / "cat" / name)
    photographs(root / name)
    (root / "dog" / "Icon\r").touch()
    splits = opened(root)
    assert splits.classes == ("cat", "dog")
    assert len(splits.train) + len(splits.val) + len(splits.test) == 20
    assert not any("copies" in note for note in splits.notes)
    assert any("3 hidden or left by a system" in note for note in splits.notes)


def test_class_directories_that_look_the_same(tmp_path: Path):
    root = photographs(tmp_path / "root")
    photographs(root / "Cat", ("cat",), seed=77)
    shutil.move(root / "Cat" / "cat", root / "moved")
    shutil.rmtree(root / "Cat")
    (root / "moved").rename(root / "Cat")
    assert any("differ in case only are taken for different ones: Cat, cat" in note for note in opened(root).notes)
    (root / "Cat").rename(root / "cat ")
    with pytest.raises(DataError, match="differ in spaces or in the form of their Unicode only: 'cat', 'cat '"):
        opened(root)


def test_two_classes_with_the_same_images(tmp_path: Path):
    root = photographs(tmp_path, ("cat",))
    shutil.copytree(root / "cat", root / "dog")
    with pytest.raises(DataError, match=r"cat \(10, all in other classes too\)"):
        opened(root)


def test_unlabelled_images_beside_the_classes(tmp_path: Path):
    root = photographs(tmp_path)
    for number in range(5):
        photograph(root / "Unlabelled" / "deep" / f"{number}.png", "eel", 900 + number)
    splits = opened(root)
    assert splits.classes == ("cat", "dog")
    unlabelled = splits.extra["unlabelled"]
    assert (unlabelled.labels == -1).all()
    assert sorted(unlabelled.names) == [f"Unlabelled/deep/{number}.png" for number in range(5)]
    assert (unlabelled.pixels(slice(None)).mean(axis=(1, 2)).argmax(1) == 2).all()
    assert (splits.train.labels >= 0).all()
    together = opened(root, unlabelled=True)
    assert (together.train.labels == -1).sum() == 5


def test_unlabelled_images_beside_divided_classes(tmp_path: Path):
    photographs(tmp_path / "train")
    photographs(tmp_path / "test", each=3, seed=5000)
    photograph(tmp_path / "unlabeled" / "1.png", "eel", 900)
    photograph(tmp_path / "train" / "unlabelled" / "2.png", "eel", 901)
    assert len(opened(tmp_path).extra["unlabelled"]) == 2


@pytest.mark.parametrize("where", [".", "holiday", "a/b"])
def test_a_folder_without_classes(tmp_path: Path, where: str):
    for number in range(20):
        photograph(tmp_path / where / f"{number}.png", "eel", number)
    with pytest.raises(DataError, match="method='simclr'"):
        opened(tmp_path)
    splits = opened(tmp_path, unlabelled=True)
    assert splits.classes == ()
    assert [len(splits.train), len(splits.val), len(splits.test)] == [14, 2, 4]
    assert (splits.train.labels == -1).all()
    assert len(opened(photographs(tmp_path / "classes"), unlabelled=True).classes) == 2, "labels that exist are kept"


def mask(path: Path, seed: int, size: tuple[int, int] = (8, 8), on: int = 255) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[seed % 4 : seed % 4 + 3, 1:6] = on
    Image.fromarray(pixels).save(path)
    return pixels > 0


@pytest.mark.parametrize("part", ["", "train/"])
def test_masks_beside_the_classes(tmp_path: Path, part: str):
    photographs(tmp_path / part)
    if part:
        photographs(tmp_path / "test", each=3, seed=5000)
    expected = {}
    for name in find_images(tmp_path):
        relative = name.relative_to(tmp_path)
        head, *rest = relative.parts if part else ("", *relative.parts)
        target = tmp_path / head / "masks" / Path(*rest).with_suffix(".bmp")
        expected[relative.as_posix()] = mask(target, len(expected), on=1 + len(expected) % 3)
    splits = opened(tmp_path)
    assert splits.classes == ("cat", "dog")
    for images in (splits.train, splits.val, splits.test):
        masks = images.object_masks(slice(None))
        assert masks.dtype == bool
        for position, name in enumerate(images.names):
            assert (masks[position] == expected[name]).all()
        assert (images.subset([1]).object_masks([0])[0] == expected[images.names[1]]).all()


def test_masks_that_are_not_whole(tmp_path: Path):
    root = photographs(tmp_path)
    for number in range(9):
        mask(root / "masks" / "cat" / f"{number}.png", number)
    with pytest.raises(DataError, match=r"images without a mask: 11 \(cat/9\.png, dog/0\.png"):
        opened(root)
    for name in find_images(root):
        if "masks" not in name.parts:
            mask(root / "masks" / name.relative_to(root), 1)
    mask(root / "masks" / "cat" / "extra.png", 1)
    photograph(root / "unlabelled" / "1.png", "eel", 1)
    splits = opened(root)
    assert "Masks that belong to no image were not used: 1 (masks/cat/extra.png)." in splits.notes
    assert not splits.extra["unlabelled"].object_masks([0]).any()
    mask(root / "masks" / "cat" / "0.png", 1, (8, 16))
    with pytest.raises(DataError, match=r"is 8 x 8 pixels, and its mask masks/cat/0\.png 8 x 16"):
        opened(root)
    (root / "masks" / "cat" / "0.png").write_text("x")
    with pytest.raises(UnreadableImages, match=r"has a mask, masks/cat/0\.png, which is not an image"):
        opened(root)


def test_a_mask_is_that_of_the_upright_image(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(20):
        file = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 8), (10 * number, 0, 0)).save(file, exif=exif)
        mask(tmp_path / "masks" / file.relative_to(tmp_path).with_suffix(".png"), number, (8, 16))
    assert opened(tmp_path, fit="squash", size=8).train.object_masks([0]).any()
    mask(tmp_path / "masks" / "a" / "0.png", 0, (16, 8))
    with pytest.raises(DataError, match=r"is 8 x 16 pixels, and its mask .* 16 x 8"):
        opened(tmp_path)


def test_masks_may_be_a_class(tmp_path: Path):
    photographs(tmp_path, ("cat", "dog"))
    (tmp_path / "dog").rename(tmp_path / "masks")
    for number in range(10):
        (tmp_path / "masks" / f"{number}.png").rename(tmp_path / "masks" / f"worn {number}.png")
    splits = opened(tmp_path)
    assert splits.classes == ("cat", "masks")
    assert splits.train.masks is None


def test_brightness_is_that_of_the_set_and_is_said(tmp_path: Path):
    for label, value in (("dark", 500), ("light", 4000)):
        (tmp_path / label).mkdir()
        for number in range(10):
            Image.fromarray(np.full((8, 8), value + number, dtype=np.uint16)).save(tmp_path / label / f"{number}.png")
    splits = opened(tmp_path)
    assert splits.levels == {"uint16": (0, 4095)}
    assert "16-bit images have black at 0 and white at 4095; the option white of a source sets it." in splits.notes
    levels = [splits.train.pixels(np.flatnonzero(splits.train.labels == k)).mean() for k in (0, 1)]
    assert levels == pytest.approx([504 / 4095 * 255, 4004 / 4095 * 255], abs=1)
    again = load_folder_set(tmp_path, classes=splits.classes, size=8, levels={"uint16": (0, 65535)})
    assert again.pixels([0]).max() <= 2
    (pixels,) = read_images([tmp_path / "light" / "0.png"], size=8, levels=splits.levels)
    assert (pixels == 249).all()
    chosen = build("data", f"folder:{tmp_path},white=8000", request=SourceRequest())
    assert chosen.levels == {"uint16": (0, 8000)}
    assert chosen.train.pixels(slice(None)).max() == 128
    with pytest.raises(ConfigError, match="white must be a number above 0, found -1"):
        build("data", f"folder:{tmp_path},white=-1", request=SourceRequest())


def test_one_set_of_a_folder_with_more_in_it(tmp_path: Path):
    root = photographs(tmp_path / "root")
    for name in find_images(root):
        mask(root / "masks" / name.relative_to(root), 1)
    photograph(root / "unlabelled" / "1.png", "eel", 1)
    images = load_folder_set(root, classes=("cat", "dog"), size=8)
    assert len(images) == 20
    assert images.object_masks(slice(None)).any(axis=(1, 2)).all()
    photographs(tmp_path / "divided" / "train")
    photographs(tmp_path / "divided" / "test", seed=500)
    with pytest.raises(DataError, match=r"is divided into parts \(test, train\); give one of them"):
        load_folder_set(tmp_path / "divided", classes=("cat", "dog"), size=8)


def test_parts_without_classes_are_no_classes(tmp_path: Path):
    for part, count in (("train", 12), ("Test", 5)):
        for number in range(count):
            photograph(tmp_path / part / f"{number}.png", "eel", number + 100 * count)
    with pytest.raises(DataError, match=r"has the parts Test, train, but no training images in directories"):
        opened(tmp_path)
    splits = opened(tmp_path, unlabelled=True)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [11, 1, 5]
    assert all(name.startswith("Test/") for name in splits.test.names)
    photographs(tmp_path / "other" / "val")
    photographs(tmp_path / "other" / "test", seed=500)
    with pytest.raises(DataError, match="has the parts test, val, but no training images"):
        opened(tmp_path / "other")
