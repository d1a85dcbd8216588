"""Scenes of four photographs, and what a probe of their places is worth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire.claims.ssl import densecl
from repertoire.data import ImageSet


def test_each_quarter_shows_the_photograph_whose_kind_its_places_have():
    pixels = np.arange(0, 250, 50, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    images = ImageSet(pixels, np.arange(5), list("abcde"), tuple("vwxyz"), np.arange(5, dtype=np.uint64))
    scenes = densecl._scenes(images, 12, np.random.default_rng(0))
    assert scenes.images.shape == (12, 3, 32, 32)
    each = scenes.places.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(scenes.images, (50 * each / 255).float()[:, None].expand(-1, 3, -1, -1))
    assert len(scenes.places.unique()) == 5


def test_the_overlap_is_the_mean_over_the_kinds_that_there_are():
    truth = torch.tensor([0, 0, 0, 4])
    assert densecl._mean_overlap(torch.tensor([0, 0, 4, 4]), truth) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert densecl._mean_overlap(torch.tensor([7, 7, 7, 7]), truth) == 0
