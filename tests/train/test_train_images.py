"""Whatever may be given as an image, against the same image read from its file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repertoire.data import read_images
from repertoire.errors import DataError, ShapeError
from repertoire.train._images import Reading, stream


@pytest.fixture
def pixels() -> np.ndarray:
    """A smooth image: resampling hardly depends on how it is done."""
    y, x = np.mgrid[0:30, 0:44]
    return np.stack([y * 8, x * 5, 255 - y * 4 - x * 2], 2).clip(0, 255).astype(np.uint8)


@pytest.fixture
def file(pixels: np.ndarray, tmp_path: Path) -> Path:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def read(images: object, reading: Reading, batch_size: int = 256) -> torch.Tensor:
    parts = []
    for index, chunk, failed in stream(images, reading, batch_size):
        assert not failed
        assert len(index) == len(chunk)
        parts.append(chunk)
    return torch.cat(parts)


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 30, 44])
def test_every_form_of_an_image_is_the_same_image(pixels, file: Path, fit: str, channels: int, size: int):
    expected = torch.from_numpy(read_images([file], size=size, fit=fit, channels=channels)).permute(0, 3, 1, 2) / 255
    reading = Reading(size, fit, channels)
    with Image.open(file) as image:
        loaded = image.copy()
    exact = {
        "path": file,
        "text": str(file),
        "folder": file.parent,
        "pattern": str(file.parent / "*.png"),
        "bytes": file.read_bytes(),
        "open file": io.BytesIO(file.read_bytes()),
        "PIL": loaded,
        "array": pixels,
        "batch": pixels[None],
        "list of arrays": [pixels],
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1),
        "generator": (item for item in [file]),
    }
    for name, images in exact.items():
        torch.testing.assert_close(read(images, reading), expected, atol=1e-6, rtol=0, msg=name)
    floats = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    for name, images in {
        "float": floats,
        "float batch": floats[None],
        "float rows last": floats.permute(1, 2, 0).numpy(),
    }.items():
        # Filters differ at the edges, and 8 bits round.
        torch.testing.assert_close(read(images, reading), expected, atol=0.03, rtol=0, msg=name)


def test_arrays_of_the_size_of_the_model_are_taken_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)
    expected = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    reading = Reading(8, "crop", 1)
    torch.testing.assert_close(read(images, reading, 3), expected, atol=0, rtol=0)
    torch.testing.assert_close(read(expected, reading, 3), expected, atol=0, rtol=0)
    torch.testing.assert_close(read(list(images), reading, 3), expected, atol=0, rtol=0)


def test_a_turned_photograph_is_turned_back_also_when_it_is_open(pixels: np.ndarray, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    reading = Reading(16, "squash", 3)
    with Image.open(tmp_path / "turned.png") as image:
        torch.testing.assert_close(read(image, reading), read(tmp_path / "turned.png", reading), atol=0.02, rtol=0)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "CMYK", "I;16", "YCbCr"])
def test_images_of_all_modes(pixels: np.ndarray, mode: str):
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    found = read(image, Reading(16, "crop", 3))
    expected = read(image if mode == "I;16" else image.convert("RGB"), Reading(16, "crop", 3))
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_what_is_transparent_shows_white_in_arrays_as_in_files(pixels: np.ndarray):
    clear = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    assert read(clear, Reading(8)).min() == 1
    assert read(torch.from_numpy(clear).permute(2, 0, 1) / 255, Reading(8)).min() > 0.999


def test_failures_are_told_by_name_and_the_numbers_of_the_others_stay(file: Path, tmp_path: Path):
    (tmp_path / "cut.png").write_bytes(file.read_bytes()[:70])
    images = [file, tmp_path / "cut.png", b"no image", file, tmp_path / "gone.png"]
    batches = list(stream(images, Reading(8), 2))
    assert [index.tolist() for index, _, _ in batches] == [[0], [3], []]
    assert [bad.path for _, _, failed in batches for bad in failed] == [
        str(tmp_path / "cut.png"), "image 2", str(tmp_path / "gone.png"),
    ]  # fmt: skip
    assert [chunk.shape[0] for _, chunk, _ in batches] == [1, 1, 0]


def test_a_stream_reads_no_further_than_two_batches_ahead(file: Path):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield file

    batches = stream(endless(), Reading(8), 4)
    for _ in range(3):
        next(batches)
    assert taken <= 4 * 5
    batches.close()


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (5, DataError, "found a int"),
        ([object()], DataError, "found a object"),
        (np.zeros((4, 4, 3), np.int64), ShapeError, "is int64"),
        (np.zeros((4, 4, 7), np.uint8), ShapeError, "expected uint8"),
        (np.zeros((2, 4, 4, 3, 3), np.uint8), ShapeError, "dimensions"),
        ([np.zeros((2, 4, 4, 3), np.uint8)], ShapeError, "give the array by itself"),
        (torch.zeros(5, 7, 8), ShapeError, "expected .C, H, W."),
        (255 * torch.ones(3, 4, 4), ShapeError, "divide by 255"),
        (torch.full((3, 4, 4), torch.nan), ShapeError, "found nan"),
        (-torch.ones(1, 3, 8, 8), ShapeError, "without normalisation"),
        (np.zeros((0, 4, 3), np.uint8), ShapeError, "image 0"),
        ("none/*.png", DataError, "no file matches"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_refused(images: object, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        list(stream(images, Reading(8), 4))


def test_a_folder_without_images_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="no image"):
        list(stream(tmp_path, Reading(8), 4))
