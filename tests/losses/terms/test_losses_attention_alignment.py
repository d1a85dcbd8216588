from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses import attention_alignment


def reference(maps: Tensor, heat: Tensor) -> float:
    """One image, cell by cell; the heat is a whole number of times as large as the maps."""
    channels, h, w = maps.shape
    down, across = heat.shape[0] // h, heat.shape[1] // w
    dot = attention_square = heat_square = 0.0
    for i in range(h):
        for j in range(w):
            attention = sum(float(maps[k, i, j]) for k in range(channels)) / channels
            cells = [float(heat[i * down + a, j * across + b]) for a in range(down) for b in range(across)]
            wanted = sum(cells) / len(cells)
            dot += attention * wanted
            attention_square += attention**2
            heat_square += wanted**2
    return 1 - dot / math.sqrt(attention_square * heat_square)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 99)
)
def test_agrees_with_the_formula(count, channels, h, w, times, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(count, channels, h, w, generator=generator, dtype=torch.float64)
    heat = 0.1 + torch.rand(count, h * times, w * times, generator=generator, dtype=torch.float64)
    expected = torch.tensor([reference(*pair) for pair in zip(maps, heat, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(attention_alignment(maps, heat, reduction="none"), expected)
    torch.testing.assert_close(attention_alignment(maps, heat), expected.mean())
    torch.testing.assert_close(attention_alignment(maps, heat, reduction="sum"), expected.sum())
    torch.testing.assert_close(attention_alignment(7 * maps, 0.1 * heat), expected.mean())


def test_a_mask_without_an_object_says_nothing():
    maps = torch.rand(2, 3, 4, 4, requires_grad=True)
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :4] = True
    loss = attention_alignment(maps, masks)
    torch.testing.assert_close(loss, attention_alignment(maps[:1], masks[:1]))
    loss.backward()
    assert not maps.grad[1].any()
    assert attention_alignment(maps.detach(), torch.zeros(2, 8, 8)) == 0


def test_corners():
    heat = torch.rand(2, 8, 8)
    zero = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_alignment(zero, heat)
    loss.backward()
    assert loss == 1
    assert zero.grad.isfinite().all()
    assert attention_alignment(torch.rand(2, 3, 4, 4).bfloat16(), heat).dtype == torch.float32
    assert attention_alignment(torch.rand(0, 3, 4, 4), heat[:0]) == 0
    with pytest.raises(ShapeError, match="maps must be floating point"):
        attention_alignment(torch.rand(2, 3), heat)
    with pytest.raises(ShapeError, match=r"heat must be \[3, H, W\]"):
        attention_alignment(torch.rand(3, 3, 4, 4), heat)
