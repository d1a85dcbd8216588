"""Beds of small real pictures; a smoke budget takes digits for them, so that no data has to be installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from repertoire.claims import Budget
from repertoire.claims._training import resolved
from repertoire.claims.beds import handwriting, mosaics, pasted, ssl_photographs
from repertoire.claims.beds.frozen import photographs, splits_of
from repertoire.claims.semi_supervised import unmixmatch
from repertoire.data import ImageSet

SMOKE = Budget("smoke")


def test_a_seed_draws_what_is_seen_and_never_the_test():
    first, again, other = (handwriting.drawn_rows(SMOKE, seed, 50, tested=30) for seed in (0, 0, 1))
    torch.testing.assert_close(first[0][0], again[0][0])
    assert not torch.equal(first[0][0], other[0][0])
    assert torch.equal(first[1][0], other[1][0])
    assert first[0][0].shape == (50, 196)
    assert first[1][1].shape == (30,)
    assert not {tuple(row) for row in first[0][0].tolist()} & {tuple(row) for row in first[1][0].tolist()}


def images(values: list[int], labels: list[int], side: int, classes: int) -> ImageSet:
    """Grey images of one value each."""
    pixels = np.array(values, dtype=np.uint8)[:, None, None, None].repeat(side, 1).repeat(side, 2)
    names = [str(n) for n in range(len(values))]
    keys = np.arange(len(values), dtype=np.uint64)
    return ImageSet(pixels, np.array(labels), names, tuple("abcdef"[:classes]), keys)


def test_an_object_lies_on_its_ground_and_its_mask_is_where_it_is():
    objects, grounds = images([200, 220], [0, 1], 3, 2), images([10, 11], [0, 1], 8, 2)
    found = pasted._joined(objects, grounds, 2, 1.0, np.random.default_rng(0))
    for picture, mask, label in zip(found.images, found.masks, found.labels, strict=True):
        assert mask.sum() == 9
        assert (picture[mask] == 200 + 20 * label).all()
        # Tied: the ground is of the object's class.
        assert (picture[~mask] == 10 + label).all()
    assert found.factors["ground"].tolist() == found.labels.tolist()


def test_ground_that_is_not_tied_is_any():
    objects, grounds = images([200] * 400, [0] * 400, 3, 1), images([10, 11], [0, 1], 8, 2)
    ground = pasted._joined(objects, grounds, 400, 0.0, np.random.default_rng(0)).factors["ground"]
    assert 0.4 < ground.mean() < 0.6


def test_a_dark_pixel_of_the_frame_is_no_object():
    objects = images([pasted.SEEN - 1, 255], [0, 0], 3, 1)
    found = pasted._joined(objects, images([99], [0], 8, 1), 2, 0.0, np.random.default_rng(0))
    assert sorted(found.masks.sum((1, 2)).tolist()) == [0, 9]


class Brightest(torch.nn.Module):
    """Sure of the class that the mean of the image says."""

    def forward(self, pixels: Tensor) -> Tensor:
        number = (pixels.mean((1, 2, 3)) * 255 / 50).round().long()
        return 20 * torch.nn.functional.one_hot(number, 6).float()


def test_the_quarter_that_is_asked_for_holds_the_class():
    shown = images([50 * (n % 5) for n in range(20)], [n % 5 for n in range(20)], 4, 6)
    made = mosaics.mosaics(SMOKE, 0, Brightest(), shown)
    assert made.images.shape == (8, 1, 8, 8)
    assert made.masks.sum((1, 2)).unique().tolist() == [16]
    inside = made.images[:, 0][made.masks].view(8, 16)
    torch.testing.assert_close(inside, (made.targets * 50 / 255).float()[:, None].expand(8, 16))
    # Four different classes to each mosaic.
    corners = made.images[:, 0, ::4, ::4].flatten(1)
    assert all(len(row.unique()) == 4 for row in corners)


def test_a_map_of_the_quarter_scores_one_and_a_flat_one_what_chance_does():
    shown = mosaics.Mosaics(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), torch.zeros(2, 4, 4, dtype=torch.bool))
    shown.masks[:, :2, :2] = True
    maps = {"right": lambda *_: shown.masks.float(), "flat": lambda *_: torch.ones(2, 4, 4)}
    found = mosaics.scores(Brightest(), shown, maps)
    assert found["right"] == {"energy": 1, "pointing": 1, "overlap": 1}
    assert found["flat"] == pytest.approx({"energy": 0.25, "pointing": 0.25, "overlap": 1 / 7})


def test_nothing_that_is_to_be_told_is_among_the_unlabelled():
    splits = unmixmatch.vehicles(SMOKE, 0)
    assert splits.classes == tuple(str(c) for c in unmixmatch.VEHICLES)
    assert splits.train.counts().tolist() == [unmixmatch.LABELS] * 4
    assert (splits.extra["unlabelled"].labels == -1).all()
    kinds = unmixmatch.only(images([1, 2, 3], [2, 0, 2], 4, 3), (2, 1))
    assert (kinds.labels.tolist(), kinds.classes) == ([0, 0], ("c", "b"))
    assert kinds.pixels([0, 1])[:, 0, 0, 0].tolist() == [1, 3]


def test_a_tail_of_photographs_is_of_the_training_images_alone():
    plain = ssl_photographs.photographs(SMOKE, 0)
    assert plain.train.size == (ssl_photographs.SIZE, ssl_photographs.SIZE)
    found = ssl_photographs.learned(SMOKE, 0, method="simclr", tail=1.5)
    assert set(found) == {"linear", "neighbours", "rank"}


def test_a_network_that_reads_vectors_keeps_its_place():
    splits = splits_of(photographs(SMOKE, 0, 5), "rows")
    assert resolved(splits, backbone="mlp:hidden=16").backbone == "mlp:hidden=16"
    assert resolved(splits, backbone="convnet:width=4").backbone == "identity"
