"""Masks go with their images through augmentation, and change nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from repertoire import registry
from repertoire.data import load
from repertoire.data._loader import Loader
from repertoire.data._types import Batch, ImageSet
from repertoire.errors import ConfigError, DataError


def image_set(count: int = 20) -> ImageSet:
    """Images that show their own mask: white on the object, black elsewhere."""
    masks = np.random.default_rng(0).random((count, 24, 24)) < 0.4
    images = np.repeat(masks[..., None] * np.uint8(255), 3, axis=3)
    keys = np.arange(count, dtype=np.uint64)
    return ImageSet(images, np.arange(count) % 2, [str(i) for i in range(count)], ("a", "b"), keys, masks)


MOVING = ["none", "shift:pixels=3", "crop-flip", "resized-crop:scale=(0.3,1.0)"]


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("spec", MOVING)
def test_a_mask_moves_as_its_image_does(spec: str, views: int, prefetch: bool):
    options = {"augmentation": registry.build("augmentations", spec), "views": views, "seed": 3, "prefetch": prefetch}
    with_masks = list(Loader(image_set(), 8, fields=("mask",), **options).epoch(1))
    without = list(Loader(image_set(), 8, **options).epoch(1))
    assert len(with_masks) == len(without) == 3
    for batch, plain in zip(with_masks, without, strict=True):
        assert len(batch.fields["mask"]) == views
        assert "mask" not in plain.fields
        for view, mask, other in zip(batch.views, batch.fields["mask"], plain.views, strict=True):
            torch.testing.assert_close(mask, view[:, 0])
            assert torch.equal(view, other)
        if views == 2 and spec != "none":
            assert not torch.equal(*batch.fields["mask"])


def test_of_colours_and_blur_a_mask_sees_nothing():
    augmentation = registry.build("augmentations", "simclr:strength=0,blur=0,grey=0")
    (batch,) = Loader(image_set(), 20, augmentation=augmentation, fields=("mask",)).epoch(0)
    torch.testing.assert_close(batch.fields["mask"][0], batch.images[:, 0], rtol=1e-4, atol=1e-4)


def test_masks_of_a_subset_and_in_pieces():
    images = image_set().subset([3, 8, 11, 5])
    (batch,) = Loader(images, 4, fields=("mask",), shuffle=False).epoch(0)
    np.testing.assert_array_equal(batch.fields["mask"][0].numpy(), image_set().masks[[3, 8, 11, 5]])
    pieces = list(batch.split(2))
    assert torch.equal(torch.cat([piece.fields["mask"][0] for piece in pieces]), batch.fields["mask"][0])
    assert all(not piece.fields for piece in Batch(batch.views, batch.targets, batch.index).split(2))


class Unknown(nn.Module):
    """An augmentation that does not say how it moves pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return registry.build("augmentations", "shift")(images)


def test_what_has_no_masks_or_cannot_move_them_is_refused():
    with pytest.raises(DataError, match="no object masks"):
        Loader(replace(image_set(), masks=None), 8, fields=("mask",))
    with pytest.raises(ConfigError, match="how it moves masks"):
        Loader(image_set(), 8, fields=("mask",), augmentation=Unknown())


@pytest.mark.parametrize("unlabelled", [False, True])
def test_masks_beside_classes_and_images_that_nobody_labelled(tmp_path: Path, unlabelled: bool):
    generator = np.random.default_rng(0)
    for name in ("cat", "dog", "unlabelled"):
        for folder in (tmp_path / name, tmp_path / "masks" / name):
            if folder.parts[-2:] != ("masks", "unlabelled"):
                folder.mkdir(parents=True)
                for i in range(10):
                    Image.fromarray(generator.integers(1, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    splits = load(tmp_path, unlabelled=unlabelled)
    assert splits.train.object_masks(np.flatnonzero(splits.train.known)).any((1, 2)).all()
    assert not splits.extra["unlabelled"].object_masks(slice(None)).any()
    assert (~splits.train.known).sum() == (10 if unlabelled else 0)
    (tmp_path / "masks" / "cat" / "3.png").unlink()
    with pytest.raises(DataError, match="without a mask: 1"):
        load(tmp_path, unlabelled=unlabelled)
