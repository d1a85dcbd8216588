"""A class for every pixel: from files and arrays, and along with augmented images."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repertoire.data import ImageSet, Loader, build_augmentation, load
from repertoire.data._maps import IGNORE, fitted, move_maps
from repertoire.errors import ConfigError, DataError

SIZE = 16


def scenes(count: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images that show their map: the grey value of a pixel is 60 times its class."""
    maps = np.random.default_rng(seed).integers(0, 4, (count, SIZE // 4, SIZE // 4)).repeat(4, 1).repeat(4, 2)
    return (60 * maps)[..., None].astype(np.uint8), maps.astype(np.uint8)


def samples(count: int = 24) -> ImageSet:
    images, maps = scenes(count)
    return ImageSet(images, maps, [str(i) for i in range(count)], tuple("abcd"), np.arange(count, dtype=np.uint64))


@pytest.mark.parametrize("spec", ["none", "shift", "crop-flip", "crop-flip+erasing:probability=0", "photo"])
def test_maps_move_with_their_images(spec):
    """Away from borders of classes, where images are interpolated, an image still shows the map that came with it."""
    batch = next(Loader(samples(), 24, augmentation=build_augmentation(spec)).epoch(0))
    assert batch.targets.shape == (24, SIZE, SIZE)
    assert batch.targets.dtype == torch.int64
    shown = batch.images[:, 0] * 255 / 60
    known = batch.targets >= 0
    if spec == "photo":  # colours change, and pixels are interpolated: the order of two classes in one image does not
        inside = known & ((shown - shown.round()).abs() < 1)
        for value, target, keep in zip(shown, batch.targets, inside, strict=True):
            means = [value[keep & (target == k)].mean() for k in range(4) if (keep & (target == k)).sum() > 8]
            assert all(a < b for a, b in pairwise(means))
        return
    assert torch.equal(shown.round().long()[known], batch.targets[known])


def test_what_is_filled_in_has_no_class_and_what_is_reflected_keeps_it():
    shifted = next(Loader(samples(), 24, augmentation=build_augmentation("shift")).epoch(0))
    assert (shifted.targets == -1).any()
    assert (shifted.images[:, 0][shifted.targets == -1] == 0).all()
    reflected = next(Loader(samples(), 24, augmentation=build_augmentation("crop-flip")).epoch(0))
    assert (reflected.targets >= 0).all()


def test_maps_change_neither_images_nor_what_is_drawn_after_them():
    plain = samples()
    classes = ImageSet(plain.images, np.zeros(24, np.int64), plain.names, plain.classes, plain.keys)
    spec = "crop-flip+erasing"
    draws = []
    for each in (plain, classes):
        batch = next(Loader(each, 8, augmentation=build_augmentation(spec)).epoch(0))
        draws.append((batch.images, torch.rand(3)))
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])


@pytest.mark.parametrize("side", [300, 600])
def test_large_maps_move_by_whole_pixels(side):
    maps = torch.randint(0, 200, (2, side, side), dtype=torch.uint8)
    pixels = maps[..., None].expand(-1, -1, -1, 3)
    augmentation = build_augmentation("crop-flip")
    torch.manual_seed(0)
    moved = move_maps(augmentation, maps)
    assert torch.equal((augmentation(pixels)[:, 0] * 255).round().long(), moved)


def test_an_augmentation_that_cannot_move_maps_is_refused():
    class Blur:
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return images.permute(0, 3, 1, 2) / 255.0

    with pytest.raises(ConfigError, match="Blur"):
        Loader(samples(), 8, augmentation=Blur())


@pytest.mark.parametrize(("fit", "expected"), [("crop", [[1, 2], [5, 6]]), ("pad", None), ("squash", None)])
def test_maps_become_square_by_nearest_neighbours(fit, expected):
    maps = np.arange(8, dtype=np.uint8).reshape(1, 2, 4)
    found = fitted(maps, 2 if fit == "crop" else 4, fit)[0]
    if fit == "crop":
        assert found.tolist() == expected
    elif fit == "pad":
        assert (found[[0, 3]] == IGNORE).all()
        assert np.array_equal(found[1:3], maps[0])
    else:
        assert np.array_equal(found, maps[0].repeat(2, 0))


