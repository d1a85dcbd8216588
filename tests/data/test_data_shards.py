"""Shards in the format of WebDataset, against the files that they were packed from."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from repertoire.data import CropFlip, Loader, Splits, digest, load, pinned
from repertoire.data._loader import SHARDS
from repertoire.errors import DataError, UnreadableImages


def picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pack(file: Path, members: Sequence[tuple[str, bytes]], **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def samples(numbers: Sequence[int], classes: int = 3) -> list[tuple[str, bytes]]:
    return [
        item
        for number in numbers
        for item in (
            (f"some/{number:04d}.jpg", picture(number)),
            (f"some/{number:04d}.cls", b"%d\n" % (number % classes)),
        )
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 samples in twelve shards."""
    root = tmp_path_factory.mktemp("shards")
    for number in range(12):
        pack(root / f"shards-{number:03d}.tar", samples(range(10 * number, 10 * number + 10)))
    return root


def opened(shards: Path, cache: Path, **options: Any) -> Splits:
    return load(f"wds:{shards}/shards-{{000..011}}.tar", cache_dir=cache, workers=2, **options)


@pytest.mark.parametrize("most", [None, 30 * 12 * 12 * 3, 0])
def test_samples_are_those_of_the_files(shards: Path, tmp_path: Path, most: int | None):
    found = opened(shards, tmp_path, most=most)
    assert found.classes == ("0", "1", "2")
    seen = []
    for part in (found.train, found.val, found.test):
        for name, label, pixels in zip(part.names, part.labels, part.pixels(slice(None)), strict=True):
            shard, _, stem = name.partition("/")
            number = int(stem.removeprefix("some/"))
            assert shard == f"shards-{number // 10:03d}.tar"
            assert label == number % 3
            assert (pixels == np.asarray(Image.open(io.BytesIO(picture(number))))).all()
            seen.append(number)
    assert sorted(seen) == list(range(120))


def test_splits_are_those_of_a_folder(shards: Path, tmp_path: Path):
    for number in range(120):
        file = tmp_path / "folder" / str(number % 3) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    folder, packed = load(tmp_path / "folder", cache_dir=tmp_path / "a"), opened(shards, tmp_path / "a")
    for a, b in ((folder.train, packed.train), (folder.val, packed.val), (folder.test, packed.test)):
        assert set(a.keys.tolist()) == set(b.keys.tolist())


