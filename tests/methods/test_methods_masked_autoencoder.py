from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import backbones, heads
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, MaskedAutoencoder, Normalize, patches_of, pixels_of


def method_of(channels: int = 1, size: int = 8, patch: int = 2, pooling: str = "mean", **options) -> MaskedAutoencoder:
    torch.manual_seed(0)
    net = backbones.ViT(channels, size, patch=patch, dim=16, depth=2, heads=2, pooling=pooling)
    model = Classifier(Normalize([0.5] * channels, [0.25] * channels), net, heads.Linear(16, 3))
    return MaskedAutoencoder(model, image_size=size, **options)


def batch_of(images: torch.Tensor) -> Batch:
    return Batch((images,), torch.full((len(images),), -1), torch.arange(len(images)))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(2, 5), st.integers(4, 13), st.integers(0, 9))
def test_patches_are_cut_and_put_together_again(channels, side, size, seed):
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(seed))
    patches = patches_of(images, side)
    edge = -(-size // side)
    assert patches.shape == (2, side**2, channels * edge**2)
    assert torch.equal(pixels_of(patches, channels, size), images)
    row, column = (side**2 - 1) // side, (side**2 - 1) % side
    last = images[1, :, row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
    if last.shape[1:] == (edge, edge):
        assert torch.equal(patches[1, -1], last.flatten())


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_transformer_sees_visible_patches_and_nothing_else(pooling: str):
    method = method_of(pooling=pooling)
    images = torch.rand(3, 1, 8, 8)
    order = method.drawn(3, images.device)
    assert order.shape == (3, 4), "a quarter of sixteen patches"
    counted = []
    for block in list(method.model.backbone.blocks)[1:]:
        block.register_forward_hook(lambda _, inputs, output: counted.append(inputs[0].shape[1]))
    seen, features = method.see(images, order)
    assert counted == [4 + (pooling == "cls")] * 2
    patches = patches_of(images, 4).clone()
    hidden = torch.ones(3, 16, dtype=torch.bool).scatter(1, order, False)
    patches[hidden] = torch.rand_like(patches[hidden])
    other, changed = method.see(pixels_of(patches, 1, 8), order)
    torch.testing.assert_close(other, seen)
    torch.testing.assert_close(changed, features)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_is_that_of_hidden_patches_alone(normalise: bool):
    method = method_of(channels=3, normalise=normalise).double()
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    torch.manual_seed(5)
    found = method.step(batch_of(images)).logs["loss"]
    torch.manual_seed(5)
    order = method.drawn(4, images.device)
    painted = method.paint(method.see(images, order)[0], order)
    total, count = 0.0, 0
    for n in range(4):
        for p in range(16):
            if p in order[n].tolist():
                continue
            row, column = p // 4, p % 4
            pixels = images[n, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten()
            if normalise:
                pixels = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
            total += float((painted[n, p] - pixels).square().mean().detach())
            count += 1
    assert count == 4 * 12
    assert float(found) == pytest.approx(total / count, rel=1e-9)


def test_what_is_hidden_is_drawn_anew_and_its_number_is_that_of_the_share():
    method = method_of(hidden=0.5)
    first, second = (method.drawn(50, torch.device("cpu")) for _ in range(2))
    assert first.shape == (50, 8)
    assert not torch.equal(first, second)
    assert (first.sort(1).values == first).all()
    often = torch.bincount(first.flatten(), minlength=16)
    assert often.min() > 10, "every patch is seen sometimes"
    assert method_of(hidden=0.999).drawn(2, torch.device("cpu")).shape == (2, 1)
    assert method_of(hidden=0.001).drawn(2, torch.device("cpu")).shape == (2, 15)


def test_it_learns_to_draw_what_is_hidden():
    """Images of one grey each, whose hidden part follows from what is seen."""
    torch.manual_seed(0)
    method = method_of(hidden=0.5, normalise=False)
    optimizer = torch.optim.AdamW(method.parameters(), 5e-3)
    images = torch.rand(64, 1, 1, 1).expand(64, 1, 8, 8)
    losses = []
    for _ in range(120):
        step = method.step(batch_of(images))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        losses.append(float(step.logs["loss"]))
    assert sum(losses[-10:]) / 10 < 0.5 * images.var().item()
    order = method.drawn(64, images.device)
    whole = method.rebuild(images, order)
    keep = torch.zeros(64, 16, dtype=torch.bool).scatter(1, order, True)
    torch.testing.assert_close(patches_of(whole, 4)[keep], patches_of(images, 4)[keep])
    assert (whole - images).square().mean() < 0.5 * (images - images.mean()).square().mean()


@pytest.mark.parametrize("hidden", [0.0, 1.0, float("nan")])
def test_a_share_out_of_range(hidden: float):
    with pytest.raises(ConfigError, match="hidden"):
        method_of(hidden=hidden)


def test_a_network_without_tokens_is_refused():
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
    with pytest.raises(ConfigError, match="use backbone vit"):
        MaskedAutoencoder(model, image_size=8)
