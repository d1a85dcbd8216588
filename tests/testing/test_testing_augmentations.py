"""Each check of an augmentation finds what it is there for."""

from __future__ import annotations

import random

import pytest
import torch
from broken import every_check_is_tried, failing
from torch import Tensor, nn

from repertoire.data import plain
from repertoire.testing import check_augmentation


class Whole(nn.Module):
    """Turns half of the images over, from left to right."""

    @property
    def geometry(self) -> nn.Module:
        return self

    def chance(self, count: int) -> Tensor:
        return torch.rand(count, 1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = plain(images)
        turned = torch.where(self.chance(len(x)) < 0.5, x.flip(3), x)
        return turned.contiguous(memory_format=torch.channels_last)


class Undocumented(Whole):
    def __init__(self, strength=1.0):
        super().__init__()


class Single(Whole):
    """Turns half of the images over, and brightens what is grey."""

    def forward(self, images: Tensor) -> Tensor:
        x = super().forward(images)
        return 2 * x if x.shape[1] == 1 else x


class OfItsOwnDice(Whole):
    """Turns half of the images over, by Python's dice."""

    def chance(self, count: int) -> Tensor:
        return torch.tensor([random.random() for _ in range(count)]).view(-1, 1, 1, 1)


class Alike(Whole):
    """Turns all images over, or none."""

    def chance(self, count: int) -> Tensor:
        return torch.rand(1, 1, 1, 1).expand(count, 1, 1, 1)


class Looking(Whole):
    """Turns half of the images over, and takes their mean off."""

    def forward(self, images: Tensor) -> Tensor:
        x = super().forward(images)
        return (x - x.mean()).clamp(0, 1) if len(x) else x


class ByThread(Whole):
    """Turns half of the images over, and draws once for each thread of arithmetic."""

    def chance(self, count: int) -> Tensor:
        torch.rand(torch.get_num_threads())
        return super().chance(count)


class LeavingMasks(Whole):
    """Turns half of the images over, and others of their masks."""

    class Otherwise(Whole):
        def chance(self, count: int) -> Tensor:
            return torch.rand(3 * count, 1, 1, 1)[-count:]

        def forward(self, images: Tensor) -> Tensor:
            x = super().forward(images)
            return x.flip(2) if x.shape[1] == 1 else x

    @property
    def geometry(self) -> nn.Module:
        return self.Otherwise()


class Doubling(Whole):
    """Turns half of the images over; floating point images come out in double precision."""

    def change(self, images: Tensor) -> Tensor:
        return images.double()


class Trusting(Whole):
    """Turns half of the images over, whatever they are."""

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8 and images.ndim == 4 and images.shape[3] in (1, 3):
            return super().forward(images)
        return images


BROKEN = {
    "it is documented": Undocumented,
    "images of any shape": Single,
    "all randomness is that of torch": OfItsOwnDice,
    "each image draws by itself": Alike,
    "images do not look at each other": Looking,
    "the number of threads changes nothing": ByThread,
    "masks move with their images": LeavingMasks,
    "a change keeps float images": Doubling,
    "what does not fit is refused": Trusting,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_augmentation, Whole, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str):
    assert name in failing(check_augmentation, BROKEN[name])
