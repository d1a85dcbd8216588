"""What every augmentation must do."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.testing._check import Check, agree, checks, described, example_options, refused

__all__ = ["check_augmentation"]


def check_augmentation(factory: Callable[..., Callable[[Tensor], Tensor]], **options: Any) -> list[Check]:
    """Checks of an augmentation: uint8 images `[N, H, W, C]` to float `[N, C, H, W]` in [0, 1], channels last.

    Where it declares a `geometry`, masks must move with the images; where it declares a `change`, that maps float
    images to float images of the same shape.

    Args:
        factory: the class.
        options: options to build it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.data import CropFlip
        >>> from repertoire.testing import check_augmentation
        >>> for check in check_augmentation(CropFlip):
        ...     check()
    """
    return checks(_Augmentations(factory, options))


class _Augmentations:
    def __init__(self, factory: Callable[..., Callable[[Tensor], Tensor]], options: dict[str, Any]) -> None:
        self.factory, self.options = factory, {**example_options(factory), **options}

    def build(self) -> Callable[[Tensor], Tensor]:
        return self.factory(**self.options)

    def images(self, count: int = 6, height: int = 16, width: int = 16, channels: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator)

    def seeded(self, images: Tensor, seed: int = 0) -> Tensor:
        torch.manual_seed(seed)
        return self.build()(images)

    def check_it_is_documented(self) -> None:
        described(self.factory)

    def check_images_of_any_shape(self) -> None:
        for shape in ((5, 8, 8, 1), (4, 32, 32, 3), (3, 20, 28, 3), (1, 28, 20, 1), (0, 16, 16, 3)):
            images = self.images(*shape)
            before = images.clone()
            found = self.seeded(images)
            count, height, width, channels = shape
            assert found.shape == (count, channels, height, width)
            assert found.dtype == torch.float32
            assert found.isfinite().all()
            assert not count or (found.min() >= 0 and found.max() <= 1)
            assert found.is_contiguous(memory_format=torch.channels_last)
            agree(images, before, rtol=0, atol=0)

    def check_all_randomness_is_that_of_torch(self) -> None:
        images = self.images()
        np.random.seed(1)
        random.seed(1)
        first = self.seeded(images)
        drawn = random.random(), np.random.random()
        np.random.seed(1)
        random.seed(1)
        assert drawn == (random.random(), np.random.random()), "it draws from Python's or NumPy's random state"
        agree(self.seeded(images), first, rtol=0, atol=0)

    def check_each_image_draws_by_itself(self) -> None:
        alike = self.images(1).expand(64, -1, -1, -1).contiguous()
        found = self.seeded(alike)
        plain = alike.permute(0, 3, 1, 2).float() / 255
        changes = any(not torch.equal(self.seeded(alike, seed), plain) for seed in range(3))
        assert not changes or len({image.numpy().tobytes() for image in found}) > 1, "all images change alike"

    def check_images_do_not_look_at_each_other(self) -> None:
        images = self.images(8)
        others = torch.cat([images[:4], 255 - images[4:]])
        agree(self.seeded(images)[:4], self.seeded(others)[:4], rtol=0, atol=1e-6)

    def check_the_number_of_threads_changes_nothing(self) -> None:
        images, before = self.images(12, 64, 64), torch.get_num_threads()
        found = []
        try:
            for threads in (1, 3):
                torch.set_num_threads(threads)
                found.append((self.seeded(images), torch.rand(1)))
        finally:
            torch.set_num_threads(before)
        (one, after_one), (several, after_several) = found
        agree(several, one, rtol=0, atol=0)
        agree(after_several, after_one, rtol=0, atol=0)
        assert several.stride() == one.stride()

    def check_masks_move_with_their_images(self) -> None:
        build = self.build()
        geometry = getattr(build, "geometry", None)
        if geometry is None:
            return
        images = self.images(6, channels=1)
        torch.manual_seed(3)
        moved = geometry(images)
        assert moved.shape == (6, 1, 16, 16)
        assert moved.is_floating_point()
        torch.manual_seed(3)
        both = geometry(images.expand(-1, -1, -1, 3).contiguous())
        agree(both, moved.expand(-1, 3, -1, -1), rtol=0, atol=1e-6)
        if geometry is build:
            agree(self.seeded(images, 3), moved, rtol=0, atol=0)

    def check_a_change_keeps_float_images(self) -> None:
        change = getattr(self.build(), "change", None)
        if change is None:
            return
        images = self.images().permute(0, 3, 1, 2).float() / 255
        before = images.clone()
        torch.manual_seed(0)
        found = change(images.clone(memory_format=torch.channels_last))
        assert found.shape == before.shape
        assert found.dtype == torch.float32
        assert found.min() >= 0
        assert found.max() <= 1

    def check_what_does_not_fit_is_refused(self) -> None:
        images = self.images()
        for bad in (images.float(), images[0], images.permute(0, 3, 1, 2)):
            refused(ShapeError, "uint8", self.build(), bad)
