from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from repertoire.data import read_images
from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import photograph, place_on


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(240, 400), (400, 240), (301, 97), (64, 64), (20, 33)])
def test_what_the_network_sees_of_a_spot_is_placed_on_the_spot(tmp_path, fit, size):
    """A bright spot is decoded as the data room does it, and the decoded picture itself is the map."""
    height, width = size
    y, x = 0.45 * height, 0.55 * width
    rows, columns = np.mgrid[:height, :width]
    radius = min(size) / 8
    spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2))
    Image.fromarray((255 * spot).astype(np.uint8)).convert("RGB").save(tmp_path / "spot.png")
    pixels = read_images([tmp_path / "spot.png"], size=64, fit=fit)
    heat = torch.from_numpy(pixels[0, ..., 0] / 255.0).float()
    placed = place_on(heat, size, fit)
    assert placed.shape == size
    total = float(placed.sum())
    assert float((placed.sum(1) * torch.arange(height)).sum()) / total == pytest.approx(y, abs=0.02 * height + 1)
    assert float((placed.sum(0) * torch.arange(width)).sum()) / total == pytest.approx(x, abs=0.02 * width + 1)
    torch.testing.assert_close(placed, torch.from_numpy(spot).float(), rtol=0, atol=0.25)


def test_outside_a_crop_nothing_was_seen():
    placed = place_on(np.ones((3, 8, 8), np.float32), (40, 100))
    assert isinstance(placed, np.ndarray)
    assert placed.shape == (3, 40, 100)
    assert (placed[..., 30:70] == 1).all()
    assert not placed[..., :30].any()
    assert not placed[..., 70:].any()


def test_a_photograph_is_read_upright_and_not_larger_than_asked(tmp_path):
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[:, :50] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    turned = photograph(tmp_path / "turned.png")
    assert turned.shape == (100, 60, 3)
    assert (turned[:50] == 200).all()
    assert not turned[50:].any()
    assert photograph(tmp_path / "turned.png", longest=50).shape == (50, 30, 3)
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    assert photograph(tmp_path / "deep.png") is None


def test_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"\[\.\.\., h, h\]"):
        place_on(torch.ones(3, 4), (10, 10))
    with pytest.raises(ShapeError, match="int64"):
        place_on(torch.ones(3, 3, dtype=torch.int64), (10, 10))
    with pytest.raises(ConfigError, match="fit must be crop, squash or pad"):
        place_on(torch.ones(3, 3), (10, 10), "stretch")
    with pytest.raises(ConfigError, match="width must be 1 or more"):
        place_on(torch.ones(3, 3), (10, 0))