def write(root: Path, images: np.ndarray, maps: np.ndarray, *, palette: bool = False, parts: bool = False) -> None:
    for number, (image, classes) in enumerate(zip(images, maps, strict=True)):
        part = ("train/" if number % 2 else "val/") if parts else ""
        for folder in ("images", "maps"):
            (root / part / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(root / part / "images" / f"{number:02d}.png")
        written = Image.fromarray(classes)
        if palette:
            written.putpalette(list(np.random.default_rng(0).permutation(768) % 256))
        written.save(root / part / "maps" / f"{number:02d}.png")


@pytest.mark.parametrize("palette", [False, True])
def test_a_folder_of_images_and_maps(tmp_path, palette):
    images, maps = scenes()
    maps[0, :4] = IGNORE
    write(tmp_path / "scenes", images, maps, palette=palette)
    (tmp_path / "scenes" / "classes.txt").write_text("sky\nroad\ntree\ncar\n", encoding="utf-8")
    for _ in range(2):  # decoded, and kept
        splits = load(str(tmp_path / "scenes"), cache_dir=tmp_path / "cache")
        assert splits.kind == "maps"
        assert splits.classes == ("sky", "road", "tree", "car")
        for part in (splits.train, splits.val, splits.test):
            for position, name in enumerate(part.names):
                number = int(Path(name).stem)
                assert np.array_equal(part.labels[position], maps[number])
                assert np.array_equal(part.images[part.rows[position], ..., 0], images[number, ..., 0])


def test_parts_of_a_folder_and_classes_without_names(tmp_path):
    write(tmp_path, *scenes(), parts=True)
    splits = load(str(tmp_path))
    assert all(name.startswith("train/") for name in splits.train.names)
    assert all(name.startswith("val/") for name in splits.val.names)
    assert splits.classes == ("0", "1", "2", "3")


def test_folders_that_do_not_fit_are_refused(tmp_path):
    images, maps = scenes(6)
    write(tmp_path / "lacking", images, maps)
    (tmp_path / "lacking" / "maps" / "03.png").unlink()
    with pytest.raises(DataError, match=r"without a map: 1 .*03"):
        load(str(tmp_path / "lacking"))
    write(tmp_path / "unnamed", images, maps)
    (tmp_path / "unnamed" / "classes.txt").write_text("sky\nroad\n", encoding="utf-8")
    with pytest.raises(DataError, match="hold class 3, and there are 2 names"):
        load(str(tmp_path / "unnamed"))
    write(tmp_path / "colours", images, maps)
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "colours" / "maps" / "02.png")
    with pytest.raises(DataError, match="is a RGB image: a map holds the index"):
        load(str(tmp_path / "colours"))


def test_arrays_with_maps(tmp_path):
    images, maps = scenes()
    signed = maps.astype(np.int64)
    signed[0, 0, 0] = -1
    np.savez(tmp_path / "scenes.npz", images=images, maps=signed, classes=list("abcd"))
    splits = load(str(tmp_path / "scenes.npz"))
    assert splits.kind == "maps"
    together = sum(part.counts() for part in (splits.train, splits.val, splits.test))
    assert together.tolist() == np.bincount(signed[signed >= 0]).tolist()
    assert load(str(tmp_path / "scenes.npz"), size=8).train.labels.shape[1:] == (8, 8)
    np.savez(tmp_path / "other.npz", images=images, maps=signed[:, :8], classes=list("abcd"))
    with pytest.raises(DataError, match="as large as the images"):
        load(str(tmp_path / "other.npz"))


def test_generated_shapes_with_maps():
    maps, classes = (load(f"shapes:count=60,classes=2,targets={targets}") for targets in ("maps", "classes"))
    assert maps.classes == ("background", *classes.classes)
    expected = np.where(classes.train.masks, classes.train.labels[:, None, None] + 1, 0)
    assert np.array_equal(maps.train.labels, expected)
