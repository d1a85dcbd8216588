"""What decoded images need: the bytes that the cache takes, and what is said where they do not fit."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from repertoire import train
from repertoire.cli import build_app
from repertoire.data import load
from repertoire.plan import Storage, _storage

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """36 photographs, and a cache beside them."""
    monkeypatch.setenv("REPERTOIRE_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for number in range(36):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
    return tmp_path / "photos"


def planned(photos: Path, **options: object) -> Storage:
    found = train.plan(str(photos), backbone="convnet:width=4,depth=2", device="cpu", **options).storage
    assert found is not None
    return found


def test_bytes_are_those_that_the_cache_takes(photos: Path, tmp_path: Path):
    found = planned(photos, cache="8kB")
    assert [row.cache for row in found.rows] == ["all", "8kB", "none"]
    assert [row.decoded for row in found.rows] == [0, 36 - 10, 36]
    for row, most in zip(found.rows, (None, 8000, 0), strict=True):
        load(photos, cache_dir=tmp_path / row.cache, most=most)
        kept = sum(file.stat().st_size for file in (tmp_path / row.cache).glob("decoded/*/*") if file.is_file())
        assert 0.8 * kept <= row.disk <= 1.2 * kept + 8192
    assert (found.images, found.size, found.folder) == (36, 16, tmp_path / "cache" / "decoded")


def test_what_fits_is_said(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_storage, "_available", lambda: 20_000)
    found = planned(photos)
    assert [found.fits_disk(row) for row in found.rows] == [True, True]
    assert [found.fits_memory(row) for row in found.rows] == [False, True]
    assert "every epoch reads the disk" in found.sentence
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**9, 10**9, 12_000_000))
    assert "fits" in planned(photos).sentence
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**9, 10**9, 20_000))
    found = planned(photos)
    assert [found.fits_disk(row) for row in found.rows] == [False, True]
    assert "cache='none'" in found.sentence


def test_the_command_prints_it_for_files_alone(photos: Path, tiny: Path):
    options = ["--backbone", "mlp:hidden=8,depth=1", "--device", "cpu"]
    shown = CliRunner().invoke(build_app(["plan"]), ["plan", str(photos), *options, "--cache", "8kB"]).output
    assert "36 images of 16 pixels, decoded in" in shown
    lines = [line.split()[0] for line in shown.splitlines() if line.startswith("cache=")]
    assert lines == ["cache='all'", "cache='8kB'", "cache='none'"]
    assert train.plan(str(tiny), backbone="mlp:hidden=8,depth=1", device="cpu").storage is None
