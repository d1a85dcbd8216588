"""Heat maps as pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from repertoire.errors import ShapeError
from repertoire.explain import colour_map, overlay, save_overlay


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB."""
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def test_colours_grow_lighter_with_the_heat():
    light = luminance(colour_map().astype(np.float64))
    assert (np.diff(light) >= 0).all()
    assert light[0] < 0.001
    assert light[-1] > 0.85


def test_an_overlay_reads_in_grey():
    heat = np.linspace(0, 1, 64).reshape(1, 64)
    light = luminance(overlay(np.full((1, 64, 3), 120, np.uint8), heat).astype(np.float64))
    assert (np.diff(light) > 0).all()


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3)])
def test_blends_the_grey_image_with_the_map(shape):
    rng = np.random.default_rng(0)
    image, heat = rng.integers(0, 256, shape, dtype=np.uint8), rng.random((5, 4))
    colour = image if len(shape) == 3 else image[..., None]
    weights = [0.299, 0.587, 0.114] if colour.shape[2] == 3 else [1.0]
    for opacity in (0.0, 0.25, 1.0):
        picture = overlay(image, heat, opacity)
        assert picture.shape == (5, 4, 3)
        assert picture.dtype == np.uint8
        for i in range(5):
            for j in range(4):
                grey = sum(float(c) * w for c, w in zip(colour[i, j], weights, strict=True))
                for k in range(3):
                    expected = (1 - opacity) * grey + opacity * float(colour_map()[round(heat[i, j] * 255), k])
                    assert abs(float(picture[i, j, k]) - expected) <= 0.51


def test_takes_tensors():
    image, heat = torch.randint(0, 256, (6, 7, 3), dtype=torch.uint8), torch.rand(6, 7, requires_grad=True)
    np.testing.assert_array_equal(overlay(image, heat), overlay(image.numpy(), heat.detach().numpy()))


@pytest.mark.parametrize(
    ("image", "heat", "opacity", "message"),
    [
        (np.zeros((2, 2, 3)), np.zeros((2, 2)), 0.5, "image must be uint8"),
        (np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2)), 0.5, "image must be uint8"),
        (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3)), 0.5, r"heat must be \[2, 2\]"),
        (np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 3.0), 0.5, r"heat must lie in \[0, 1\], found 3 to 3"),
        (np.zeros((2, 2, 3), np.uint8), np.full((2, 2), np.nan), 0.5, "found nan"),
        (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), 1.5, "opacity"),
    ],
)
def test_input_that_does_not_fit(image, heat, opacity, message):
    with pytest.raises(ShapeError, match=message):
        overlay(image, heat, opacity)


def test_saves_a_png_and_nothing_else(tmp_path):
    image, heat = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8), np.eye(8, 9)
    path = tmp_path / "new" / "a picture.png"
    save_overlay(path, image, heat)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), overlay(image, heat))
    with pytest.raises(ShapeError):
        save_overlay(path, image, heat + 1)
    assert [file.name for file in path.parent.iterdir()] == ["a picture.png"]
