from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from repertoire.losses import CLIP, clip_loss


def reference(x, y, scale):
    logits = scale * torch.stack([torch.stack([a @ b / (a.norm() * b.norm()) for b in y]) for a in x])
    labels = torch.arange(len(x))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 6), width=st.integers(1, 4), scale=st.sampled_from([1.0, 14.0, 100.0]), seed=st.integers(0, 99)
)
def test_is_the_paper(rows, width, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y, z = (torch.randn(rows, width, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3))
    scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    loss, expected = clip_loss(x, y, scale=scale), reference(x, y, scale)
    torch.testing.assert_close(loss, expected)
    wanted = (x, y, scale)
    torch.testing.assert_close(
        torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), rtol=1e-6, atol=1e-8
    )
    three = sum(reference(*pair, scale) for pair in ((x, y), (x, z), (y, z))) / 3
    torch.testing.assert_close(clip_loss(x, y, z, scale=scale), three)


def test_the_towers_are_interchangeable():
    x, y = torch.randn(2, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(clip_loss(x, y), clip_loss(y, x))


def test_the_temperature_is_learned_and_stays_above_its_least():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 8, generator=generator)
    loss = CLIP(temperature=0.05, least_temperature=0.02)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(40):  # pairs that agree perfectly want the temperature at zero
        optimizer.zero_grad()
        loss(x, x).backward()
        optimizer.step()
    loss(x, x)
    assert loss.temperature == pytest.approx(0.02)
    for _ in range(40):  # and pairs at random want it high again: the bound does not hold it back
        optimizer.zero_grad()
        loss(x, x.flip(0)).backward()
        optimizer.step()
    assert loss.temperature > 0.05


def test_a_temperature_that_is_not_learned():
    loss = CLIP(temperature=0.5, learn=False)
    x, y = torch.randn(2, 5, 3)
    torch.testing.assert_close(loss(x, y), clip_loss(x, y, scale=2.0))
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"temperature must not be below least_temperature, 0\.1; found 0\.07"):
        CLIP(least_temperature=0.1)
    assert math.isclose(CLIP().temperature, 0.07, rel_tol=1e-6)
