"""`repertoire protect`: a whole copy or none, of the same names and sizes, and nothing written over."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repertoire import protect
from repertoire.cli import main

QUICK = ("--backbone", "mlp:hidden=8", "--rounds", "1", "--device", "cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, of several sizes and formats, one of them turned."""
    root, rng = tmp_path / "photos", np.random.default_rng(0)
    for name, side in (
        ("cat/a.png", (20, 30)),
        ("cat/b.jpg", (16, 16)),
        ("cat/b.png", (16, 16)),
        ("dog/c.png", (9, 5)),
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8)).save(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (12, 24, 3), dtype=np.uint8)).save(root / "dog" / "turned.png", exif=exif)
    return root


def done(capsys: pytest.CaptureFixture, *arguments: object, status: int = 0) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["protect", *map(str, arguments)])
    assert (stop.value.code or 0) == status
    captured = capsys.readouterr()
    return captured.err if status else captured.out


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_a_copy_of_the_same_names_and_sizes(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "copies" / "protected"
    said = done(capsys, photos, "--out", out, "--epsilon", "8/255", "--share", 0.5, "--size", 8, *QUICK)
    assert f"protected: {out}" in said
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert found == ["cat/a.png", "cat/b.jpg.png", "cat/b.png.png", "dog/c.png", "dog/turned.png"]
    moved = pixels(out / "cat" / "a.png") - pixels(photos / "cat" / "a.png")
    assert moved.shape == (20, 30, 3)
    assert 0 < np.abs(moved).max() <= 8
    # Half of the places at which changes were looked for, each of which is as large in the copy.
    assert 0.3 < (moved != 0).any(2).mean() <= 0.6
    upright = np.rot90(pixels(photos / "dog" / "turned.png"), -1)
    assert np.abs(pixels(out / "dog" / "turned.png") - upright).max() <= 8
    assert not list(out.parent.glob(".*"))


def test_grey_images_stay_grey_and_small_ones_are_changed_pixel_by_pixel(tmp_path: Path, capsys: pytest.CaptureFixture):
    rng = np.random.default_rng(0)
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    out = tmp_path / "out"
    assert "changes at 8 pixels" in done(capsys, tmp_path / "scans", "-o", out, "--share", 0.25, *QUICK)
    copy = Image.open(out / "a" / "0.png")
    assert copy.mode == "L"
    moved = np.asarray(copy).astype(int) - pixels(tmp_path / "scans" / "a" / "0.png")
    assert 0 < (moved != 0).sum() <= 16


def test_nothing_is_written_over_or_left_half_done(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    out.mkdir()
    assert "is there already, and nothing is written over it" in done(capsys, photos, "-o", out, *QUICK, status=2)
    assert not list(out.iterdir())
    out.rmdir()
    inside = photos / "cat" / "copy"
    assert "lies in the folder that is to be protected" in done(capsys, photos, "-o", inside, *QUICK, status=2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert "No space left" in done(capsys, photos, "-o", out, "--size", 8, *QUICK, status=2)
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_is_no_folder_of_classes_is_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "out"
    assert "is no folder" in done(capsys, tmp_path / "nowhere", "-o", out, status=2)
    assert "epsilon must be a number or a fraction" in done(capsys, photos, "-o", out, "--epsilon", "8/x", status=2)
    assert "epsilon must lie in" in done(capsys, photos, "-o", out, "--epsilon", "0.1/255", *QUICK, status=2)
    (photos / "dog" / "bad.png").write_bytes(b"no image")
    assert "bad.png" in done(capsys, photos, "-o", out, *QUICK, status=2)
    assert "4 images" not in done(capsys, photos, "-o", out, "--size", 8, "--skip-unreadable", *QUICK)
    shutil.rmtree(photos / "dog")
    assert "has 1 directories with images" in done(capsys, photos, "-o", tmp_path / "other", *QUICK, status=2)


def test_it_says_where_the_network_has_not_learned_the_changes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    original = protect.sparse_unlearnable

    def poor(*args: object, **options: object) -> protect.Protected:
        found = original(*args, **options)
        return protect.Protected(found.images, found.changes, found.rounds, 0.5)

    monkeypatch.setattr(protect, "sparse_unlearnable", poor)
    with pytest.raises(SystemExit):
        main(["protect", str(photos), "-o", str(tmp_path / "out"), "--size", "8", *QUICK])
    assert "Try more --rounds" in capsys.readouterr().err
