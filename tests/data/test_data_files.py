from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from repertoire.data import _files
from repertoire.data._decode import decode
from repertoire.data._files import decode_files, grey, read_images
from repertoire.errors import ConfigError, UnreadableImages


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Twenty images, of which the fourth and the last are broken."""
    files = [tmp_path / f"image {number}.png" for number in range(20)]
    for number, file in enumerate(files):
        Image.new("RGB", (9, 7), (number, 0, 10 * number)).save(file)
    files[3].write_bytes(b"")
    files[19].unlink()
    return files


@pytest.mark.parametrize("batch_size", [1, 6, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_order_is_kept_and_failures_are_reported(paths: list[Path], batch_size: int, channels: int):
    batches = list(decode_files(map(str, paths), size=8, channels=channels, batch_size=batch_size))
    assert len(batches) == -(-20 // batch_size)
    indices = np.concatenate([indices for indices, _, _ in batches])
    pixels = np.concatenate([pixels for _, pixels, _ in batches])
    assert indices.tolist() == [number for number in range(20) if number not in (3, 19)]
    assert indices.dtype == np.int64
    expected = np.stack([decode(paths[number].read_bytes(), 8) for number in indices])
    assert (pixels == (expected if channels == 3 else grey(expected))).all()
    failed = [(failure.path, failure.reason) for _, _, failures in batches for failure in failures]
    assert failed == [
        (str(paths[3]), "is empty (0 bytes)"),
        (str(paths[19]), "does not exist, or is a link to something that does not"),
    ]


def test_paths_are_consumed_as_needed(paths: list[Path]):
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield paths[0]

    batches = decode_files(endless(), size=8, batch_size=5)
    for number in range(1, 4):
        indices, pixels, _ = next(batches)
        assert len(pixels) == 5
        assert indices[0] == 5 * (number - 1)
        assert taken <= 5 * (number + 1)
    batches.close()
    assert not any(thread.name.startswith("repertoire-read") for thread in threading.enumerate())


def test_files_are_read_in_parallel(paths: list[Path], monkeypatch: pytest.MonkeyPatch):
    both = threading.Barrier(2, timeout=10)
    original = _files.read_file

    def meet(path: str) -> object:
        both.wait()
        return original(path)

    monkeypatch.setattr(_files, "read_file", meet)
    assert len(read_images(paths[:2], size=8, workers=2)) == 2


def test_read_images_names_all_failures(paths: list[Path]):
    with pytest.raises(UnreadableImages, match="2 of 20") as caught:
        read_images(paths, size=8)
    assert [os.path.basename(failure.path) for failure in caught.value.failures] == ["image 3.png", "image 19.png"]
    assert read_images(paths[:3], size=8, channels=1).shape == (3, 8, 8, 1)
    assert read_images([], size=8).shape == (0, 8, 8, 3)


@pytest.mark.parametrize("option", [{"size": 0}, {"channels": 2}, {"batch_size": 0}])
def test_options_out_of_range(option: dict[str, int]):
    with pytest.raises(ConfigError, match=next(iter(option))):
        decode_files([], **({"size": 8} | option))


@given(st.lists(st.integers(0, 255), min_size=3, max_size=3))
@settings(max_examples=50, deadline=None)
def test_grey_is_luma(colour: list[int]):
    (luma,) = grey(np.array(colour, dtype=np.uint8))
    assert abs(int(luma) - np.dot(colour, [0.299, 0.587, 0.114])) <= 0.5 + 1e-9
