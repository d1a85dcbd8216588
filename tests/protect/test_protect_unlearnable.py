"""Unlearnable images: how much is changed and where, against a loop, and that less is learned from them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import load
from repertoire.errors import ConfigError, ShapeError
from repertoire.protect import sparse_unlearnable


def network(seed: int, inputs: int, classes: int = 2, width: int = 16) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes))


def drawn(count: int = 8, channels: int = 3, side: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    images[0, :, :3] = 0
    images[1, :, :3] = 255
    return images, torch.arange(count) % 2


@pytest.mark.parametrize(("epsilon", "levels"), [(8 / 255, 8), (0.03, 7), (1 / 255, 1)])
@pytest.mark.parametrize("share", [0.25, 0.1, 1.0])
def test_changes_are_small_and_few(epsilon: float, levels: int, share: float):
    images, labels = drawn()
    found = sparse_unlearnable(images, labels, network(0, 108), epsilon=epsilon, share=share, rounds=2, updates=3)
    moved = found.images.int() - images.int()
    assert found.images.dtype is torch.uint8
    assert int(moved.abs().max()) <= levels
    assert int(found.changes.abs().max()) == levels
    pixels = (found.changes != 0).any(1).flatten(1).sum(1)
    # Of 36 pixels, rounded up.
    assert int(pixels.max()) <= {0.25: 9, 0.1: 4, 1.0: 36}[share]
    assert int(pixels.min()) > 0
    assert torch.equal(found.images.int(), (images.int() + found.changes.int()).clamp(0, 255))


def test_is_the_descent_that_it_says():
    """One round against a loop: the network after its steps, the mask of the plain image, and steps of signs."""
    images, labels = drawn(4, 1, 4)
    net, twin = network(0, 16), network(0, 16)
    options = {"epsilon": 0.1, "step_size": 0.03, "steps": 5, "share": 0.3, "rounds": 1, "updates": 2}
    found = sparse_unlearnable(
        images, labels, net, generator=torch.Generator().manual_seed(5), batch_size=4, rate=0.01, **options
    )
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(5)
    plain = images.float() / 255
    for _ in range(2):
        index = torch.randint(4, (4,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(twin(plain[index]), labels[index]).backward()
        optimizer.step()
    for image, label, change in zip(plain, labels, found.changes, strict=True):

        def slope(at: Tensor, y: Tensor = label) -> Tensor:
            at = at.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(twin(at[None]), y[None]), at)
            return gradient

        largest = set(slope(image).abs().flatten().topk(5).indices.tolist())  # 30 % of 16, rounded up
        delta = torch.zeros(16)
        for _ in range(5):
            gradient = slope(image + delta.view_as(image)).flatten()
            for k in largest:
                at = float(image.flatten()[k])
                moved = float(delta[k]) - 0.03 * float(gradient[k].sign())
                delta[k] = min(max(moved, -0.1, -at), 0.1, 1 - at)
        expected = (delta.view_as(image) * 255).round()
        assert (change - expected).abs().max() <= 1


def convolutional(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))


def test_less_is_learned_from_what_is_protected():
    """By a network that begins elsewhere. Digits are an easy task, and there is more to learn from them than most."""
    splits = load("digits", size=8)
    train, test = (torch.from_numpy(p.pixels(slice(0, 600))).permute(0, 3, 1, 2) for p in (splits.train, splits.test))
    labels, truth = (torch.from_numpy(part.labels[:600]) for part in (splits.train, splits.test))

    def accuracy(images: Tensor) -> float:
        fresh = convolutional(1)
        optimizer = torch.optim.Adam(fresh.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(fresh(images.float() / 255), labels).backward()
            optimizer.step()
        return float((fresh(test.float() / 255).argmax(1) == truth).float().mean())

    options = {"epsilon": 0.3, "share": 1.0, "updates": 5, "rounds": 2, "steps": 10, "step_size": 0.06, "rate": 1e-2}
    found = sparse_unlearnable(train.contiguous(), labels, convolutional(0), **options)
    assert found.fooled > 0.95
    assert accuracy(found.images) < accuracy(train) - 0.05


def test_what_does_not_fit_is_refused():
    images, labels = drawn()
    net = network(0, 108)
    with pytest.raises(ShapeError, match=r"images must be uint8 \[N, C, H, W\], found torch.float32"):
        sparse_unlearnable(images.float(), labels, net)
    with pytest.raises(ShapeError, match=r"labels must be int64 \[8\]"):
        sparse_unlearnable(images, labels[:4], net)
    with pytest.raises(ConfigError, match="of one class"):
        sparse_unlearnable(images, torch.zeros(8, dtype=torch.int64), net)
    with pytest.raises(ConfigError, match="epsilon must lie in"):
        sparse_unlearnable(images, labels, net, epsilon=0.5 / 255)
