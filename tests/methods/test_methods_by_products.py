"""Clicks of annotators: where they are, that they move with their images, and what is learned from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repertoire import backbones, heads, losses
from repertoire.data import Batch, ImageSet, Loader, build_augmentation
from repertoire.errors import ConfigError, ShapeError
from repertoire.methods import ByProducts, Classifier, Normalize, spots_of


def classifier() -> Classifier:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))


def test_centres_against_a_loop():
    masks = torch.rand(5, 4, 6, dtype=torch.float64) * (torch.rand(5, 4, 6) < 0.4)
    masks[2] = 0
    places, known = spots_of(masks)
    for mask, place, there in zip(masks, places.tolist(), known.tolist(), strict=True):
        total = float(mask.sum())
        assert there == (total > 0)
        if there:
            x = sum(float(mask[i, j]) * (j + 0.5) / 6 for i in range(4) for j in range(6)) / total
            y = sum(float(mask[i, j]) * (i + 0.5) / 4 for i in range(4) for j in range(6)) / total
            assert place == pytest.approx([x, y])
    assert torch.equal(spots_of(masks > 0)[1], known)
    with pytest.raises(ShapeError, match=r"masks must be \[N, H, W\], found \[5, 4\]"):
        spots_of(masks[:, :, 0])


@pytest.mark.parametrize("spec", ["crop-flip", "shift:pixels=2", "crop-flip:pad=4"])
def test_clicks_move_with_crops_and_flips(spec: str):
    """In each image a bright spot lies where the annotator clicked; it does so in every view as well."""
    try:
        build_augmentation(spec)
    except ConfigError:
        pytest.skip(f"no augmentation {spec}")
    count, side = 64, 16
    generator = np.random.default_rng(0)
    images = np.zeros((count, side, side, 1), dtype=np.uint8)
    masks = np.zeros((count, side, side), dtype=bool)
    for i, (row, column) in enumerate(generator.integers(2, side - 2, (count, 2))):
        images[i, row, column] = 255
        masks[i, row, column] = True
    numbers = np.arange(count)
    names = [str(i) for i in numbers]
    samples = ImageSet(images, numbers % 2, names, ("a", "b"), numbers.astype(np.uint64), masks=masks)
    loader = Loader(samples, 32, augmentation=build_augmentation(spec), fields=("mask",))
    moved = 0
    for batch in loader.epoch(0):
        (clicks,) = batch.fields["mask"]
        found, known = spots_of(clicks)
        seen, visible = spots_of(batch.images[:, 0])
        assert torch.equal(known, visible)
        torch.testing.assert_close(found[known], seen[known])
        first, _ = spots_of(torch.from_numpy(masks[batch.index.numpy()]))
        moved += int((found - first).abs().amax(1).gt(0.01).sum())
    assert moved > count / 4


def test_is_its_formula():
    method = ByProducts(classifier(), losses.CrossEntropy(), weight=0.7).double().eval()
    batch = Batch((torch.rand(3, 1, 8, 8, dtype=torch.float64),), torch.tensor([0, 1, 1]), torch.arange(3))
    masks = torch.zeros(3, 8, 8)
    masks[0, 1, 6], masks[1, 4, 2] = 1, 1  # and nobody clicked on the last
    batch.fields = {"mask": (masks,)}
    features = method.model.embed(batch.images)
    expected = float(F.cross_entropy(method.model.head(features), batch.targets).detach())
    for z, (x, y) in zip(features, [(6.5 / 8, 1.5 / 8), (2.5 / 8, 4.5 / 8)], strict=False):
        said = [1 / (1 + math.exp(-value)) for value in method.place(z).tolist()]
        expected += 0.7 * ((said[0] - x) ** 2 + (said[1] - y) ** 2) / 3
    assert float(method.step(batch).loss.detach()) == pytest.approx(expected)


def test_it_learns_where_the_clicks_are():
    """Spots of one class on the left, of the other on the right; some without a click."""
    torch.manual_seed(0)
    columns = torch.tensor([1, 6]).repeat(8)
    masks = torch.zeros(16, 8, 8)
    masks[torch.arange(16), torch.arange(16) % 4 + 2, columns] = 1
    images = masks[:, None] + 0.1 * torch.rand(16, 1, 8, 8)
    clicks = masks.clone()
    clicks[::5] = 0
    batch = Batch((images,), torch.tensor([0, 1]).repeat(8), torch.arange(16), {"mask": (clicks,)})
    method = ByProducts(classifier(), losses.CrossEntropy(), weight=5.0)
    optimizer = torch.optim.Adam(method.parameters(), lr=2e-2)
    first = float(method.step(batch).logs["place_loss"])
    for _ in range(150):
        optimizer.zero_grad()
        method.step(batch).loss.backward()
        optimizer.step()
    logs = method.step(batch).logs
    assert float(logs["place_loss"]) < 0.3 * first
    assert logs["accuracy"] == 1


def test_without_masks_it_is_refused():
    batch = Batch((torch.rand(3, 1, 8, 8),), torch.tensor([0, 1, 1]), torch.arange(3))
    with pytest.raises(ConfigError, match=r"needs the clicks of the annotators.*use method 'supervised'"):
        ByProducts(classifier(), losses.CrossEntropy()).step(batch)
