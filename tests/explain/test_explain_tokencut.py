"""TokenCut against the definition of the normalised cut, and on networks of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from repertoire import backbones, heads
from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import TokenCut, token_cut
from repertoire.methods import Classifier, Normalize


def affinities(features: Tensor, tau: float, eps: float) -> np.ndarray:
    rows = features.double().flatten(1).T.numpy()
    weights = np.empty((len(rows), len(rows)))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            lengths = np.linalg.norm(a) * np.linalg.norm(b)
            weights[i, j] = 1.0 if lengths and a @ b / lengths >= tau else eps
    return weights


def connected(side: np.ndarray, start: tuple[int, int]) -> np.ndarray:
    found, waiting = np.zeros_like(side), [start]
    while waiting:
        i, j = waiting.pop()
        if 0 <= i < side.shape[0] and 0 <= j < side.shape[1] and side[i, j] and not found[i, j]:
            found[i, j] = True
            waiting += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(2, 5),
    st.sampled_from([-0.3, 0.0, 0.2, 0.6]),
    st.integers(0, 999),
)
def test_agrees_with_the_definition(count, channels, h, w, tau, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, channels, h, w, generator=generator)
    eps = 1e-3
    cut = token_cut(features, tau=tau, eps=eps)
    for image in range(count):
        weights = affinities(features[image], tau, eps)
        degrees = np.diag(weights.sum(1))
        values, vectors = scipy.linalg.eigh(degrees - weights, degrees)
        y = cut.eigenvector[image].flatten().numpy()
        off = weights[~np.eye(len(weights), dtype=bool)]
        if off.min() == off.max():
            assert not y.any()
            assert not cut.mask[image].any()
            continue
        # The eigenvector, whatever basis was chosen of its space.
        np.testing.assert_allclose((degrees - weights) @ y, values[1] * degrees @ y, atol=1e-8)
        np.testing.assert_allclose(y @ degrees @ y, 1.0, atol=1e-8)
        if len(values) > 2 and values[2] - values[1] > 1e-6:
            np.testing.assert_allclose(np.abs(y), np.abs(vectors[:, 1]), atol=1e-5)
        seed_cell = int(np.abs(y).argmax())
        assert y[seed_cell] > 0
        if np.abs(y - y.mean()).min() < 1e-9:
            continue  # a cell as near to the mean as the rounding of the mean lies on either side
        side = (y > y.mean()).reshape(h, w)
        np.testing.assert_array_equal(cut.side[image].numpy(), side)
        mask = connected(side, divmod(seed_cell, w))
        np.testing.assert_array_equal(cut.mask[image].numpy(), mask)
        rows, columns = np.nonzero(mask)
        assert cut.boxes[image].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def planted(count: int = 3) -> tuple[Tensor, Tensor]:
    """Maps of noisy background features with an object of other features, and where it is."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(count, 8, 8, dtype=torch.bool)
    for image in range(count):
        mask[image, 1 + image : 4 + image, 2:5] = True
    background, thing = torch.eye(6)[0], torch.eye(6)[1]
    maps = torch.where(mask[:, None], thing[None, :, None, None], background[None, :, None, None])
    return maps + 0.03 * torch.randn(count, 6, 8, 8, generator=generator), mask


def test_finds_what_was_planted_whatever_the_length_of_features():
    maps, mask = planted()
    assert torch.equal(token_cut(maps).mask, mask)
    lengths = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.1
    assert torch.equal(token_cut(maps * lengths).mask, mask)
    assert token_cut(maps).boxes.tolist() == [[2, 1, 5, 4], [2, 2, 5, 5], [2, 3, 5, 6]]


def test_the_object_is_one_part_and_the_side_is_all_of_them():
    maps, _ = planted(1)
    maps[:, :, 7, 7] = maps[:, :, 2, 3]
    cut = token_cut(maps)
    assert cut.side.sum() == 10
    assert cut.mask.sum() in (1, 9)
    assert (cut.mask <= cut.side).all()


@pytest.mark.parametrize("maps", [torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.eye(16).view(1, 16, 4, 4)])
def test_nothing_to_cut(maps):
    cut = token_cut(maps)
    assert not cut.mask.any()
    assert not cut.boxes.any()
    assert not cut.eigenvector.any()


def test_half_precision_and_an_empty_batch():
    maps, mask = planted()
    assert torch.equal(token_cut(maps.bfloat16()).mask, mask)
    assert token_cut(maps[:0]).boxes.shape == (0, 4)


def test_bad_input():
    with pytest.raises(ShapeError, match="two cells or more"):
        token_cut(torch.zeros(2, 3, 1, 1))
    with pytest.raises(ConfigError, match="tau is a cosine"):
        TokenCut(tau=2.0)
    with pytest.raises(ConfigError, match="eps must lie"):
        token_cut(torch.zeros(2, 3, 2, 2), eps=0.0)
    with pytest.raises(ConfigError, match="one layer"):
        TokenCut(layer=["a", "b"])


def vit(pooling: backbones._vit.Pooling = "mean") -> Classifier:
    torch.manual_seed(0)
    net = backbones.ViT(image_size=16, patch=4, dim=12, depth=2, heads=2, pooling=pooling)
    return Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 3))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_transformer_is_cut_by_the_keys_of_its_last_attention(pooling):
    model, images = vit(pooling).eval(), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    kept = []
    attention = model.backbone.blocks[-1][0].attention
    handle = attention.qkv.register_forward_hook(lambda module, args, output: kept.append(output.detach()))
    with torch.no_grad():
        model(images)
    handle.remove()
    keys = model.backbone.grid(kept[0][:, :, 12:24])
    expected = token_cut(keys, tau=0.3).mask.repeat_interleave(4, 1).repeat_interleave(4, 2).float()
    assert torch.equal(TokenCut(tau=0.3)(model, images), expected)


def test_other_networks_are_cut_by_their_last_maps_about_the_mean():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        maps = net[1](net[0](images))
    plain, centred = token_cut(maps).mask, token_cut(maps - maps.mean((2, 3), keepdim=True)).mask
    larger = nn.Upsample(scale_factor=2)
    assert torch.equal(TokenCut()(net, images), larger(centred[:, None].float())[:, 0])
    assert torch.equal(TokenCut(centred=False)(net, images), larger(plain[:, None].float())[:, 0])
    assert (TokenCut()(net, images) <= TokenCut(whole=True)(net, images)).all()


def test_several_targets_are_checked_and_change_nothing():
    model, images = vit(), torch.rand(2, 3, 16, 16)
    maps = TokenCut()(model, images, torch.tensor([[0, 1], [2, 0]]))
    assert maps.shape == (2, 2, 16, 16)
    assert torch.equal(maps[:, 0], TokenCut()(model, images))
    with pytest.raises(ShapeError, match="classes from 0 to 2"):
        TokenCut()(model, images, 3)


def test_a_network_of_windows_is_refused():
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(3, 9)

        def forward(self, images: Tensor) -> Tensor:
            return self.qkv(images.flatten(2).transpose(1, 2).reshape(-1, 16, 3)).mean((1, 2)).view(len(images), -1)

    with pytest.raises(ConfigError, match="tokens of an image together"):
        TokenCut()(Windows(), torch.rand(2, 3, 16, 16))
