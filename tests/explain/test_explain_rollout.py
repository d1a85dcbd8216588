"""Attention roll-out against attention that is written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import backbones, heads
from repertoire.errors import ConfigError, MissingExtra, ShapeError
from repertoire.explain import AttentionRollout
from repertoire.methods import Classifier, Normalize


def vit(pooling: str = "mean", seed: int = 0, depth: int = 3) -> Classifier:
    torch.manual_seed(seed)
    net = backbones.ViT(image_size=16, patch=4, dim=12, depth=depth, heads=3, pooling=pooling)
    for parameter in net.parameters():
        parameter.data.mul_(3)  # attention that is not alike everywhere
    return Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(12, 4)).eval()


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def reference(model: Classifier, image: Tensor, fuse: str) -> Tensor:
    net = model.backbone
    y = net.blocks[0](model.normalize(image[None]))
    rolled = torch.eye(y.shape[1], dtype=y.dtype)
    for block in net.blocks[1:]:
        inner = block[0] if isinstance(block, nn.Sequential) else block
        query, key, _ = inner.attention.qkv(inner.norm1(y)).unflatten(2, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) / 2).softmax(3)[0]  # the square root of 4 features
        mixed = {"mean": weights.mean(0), "max": weights.amax(0), "min": weights.amin(0)}[fuse]
        mixed = mixed / mixed.sum(1, keepdim=True)
        rolled = (0.5 * mixed + 0.5 * torch.eye(len(mixed), dtype=y.dtype)) @ rolled
        y = block(y)
    row = rolled[0, 1:] if net.pooling == "cls" else rolled.mean(0)
    return F.interpolate(row.reshape(1, 1, 4, 4), (16, 16), mode="bilinear", align_corners=False)[0, 0]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["mean", "max", "min"]), st.integers(1, 3), st.integers(0, 99))
def test_equals_the_definition(pooling, fuse, depth, seed):
    model, x = vit(pooling, seed, depth).double(), images(seed=seed).double()
    maps = AttentionRollout(fuse, normalize=False)(model, x)
    for i in range(2):
        torch.testing.assert_close(maps[i], reference(model, x[i], fuse))
    torch.testing.assert_close(AttentionRollout(fuse)(model, x).amax((1, 2)), torch.ones(2, dtype=torch.float64))


def test_does_not_depend_on_the_class_and_checks_targets_all_the_same():
    model, x = vit(), images()
    maps = AttentionRollout()(model, x)
    several = AttentionRollout()(model, x, torch.tensor([[0, 1, 2], [3, 3, 1]]))
    torch.testing.assert_close(several, maps[:, None].expand(-1, 3, -1, -1))
    with pytest.raises(ShapeError, match="from 0 to 3, found 4"):
        AttentionRollout()(model, x, 4)


class Foreign(nn.Module):
    """Attention computed in the ways in which networks do it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=way != "seq first") for _ in range(2))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def attend(self, layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
        if self.way == "seq first":
            return layer(*[x.transpose(0, 1)] * 3)[0].transpose(0, 1)
        if self.way == "module":
            return layer(x, x, x, need_weights=False)[0]
        if self.way == "weights":
            output, weights = layer(x, x, x)
            assert weights.shape == (len(x), x.shape[1], x.shape[1])
            return output
        q, k, v = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.way == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.way == "masked":
            everywhere = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=everywhere)
        elif self.way == "scaled":
            y = F.scaled_dot_product_attention(q * 2, k, v, torch.zeros(x.shape[1], x.shape[1]), scale=0.25)
        elif self.way == "method":
            y = (q / 2 @ k.mT).softmax(dim=-1) @ v
        else:
            y = F.softmax(q @ k.mT / 2, dim=-1) @ v
        return layer.out_proj(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        for layer in self.attention:
            x = x + self.attend(layer, x)
        if self.way == "encoder":
            x = self.encoder(x)
        return self.head(x[:, 0])


@pytest.mark.parametrize("way", ["module", "weights", "seq first", "fused", "masked", "scaled", "method"])
def test_attention_is_found_however_it_is_computed(way):
    x = images()
    expected = AttentionRollout()(Foreign("function").eval(), x)
    assert expected.std() > 0.01
    torch.testing.assert_close(AttentionRollout()(Foreign(way).eval(), x), expected)


def test_the_fast_path_of_an_encoder_layer_is_seen_too():
    model = Foreign("encoder").eval()
    maps = AttentionRollout()(model, images())
    assert not torch.allclose(maps, AttentionRollout()(Foreign("fused").eval(), images()), atol=1e-3)


def test_causal_attention_and_grouped_keys():
    from repertoire.explain.tokens._rollout import _attention

    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 3), torch.randn(2, 2, 5, 3), torch.randn(2, 2, 5, 3)
    weights = _attention(q, k, v, is_causal=True, enable_gqa=True)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(weights @ v.repeat_interleave(2, 1), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [("vit_tiny_patch16_224", {}), ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False}),
     ("deit_tiny_distilled_patch16_224", {}), ("vit_small_patch16_dinov3", {})],
)  # fmt: skip
def test_networks_of_timm(name, options):
    from repertoire.backbones import import_timm

    try:
        timm = import_timm(name)
    except MissingExtra as error:
        pytest.skip(str(error))
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=32, num_classes=5, depth=2, **options).eval()
    x = torch.rand(2, 3, 32, 32)
    fused = AttentionRollout(normalize=False)(model, x)
    assert fused.shape == (2, 32, 32)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    torch.testing.assert_close(AttentionRollout(normalize=False)(model, x), fused)


def test_networks_that_do_not_fit():
    x = images()
    cnn = Classifier(Normalize([0.5] * 3, [0.25] * 3), backbones.ConvNet(), heads.Linear(256, 4))
    with pytest.raises(ConfigError, match="no attention from every token to every other was seen in the Classifier"):
        AttentionRollout()(cnn, x)
    with pytest.raises(ConfigError, match="heads must be"):
        AttentionRollout("sum")

    class Shrinks(Foreign):
        def attend(self, layer: nn.MultiheadAttention, y: Tensor) -> Tensor:
            z = super().attend(layer, y[:, -y.shape[1] // 2 :])
            return torch.cat([z, z], 1)[:, : y.shape[1]]

        def forward(self, y: Tensor) -> Tensor:
            y = self.patch(y).flatten(2).transpose(1, 2)
            y = self.attend(self.attention[0], y)
            return self.head(super().attend(self.attention[1], y[:, :12]).mean(1))

    with pytest.raises(ConfigError, match="tokens after being between"):
        AttentionRollout()(Shrinks("fused").eval(), x)

    class Cuts(Foreign):
        def forward(self, y: Tensor) -> Tensor:
            y = self.patch(y).flatten(2).transpose(1, 2)
            return self.head(self.attend(self.attention[0], y).mean(1).detach())

    with pytest.raises(ConfigError, match="do not depend on its last attention"):
        AttentionRollout()(Cuts("fused").eval(), x)


def test_tokens_that_make_up_no_grid():
    model = Foreign("fused").eval()
    model.patch = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.AdaptiveAvgPool1d(282))
    with pytest.raises(ConfigError, match="make up no grid"):
        AttentionRollout()(model, images())


def test_half_precision_and_autocast():
    model, x = vit(), images()
    expected = AttentionRollout()(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(AttentionRollout()(model, x), expected, rtol=0, atol=0.1)
    half = AttentionRollout()(model.to(torch.bfloat16), x)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=0, atol=0.1)
