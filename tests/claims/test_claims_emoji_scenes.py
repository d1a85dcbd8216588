"""Emoji on photographs, and the two rules that find them; a smoke budget takes digits for both."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire.claims import Budget
from repertoire.claims.beds import emoji_scenes as bed
from repertoire.claims.dense.tokencut import _lost
from repertoire.data import ImageSet

SMOKE = Budget("smoke")


def one_colour(value: int, side: int, masks: np.ndarray | None = None) -> ImageSet:
    pixels = np.full((2, side, side, 3), value, dtype=np.uint8)
    return ImageSet(pixels, np.zeros(2, np.int64), ["a", "b"], ("c",), np.arange(2, dtype=np.uint64), masks)


def test_the_object_is_where_its_mask_says_and_nowhere_else():
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[:, :, :4] = True  # the left half of what is pasted
    made = bed._pasted(one_colour(255, 8, masks), one_colour(51, 4), 40, np.random.default_rng(0))
    torch.testing.assert_close(made.images, made.masks[:, None].float().expand(-1, 3, -1, -1) * 0.8 + 0.2)
    sides = made.masks.any(2).sum(1), made.masks.any(1).sum(1)
    for tall, wide in zip(*sides, strict=True):
        assert 0.3 * 40 <= tall <= 0.6 * 40
        assert abs(tall / 2 - wide) <= 1


def test_a_seed_draws_the_pictures():
    first, again, other = (bed.emoji_scenes(SMOKE, seed, 4, side=48) for seed in (0, 0, 1))
    torch.testing.assert_close(first.images, again.images)
    assert not torch.equal(first.masks, other.masks)
    assert first.images.shape == (4, 3, 48, 48)
    assert first.masks.flatten(1).any(1).all()
    assert first.images.min() >= 0
    assert first.images.max() <= 1


def test_cells_overlap_at_the_size_of_the_mask():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[:, :2, :2] = True
    cells = torch.tensor([[[True, True], [False, False]]])
    assert bed.cells_overlap(cells, masks).tolist() == [0.5]
    assert bed.centre(masks, 0.5).nonzero()[:, 1:].tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


@pytest.mark.parametrize("share", [0.01, 0.25])
def test_lost_finds_the_few_that_are_unlike_the_rest_and_hang_together(share):
    maps = torch.zeros(1, 2, 5, 5)
    maps[:, 0] = 1.0
    unlike = torch.zeros(5, 5, dtype=torch.bool)
    unlike[1:3, 1:3] = True
    far = torch.zeros(5, 5, dtype=torch.bool)
    far[4, 4] = True
    maps[0, 0][unlike | far] = -1.0
    assert torch.equal(_lost(maps, share)[0], unlike)
