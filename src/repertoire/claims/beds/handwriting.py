"""Handwritten digits and photographed garments at 14 pixels, on which small networks are looked at.

The division into training and test images is the same for every seed, so that an interval speaks of these images; a
seed draws which training images are seen.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from repertoire.claims import Budget
from repertoire.claims._training import pixels
from repertoire.claims.beds._named import get
from repertoire.data import Splits

__all__ = ["DIGITS", "GARMENTS", "SIDE", "drawn_rows", "split_images"]

SIDE = 14
DIGITS = "handwritten digits of MNIST at 14 pixels"
GARMENTS = "Fashion-MNIST at 14 pixels"

Part = tuple[Tensor, Tensor]


def split_images(budget: Budget, seed: int, count: int, *, bed: str = "mnist5k", tested: int = 1000) -> Splits:
    """So many training images, drawn by the seed, and so many test images, which are the same for every seed.

    Args:
        count: training images; all where there are fewer.
        bed: "mnist5k" or "fashion-mnist".
        tested: test images.
    """
    splits = replace(get(bed), size=SIDE).splits(budget, 0)
    seen = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))[:count]
    test = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(0))[:tested]
    return replace(splits, train=splits.train.subset(seen.numpy()), test=splits.test.subset(test.numpy()))


def drawn_rows(budget: Budget, seed: int, count: int, *, bed: str = "mnist5k", tested: int = 1000) -> tuple[Part, Part]:
    """The same as rows in [0, 1] `[N, 196]` with their labels."""
    splits = split_images(budget, seed, count, bed=bed, tested=tested)
    (x, y), (u, v) = (pixels(part) for part in (splits.train, splits.test))
    return (x.to(budget.device), y.to(budget.device)), (u.to(budget.device), v.to(budget.device))