def test_an_epoch_takes_some_shards_at_a_time_and_goes_on_from_any_step(shards: Path, tmp_path: Path):
    kept, late = (opened(shards, tmp_path / str(most), most=most).train for most in (None, 0))
    batches = [list(Loader(samples, 8, augmentation=CropFlip(), seed=1).epoch(2)) for samples in (kept, late)]
    later = list(Loader(late, 8, augmentation=CropFlip(), seed=1).epoch(2, 5))
    for a, b in [*zip(*batches, strict=True), *zip(batches[0][5:], later, strict=True)]:
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.index, b.index)
    loader = Loader(late, 8, seed=1)
    assert late.shards is not None
    orders = [loader._order(epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(len(late)))
        together = late.shards[order]
        first = len(set(together[: np.isin(together, np.unique(together[:20])).sum()].tolist()))
        assert first == SHARDS, "the first samples are of so many shards"
        cut = np.flatnonzero(~np.isin(together, np.unique(together[:40])))[0]
        assert not set(together[:cut]) & set(together[cut:]), "and those are read whole before others begin"
        assert len(set(together[:8].tolist())) > 2, "which are mixed"
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_parts_and_names_of_classes(shards: Path, tmp_path: Path):
    pack(tmp_path / "train-0.tar", samples(range(30)))
    pack(tmp_path / "more" / "val-0.tar", samples(range(30, 36)))
    pack(tmp_path / "more" / "test-0.tar", samples(range(36, 45)))
    (tmp_path / "classes.txt").write_text("cat\ndog\nowl\n")
    spec = f"wds:({tmp_path}/train-{{0..0}}.tar),val=({tmp_path}/more/val-*.tar),test=({tmp_path}/more/test-0.tar)"
    found = load(spec, cache_dir=tmp_path / "cache")
    assert found.classes == ("cat", "dog", "owl")
    assert [len(part) for part in (found.train, found.val, found.test)] == [30, 6, 9]


def test_other_members_are_passed_over(tmp_path: Path):
    members = [("readme.txt", b"hello"), ("0.json", b"{}"), *samples(range(12))]
    members += [
        ("alone.cls", b"1"),
        ("x.left.png", picture(99)),
        ("x.cls", b"1"),
        ("late.cls", b"2"),
        ("late.jpeg", picture(98)),
    ]
    members += [(f"{'deep/' * 40}long.png", picture(97)), (f"{'deep/' * 40}long.cls", b"0"), ("none.png", picture(96))]
    file = pack(tmp_path / "a.tar", members, format=tarfile.PAX_FORMAT)
    found = load(f"wds:{file}", cache_dir=tmp_path / "cache", skip_unreadable=True)
    everything = {}
    for part in (found.train, found.val, found.test):
        everything |= dict(zip(part.names, part.labels, strict=True))
    assert len(everything) == 16
    assert everything["a.tar/x"] == 1
    assert everything["a.tar/late"] == 2
    assert everything[f"a.tar/{'deep/' * 40}long"] == 0
    assert everything["a.tar/none"] == -1
    assert "1 samples say nothing of their class." in found.notes


def test_the_contents_of_a_shard_are_remembered_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = pack(tmp_path / "a.tar", samples(range(30)))
    first = load(f"wds:{file}", cache_dir=tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        assert digest(load(f"wds:{file}", cache_dir=tmp_path / "cache")) == digest(first)
    pack(file, samples(range(60, 96)))
    again = load(f"wds:{file}", cache_dir=tmp_path / "cache")
    assert len(again.train) + len(again.val) + len(again.test) == 36


def test_what_is_wrong_is_named(tmp_path: Path):
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match="there is no shard"):
        load(f"wds:{tmp_path}/none-*.tar", cache_dir=cache)
    pack(tmp_path / "s-0.tar", samples(range(9)))
    with pytest.raises(DataError, match=r"shards that are not there: 2 \(.*s-1.tar, .*s-2.tar\)"):
        load(f"wds:{tmp_path}/s-{{0..2}}.tar", cache_dir=cache)
    with pytest.raises(DataError, match="counts downwards"):
        load(f"wds:{tmp_path}/s-{{2..0}}.tar", cache_dir=cache)
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match=r"bad.tar cannot be read as a shard .* not compressed"):
        load(f"wds:{tmp_path}/bad.tar", cache_dir=cache)
    pack(tmp_path / "empty.tar", [("a.txt", b"hello")])
    with pytest.raises(DataError, match="holds no image"):
        load(f"wds:{tmp_path}/empty.tar", cache_dir=cache)
    damaged = [*samples(range(9)), ("10.png", b"no image"), ("10.cls", b"0")]
    pack(tmp_path / "damaged.tar", damaged)
    with pytest.raises(UnreadableImages, match=r"damaged.tar/10"):
        load(f"wds:{tmp_path}/damaged.tar", cache_dir=cache)
    pack(tmp_path / "val.tar", samples(range(8), classes=4))
    with pytest.raises(DataError, match=r"the training samples have no class 1 \(3\)"):
        load(f"wds:({tmp_path}/s-0.tar),val=({tmp_path}/val.tar)", cache_dir=cache)
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match="names 1 classes, and samples have 2"):
        load(f"wds:{tmp_path}/s-0.tar", cache_dir=cache)
    with pytest.raises(DataError, match="or give wds:"):
        load(tmp_path / "s-0.tar")


def test_paths_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert pinned("wds:s-{0..2}.tar,val=v-*.tar") == f"wds:{os.getcwd()}/s-{{0..2}}.tar,val={os.getcwd()}/v-*.tar"
