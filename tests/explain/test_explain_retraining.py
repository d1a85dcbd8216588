from __future__ import annotations

import pytest
import torch

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import diffroar, keep_pixels


def test_keeps_the_pixels_of_a_rank():
    images = torch.arange(1.0, 13.0).view(1, 2, 2, 3)
    maps = torch.tensor([[[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]]])
    hot = keep_pixels(images, maps, 0.5, fill=-1.0)
    assert hot[0, 0].tolist() == [[1, -1, -1], [-1, 5, 6]]
    assert hot[0, 1].tolist() == [[7, -1, -1], [-1, 11, 12]]
    cold = keep_pixels(images, maps, 0.5, hottest=False)
    assert cold[0, 0].tolist() == [[0, 2, 3], [4, 0, 0]]
    torch.testing.assert_close(keep_pixels(images, maps, 1.0), images)
    assert not keep_pixels(images, maps, 0.0).any()


def nearest_mean(images, labels, test_images, test_labels):
    """A classifier that is trained at once."""
    rows, test = images.flatten(1), test_images.flatten(1)
    means = torch.stack([rows[labels == k].mean(0) for k in range(int(labels.max()) + 1)])
    return float((torch.cdist(test, means).argmin(1) == test_labels).float().mean())


def blocks(count, seed):
    """The upper half tells the class, the lower one nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.rand(count, 1, 8, 8, generator=generator)
    images[:, :, :4] += labels[:, None, None, None]
    maps = torch.rand(count, 8, 8, generator=generator)
    return images, labels, maps


def test_right_maps_are_positive_opposite_ones_negative_random_ones_zero():
    train, test = blocks(200, 0), blocks(200, 1)

    def with_maps(change):
        return [(images, labels, change(maps)) for images, labels, maps in (train, test)]

    def upper(maps):
        return maps + torch.linspace(10, 0, 8)[:, None]

    right = diffroar(nearest_mean, *with_maps(upper), shares=(0.25, 0.5))
    wrong = diffroar(nearest_mean, *with_maps(lambda maps: -upper(maps)), shares=(0.25, 0.5))
    random = diffroar(nearest_mean, *with_maps(lambda maps: maps), shares=(0.25, 0.5))
    assert (right > 0.3).all()
    torch.testing.assert_close(wrong, -right)
    assert (random.abs() < 0.05).all()


def test_bad_input():
    images, labels, maps = blocks(4, 0)
    with pytest.raises(ConfigError, match="share must lie"):
        keep_pixels(images, maps, 1.5)
    with pytest.raises(ShapeError, match="maps must be"):
        keep_pixels(images, maps[:, :4], 0.5)
    with pytest.raises(ConfigError, match="shares is empty"):
        diffroar(nearest_mean, (images, labels, maps), (images, labels, maps), shares=())
