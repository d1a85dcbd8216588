from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire import registry
from repertoire.data import ImageSet, Loader, Rotate, plain
from repertoire.errors import ConfigError


def images(count: int = 12) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 9, 9, 3)).astype(np.uint8)
    keys = np.arange(count, dtype=np.uint64)
    return ImageSet(pixels, np.arange(count) % 2, [str(i) for i in keys], ("a", "b"), keys)


def test_a_quarter_turn_is_that_of_the_pixels(monkeypatch: pytest.MonkeyPatch):
    pixels = torch.from_numpy(images().images)
    monkeypatch.setattr(torch, "rand", lambda *size, **options: torch.ones(*size))  # the largest angle
    turned, quaternion = Rotate(degrees=90).draw(pixels)
    expected = torch.rot90(plain(pixels), 1, (2, 3)), torch.rot90(plain(pixels), -1, (2, 3))
    assert any(torch.allclose(turned, each, atol=1e-5) for each in expected)
    half = 0.5**0.5
    torch.testing.assert_close(quaternion[0], torch.tensor([half, 0.0, 0.0, half]))


def test_what_leads_from_the_first_view_to_the_last_is_a_rotation_by_the_difference():
    augmentation = Rotate()
    angles = torch.tensor([0.3, -1.0]), torch.tensor([1.1, 2.0])
    zero = torch.zeros(2)
    first, last = (torch.stack([(a / 2).cos(), zero, zero, (a / 2).sin()], 1) for a in angles)
    difference = (angles[1] - angles[0]) / 2
    expected = torch.stack([difference.cos(), zero, zero, difference.sin()], 1)
    torch.testing.assert_close(augmentation.between(first, last), expected)


def test_a_loader_gives_the_transformation_and_the_same_views_as_without():
    options = {"augmentation": Rotate(), "views": 2, "seed": 5}
    known = next(Loader(images(), 6, fields=("transformation",), **options).epoch(0))
    plainly = next(Loader(images(), 6, **options).epoch(0))
    assert all(torch.equal(a, b) for a, b in zip(known.views, plainly.views, strict=True))
    assert known.fields["transformation"].shape == (6, 4)
    torch.testing.assert_close(known.fields["transformation"].norm(dim=1), torch.ones(6))
    pieces = list(known.split(2))
    assert torch.equal(torch.cat([piece.fields["transformation"] for piece in pieces]), known.fields["transformation"])


def test_an_augmentation_that_does_not_say_what_it_does_is_refused():
    with pytest.raises(ConfigError, match="use rotate"):
        Loader(images(), 6, augmentation=registry.build("augmentations", "crop-flip"), fields=("transformation",))
    with pytest.raises(ConfigError, match="degrees must be above 0"):
        Rotate(degrees=0)
