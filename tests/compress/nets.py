"""Small networks and batches that the tests of compressors look at."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.weights import refresh_batchnorm

__all__ = ["batches", "images", "network"]


def images(count: int = 24) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def batches() -> Iterator[Batch]:
    for part in torch.arange(24).split(12):
        yield Batch((images()[part],), part % 3, part)


def network() -> nn.Sequential:
    """Three convolutions, one of them in groups, whose statistics are those of the images, and a linear layer."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1, groups=2, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    refresh_batchnorm(net, batches())
    return net.eval()
