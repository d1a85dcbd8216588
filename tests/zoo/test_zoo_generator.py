"""Drawn weights: coding loses little, they follow the data, and the order of the samples changes nothing."""

from __future__ import annotations

import functools

import pytest
import torch

from repertoire.errors import ConfigError, ShapeError
from repertoire.zoo import WeightGenerator

CLASSES, WIDTH = 3, 4


def task(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Samples of three classes, their labels, and the head that tells them apart: its rows are their centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, WIDTH, generator=generator)
    labels = torch.arange(30) % CLASSES
    return centres[labels] + 0.2 * torch.randn(30, WIDTH, generator=generator), labels, centres.flatten()


def accuracy(head: torch.Tensor, features: torch.Tensor, labels: torch.Tensor) -> float:
    centres = head.view(CLASSES, WIDTH)
    return float((torch.cdist(features, centres).argmin(1) == labels).float().mean())


@functools.cache
def fitted() -> WeightGenerator:
    tasks = [task(seed) for seed in range(200)]
    generator = WeightGenerator(CLASSES * WIDTH, CLASSES, WIDTH, latent=12, hidden=48)
    heads = torch.stack([head for _, _, head in tasks])
    return generator.fit(heads, [(x, y) for x, y, _ in tasks], steps=300, rate=5e-3, batch=64)


def test_coding_loses_little():
    lost = []
    for seed in range(10):
        x, y, head = task(seed)
        lost.append(accuracy(head, x, y) - accuracy(fitted().reconstruct(head[None])[0], x, y))
    assert sum(lost) / len(lost) < 0.01


def test_heads_follow_the_data_that_they_are_drawn_for():
    own, others = [], []
    for seed in range(1000, 1010):
        x, y, _ = task(seed)
        own.append(accuracy(fitted().best(x, y, lambda head, x=x, y=y: accuracy(head, x, y)), x, y))
        elsewhere = task(seed + 500)
        others.append(accuracy(fitted().sample(*elsewhere[:2], count=1)[0], x, y))
    assert sum(own) / 10 > 0.85
    assert sum(others) / 10 < 0.6


def test_the_order_of_samples_changes_nothing_and_that_of_classes_does():
    x, y, _ = task(7)
    drawn = fitted().sample(x, y, count=2, seed=3)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fitted().sample(x[order], y[order], count=2, seed=3), drawn, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(fitted().sample(x, y, count=2, seed=3), drawn, rtol=0, atol=0)
    assert not torch.allclose(fitted().sample(x, (y + 1) % CLASSES, count=2, seed=3), drawn, atol=0.1)


def test_what_does_not_fit_is_refused():
    generator = WeightGenerator(6, 2, 3)
    with pytest.raises(ShapeError, match="needs samples of 2 classes, found 1"):
        generator.sample(torch.rand(4, 3), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"heads must be \[M, 6\]"):
        generator.fit(torch.rand(4, 5), [])
    with pytest.raises(ConfigError, match="count must be 1 or more"):
        generator.best(torch.rand(4, 3), torch.tensor([0, 0, 1, 1]), lambda _: 0.0, count=0)
