"""Images that are decoded when they are asked for: those of the cache, in batches, in runs and after a stop."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from repertoire import train
from repertoire.data import CropFlip, Loader, Splits, digest, load
from repertoire.data._undecoded import Undecoded
from repertoire.errors import ConfigError, DataError, UnreadableImages
from repertoire.recipe import make_config


def fill(root: Path, count: int = 60, classes: int = 3, size: int = 12) -> Path:
    generator = np.random.default_rng(0)
    for number in range(count):
        label = number % classes
        pixels = generator.integers(0, 160, (size, size, 3), dtype=np.uint8)
        pixels[label * size // classes : (label + 1) * size // classes] += 90
        file = root / f"class-{label:03d}" / f"{number:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("undecoded") / "photos")


def opened(root: Path, cache: Path, **options: Any) -> Splits:
    return load(root, cache_dir=cache, workers=2, **options)


def stored(cache: Path) -> int:
    """Bytes of pixels in a cache."""
    return sum(file.stat().st_size for file in cache.glob("decoded/*/images.npy"))


@pytest.mark.parametrize("most", [0, 20 * 12 * 12 * 3])
def test_images_and_splits_are_those_of_the_cache(photos: Path, tmp_path: Path, most: int):
    whole = opened(photos, tmp_path / "whole")
    part = opened(photos, tmp_path / "part", most=most)
    assert isinstance(part.train.images, Undecoded)
    assert digest(part) == digest(whole)
    assert part.train.names == whole.train.names
    for a, b in ((part.train, whole.train), (part.val, whole.val), (part.test, whole.test)):
        assert (a.pixels(slice(None)) == b.pixels(slice(None))).all()
        assert (a.pixels([3]) == b.pixels([3])).all()
    assert (part.train.images[5] == part.train.images[np.array([5, 1])][0]).all()
    assert stored(tmp_path / "part") <= most + 256
    again = opened(photos, tmp_path / "part", most=most)
    assert (again.train.pixels(slice(None)) == whole.train.pixels(slice(None))).all()


def test_what_is_kept_whole_serves_whoever_wants_less(photos: Path, tmp_path: Path):
    opened(photos, tmp_path)
    assert isinstance(opened(photos, tmp_path, most=0).train.images, np.memmap)
    assert isinstance(opened(photos, tmp_path / "other", most=10**9).train.images, np.memmap)


def test_batches_are_those_of_the_cache_from_any_step(photos: Path, tmp_path: Path):
    whole, part = (opened(photos, tmp_path / name, most=most).train for name, most in (("a", None), ("b", 0)))
    assert part.late
    assert not whole.late
    batches = [list(Loader(samples, 8, augmentation=CropFlip(), seed=3).epoch(1)) for samples in (whole, part)]
    later = list(Loader(part, 8, augmentation=CropFlip(), seed=3).epoch(1, 3))
    assert len(later) == len(batches[0]) - 3
    for a, b in [*zip(*batches, strict=True), *zip(batches[0][3:], later, strict=True)]:
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.targets, b.targets)


def test_images_of_more_than_8_bits_have_the_white_of_all(tmp_path: Path):
    generator = np.random.default_rng(1)
    for number in range(24):
        file = tmp_path / "deep" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 3000, (12, 12), dtype=np.uint16)).save(file)
    whole, part = (opened(tmp_path / "deep", tmp_path / name, most=most) for name, most in (("a", None), ("b", 0)))
    assert part.levels == whole.levels != {}
    assert (part.train.pixels(slice(None)) == whole.train.pixels(slice(None))).all()


def test_masks_are_decoded_late_as_well(tmp_path: Path):
    root = fill(tmp_path / "seen", 24)
    for file in sorted(root.glob("class-*/*.png")):
        mask = root / "masks" / file.relative_to(root)
        mask.parent.mkdir(parents=True, exist_ok=True)
        shade = np.zeros((12, 12), dtype=np.uint8)
        shade[: int(file.stem) % 11 + 1] = 255
        Image.fromarray(shade).save(mask)
    whole, part = (opened(root, tmp_path / name, most=most) for name, most in (("a", None), ("b", 0)))
    index = np.arange(len(whole.train))
    assert (part.train.object_masks(index) == whole.train.object_masks(index)).all()


def test_what_cannot_be_used_is_known_beforehand(tmp_path: Path):
    root = fill(tmp_path / "photos")
    (root / "class-001" / "000001.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImages, match="000001"):
        opened(root, tmp_path / "a", most=0)
    part = opened(root, tmp_path / "a", most=0, skip_unreadable=True)
    assert [Path(item.path).name for item in part.skipped] == ["000001.png"]
    assert len(part.train) + len(part.val) + len(part.test) == 59


def test_a_file_that_changes_meanwhile_is_refused_by_name(tmp_path: Path):
    root = fill(tmp_path / "photos")
    part = opened(root, tmp_path / "a", most=0)
    name = part.train.names[4]
    Image.new("RGB", (12, 12)).save(root / name)
    with pytest.raises(DataError, match=rf"{name} has changed since it was first looked at"):
        part.train.pixels([4])
    (root / name).unlink()
    with pytest.raises(DataError, match=rf"{name} does not exist"):
        part.train.pixels(slice(None))


def test_processes_end_with_the_images_and_are_not_shared(photos: Path, tmp_path: Path):
    part = opened(photos, tmp_path, most=0).train
    expected = part.pixels(slice(None))
    images = part.images
    assert isinstance(images, Undecoded)
    assert images._pool is not None
    running = list(images._pool._children._running)
    assert running
    copy = pickle.loads(pickle.dumps(part))
    assert (copy.pixels(slice(None)) == expected).all()
    pool = images._pool
    images._pool = None
    del pool
    assert all(process.poll() is not None for process in running)
    assert (part.pixels(slice(None)) == expected).all(), "others are started when they are needed"


@pytest.mark.slow
def test_a_run_without_a_cache_is_the_run_with_one_also_when_it_resumes(photos: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("REPERTOIRE_CACHE", str(tmp_path / "cache"))
    options = {"backbone": "convnet:width=4,depth=2", "epochs": 2, "batch_size": 16, "device": "cpu"}
    late = train.fit(photos, out=tmp_path / "late", cache="none", **options)
    assert not list((tmp_path / "cache").glob("decoded/*/images.npy")) or stored(tmp_path / "cache") < 1024

    class Stopped(Exception):
        pass

    steps = []
    from repertoire.train import Loop

    account = Loop._accumulate

    def counted(self: Loop, *arguments: Any) -> None:
        steps.append(1)
        if len(steps) == 4:
            raise Stopped
        account(self, *arguments)

    monkeypatch.setattr(Loop, "_accumulate", counted)
    with pytest.raises(Stopped):
        train.fit(photos, out=tmp_path / "stopped", cache="none", save_every=1, **options)
    monkeypatch.setattr(Loop, "_accumulate", account)
    resumed = train.resume(tmp_path / "stopped")
    kept = train.fit(photos, out=tmp_path / "kept", cache="all", **options)
    for run in (late, resumed):
        for name, value in kept.model.state_dict().items():
            assert torch.equal(value, run.model.state_dict()[name]), name
    assert late.info["data_digest"] == kept.info["data_digest"]


def test_the_option_is_an_amount():
    amounts = [make_config(data="digits", cache=text).cache_most for text in ("all", "none", "20GB")]
    assert amounts == [None, 0, 20 * 10**9]
    with pytest.raises(ConfigError, match="expected all, none, or an amount"):
        make_config(data="digits", cache="some")


@pytest.mark.slow
@pytest.mark.parametrize("most", [None, 0])
def test_no_more_than_200_bytes_of_objects_an_image(most: int | None, tmp_path: Path):
    """Names, keys, labels and places of 5,000 images in 100 classes, arrays counted in."""
    generator = np.random.default_rng(0)
    for number, pixels in enumerate(generator.integers(0, 256, (5_000, 64), dtype=np.uint8)):
        file = tmp_path / "many" / f"class-{number % 100:03d}" / f"{number:08d}.pgm"
        if number < 100:
            file.parent.mkdir(parents=True)
        file.write_bytes(b"P5 8 8 255\n" + pixels.tobytes())
    load(tmp_path / "many", cache_dir=tmp_path / "cache", workers=1, most=most)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        splits = load(tmp_path / "many", cache_dir=tmp_path / "cache", workers=1, most=most)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(splits.train) == 3500
    assert held / 5_000 < 200
