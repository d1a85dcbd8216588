from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repertoire.data import load, pinned
from repertoire.errors import ConfigError, DataError, UnreadableImages


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (12, 12), (40 * number, 255 * (label == "cat"), 0)).save(
                tmp_path / "photos" / label / f"{number}.png"
            )
    return tmp_path / "photos"


def test_a_folder(photos: Path, tmp_path: Path):
    for data in (photos, str(photos)):
        splits = load(data, size=10, seed=3, val=0.2, test=0.4, cache_dir=tmp_path / "cache", workers=1)
        assert splits.classes == ("cat", "dog")
        assert splits.train.size == (10, 10)
        assert len(splits.test) == 4
    assert (tmp_path / "cache").is_dir()


def test_a_folder_with_signs_of_the_grammar_in_its_name(photos: Path):
    odd = photos.rename(photos.parent / "a:b,c=(d")
    assert load(odd).source == "a:b,c=(d"


def test_options_reach_the_folder(photos: Path):
    (photos / "cat" / "bad.jpg").write_text("no image")
    with pytest.raises(UnreadableImages, match=r"bad\.jpg"):
        load(photos)
    assert len(load(photos, skip_unreadable=True).skipped) == 1


def test_a_folder_named_like_a_source(photos: Path, monkeypatch: pytest.MonkeyPatch):
    photos.rename(photos.parent / "digits")
    monkeypatch.chdir(photos.parent)
    assert load("digits").classes == ("cat", "dog")


def test_an_npz_file(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(40) % 2)
    assert load(tmp_path / "data.npz").train.size == (8, 8)


def test_a_source_with_options():
    assert load("digits").classes[3] == "3"
    assert load("shapes:count=60,classes=3", size=16).train.size == (16, 16)


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
def test_an_archive_is_to_be_unpacked(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="unpack it"):
        load(tmp_path / name)


def test_another_file(tmp_path: Path):
    (tmp_path / "cat.jpg").touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        load(tmp_path / "cat.jpg")


@pytest.mark.parametrize("name", ["digit", "no/such/folder", "photos", "/nowhere", "Digits:a=1"])
def test_what_is_neither_a_path_nor_a_source(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder or file .* and no data source of that name") as caught:
        load(name)
    assert ("did you mean 'digits'?" in str(caught.value)) == name.lower().startswith("digit")


def test_an_unknown_option_of_a_source():
    with pytest.raises(ConfigError, match="cuont"):
        load("shapes:cuont=5")


def test_a_folder_without_classes(tmp_path: Path):
    for number in range(10):
        Image.new("RGB", (12, 12), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match="method='simclr'"):
        load(tmp_path)
    assert (load(tmp_path, unlabelled=True).train.labels == -1).all()


def test_data_is_pinned_to_where_it_lies(photos: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs are opened from any directory."""
    base = photos.parent
    monkeypatch.chdir(base)
    assert pinned("photos") == str(photos)
    assert pinned("hf:photos") == f"hf:{photos}"
    assert pinned("hf:photos,label_column=animal") == f"hf:{photos},label_column=animal"
    assert pinned("folder:photos,layout=groups") == f"folder:{photos},layout=groups"
    assert pinned("folder:path=photos") == f"folder:path={photos}"
    (base / "labels.csv").touch()
    assert pinned("table:labels.csv,root=photos") == f"table:{base}/labels.csv,root={photos}"
    for same in (
        "digits",
        "shapes:count=1000,classes=3",
        "hf:user/flowers",
        "no such data",
        "shapes:cuont=5",
        f"hf:{photos}",
    ):
        assert pinned(same) == same
    (base / "a,b").mkdir()
    assert pinned("hf:(a,b)") == f"hf:({base}/a,b)"
    assert pinned(pinned("hf:(a,b)")) == pinned("hf:(a,b)")
    monkeypatch.chdir("/")
    assert load(f"folder:{photos}").classes == ("cat", "dog")
