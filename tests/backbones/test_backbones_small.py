"""The convolutional network, the perceptron and the transformer: their formulas, sizes and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.backbones import MLP, ConvNet, ViT
from repertoire.errors import ConfigError, ShapeError


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 70), depth=st.integers(1, 5), channels=st.integers(1, 4))
def test_convnet_takes_any_size(size: int, depth: int, channels: int) -> None:
    net = ConvNet(channels, size, width=2, depth=depth).eval()
    x = torch.randn(2, channels, size, size)
    with torch.no_grad():
        assert net(x).shape == (2, 2**depth)
        side = net.forward_map(x).shape[2]
    assert side >= min(size, 4)  # never pooled below 4x4
    assert net(torch.randn(1, channels, 3, 50)).shape == (1, 2**depth)


def test_convnet_learns_digits() -> None:
    from sklearn.datasets import load_digits
    from torch.nn import functional as F

    torch.manual_seed(0)
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels))
    train, test = order[:1400], order[1400:]
    net, head = ConvNet(1, 8, width=16), torch.nn.Linear(128, 10)
    optimizer = torch.optim.AdamW([*net.parameters(), *head.parameters()], 3e-3)
    for _ in range(4):
        for index in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            F.cross_entropy(head(net(images[index])), labels[index]).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        accuracy = (head(net(images[test])).argmax(1) == labels[test]).float().mean()
    assert accuracy > 0.95


@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 9), hidden=st.integers(1, 8), depth=st.integers(1, 3), channels=st.integers(1, 3))
def test_mlp_is_its_formula(size: int, hidden: int, depth: int, channels: int) -> None:
    net = MLP(channels, size, hidden, depth).double().eval()
    x = torch.randn(3, channels, size, size, dtype=torch.float64)
    expected = x.reshape(3, -1)
    for block in net.blocks:  # fresh running statistics are mean 0, variance 1
        expected = (expected @ block.linear.weight.T / math.sqrt(1 + 1e-5)).clamp_min(0)
    torch.testing.assert_close(net(x), expected)
    assert net.grid(net.forward_map(x)).shape == (3, hidden, 1, 1)


def _attention(x: torch.Tensor, qkv: torch.nn.Linear, heads: int) -> torch.Tensor:
    """Equations 5 to 8 of the paper, a head after the other."""
    query, key, value = (x @ qkv.weight.T + qkv.bias).chunk(3, dim=-1)
    width = query.shape[-1] // heads
    outputs = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(width)
        outputs.append(scores.softmax(-1) @ value[..., part])
    return torch.cat(outputs, -1)


@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(3, 12),
    patch=st.integers(1, 5),
    heads=st.integers(1, 3),
    depth=st.integers(1, 2),
    pooling=st.sampled_from(["mean", "cls"]),
)
def test_vit_is_its_formula(size: int, patch: int, heads: int, depth: int, pooling: str) -> None:
    torch.manual_seed(0)
    net = ViT(2, size, patch, 4 * heads, depth, heads, 2.0, pooling).double().eval()  # type: ignore[arg-type]
    x = torch.randn(2, 2, size, size, dtype=torch.float64)
    side = math.ceil(size / patch)
    padded = torch.zeros(2, 2, side * patch, side * patch, dtype=torch.float64)
    padded[:, :, :size, :size] = x
    embed = net.blocks[0]
    weight = embed.proj.weight.flatten(1)
    tokens = torch.stack(
        [
            padded[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].flatten(1) @ weight.T
            for i in range(side)
            for j in range(side)
        ],
        dim=1,
    )
    if pooling == "cls":
        tokens = torch.cat([embed.cls.expand(2, 1, -1), tokens], dim=1)
    tokens = tokens + embed.position
    for index, block in enumerate(net.blocks[1:]):
        inner = block[0] if index == depth - 1 else block
        tokens = tokens + inner.attention.proj(_attention(inner.norm1(tokens), inner.attention.qkv, heads))
        tokens = tokens + inner.mlp(inner.norm2(tokens))
    tokens = net.blocks[-1][1](tokens)
    torch.testing.assert_close(net(x), tokens[:, 0] if pooling == "cls" else tokens.mean(1))
    maps = net.grid(net.forward_map(x))
    assert maps.shape == (2, 4 * heads, side, side)
    torch.testing.assert_close(maps[:, :, 0, side - 1], tokens[:, side - 1 + (pooling == "cls")])


@pytest.mark.parametrize(("size", "side"), [(8, 8), (28, 7), (32, 8), (64, 8), (224, 14), (31, 8)])
def test_vit_chooses_its_patches(size: int, side: int) -> None:
    assert ViT(image_size=size, dim=6, depth=1).side == side


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConvNet(width=0), "width is 0"),
        (lambda: ConvNet(depth=9), "depth is 9"),
        (lambda: MLP(depth=0), "depth is 0"),
        (lambda: ViT(dim=10), "multiple of heads"),
        (lambda: ViT(mlp_ratio=0), "mlp_ratio is 0"),
        (lambda: ViT(pooling="max"), "pooling is 'max'"),  # type: ignore[arg-type]
        (lambda: ViT(patch=0), "patch is 0"),
    ],
)
def test_bad_options(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize("net", [MLP(), ViT(depth=1)], ids=["mlp", "vit"])
def test_images_of_another_size_are_refused(net: torch.nn.Module) -> None:
    with pytest.raises(ShapeError, match="image_size"):
        net(torch.zeros(2, 3, 16, 16))


def test_features_pass_as_they_are() -> None:
    net = registry.build("backbones", "identity", in_channels=5, image_size=1)
    features = torch.randn(3, 5)
    assert torch.equal(net(features), features)
    assert net.grid(features).shape == (3, 5, 1, 1)
    assert [maps.shape for maps in net.stages(features)] == [(3, 5, 1, 1)]
    assert net.groups() == [[]]
    assert net.out_features == 5
    with pytest.raises(ConfigError, match="vectors of features, and these are images"):
        registry.build("backbones", "identity", in_channels=3, image_size=32)
