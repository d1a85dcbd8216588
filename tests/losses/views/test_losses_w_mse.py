from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.losses import WMSE, w_mse_loss


def whitened(z):
    centred = z - z.mean(0)
    factor = torch.linalg.cholesky(centred.T @ centred / (len(z) - 1))
    return torch.stack([torch.linalg.inv(factor) @ row for row in centred])


def distance(x, y, normalize):
    if normalize:
        x, y = (torch.stack([row / row.norm() for row in z]) for z in (x, y))
    return sum(((a - b) ** 2).sum() for a, b in zip(x, y, strict=True)) / len(x)


@settings(max_examples=25, deadline=None)
@given(
    extra=st.integers(2, 9),
    width=st.integers(1, 4),
    count=st.integers(2, 3),
    normalize=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(extra, width, count, normalize, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(width + extra, width, generator=generator, dtype=torch.float64) for _ in range(count)]
    expected = [distance(whitened(x), whitened(y), normalize) for i, x in enumerate(views) for y in views[i + 1 :]]
    loss = w_mse_loss(*views, eps=0.0, normalize=normalize)
    torch.testing.assert_close(loss, sum(expected) / len(expected), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("rows", "size", "parts"), [(12, 4, 3), (13, 4, 3), (11, 4, 2), (7, 4, 1), (15, 4, 3)])
def test_a_large_batch_is_whitened_in_random_parts(rows, size, parts):
    x, y = torch.randn(2, rows, 3, dtype=torch.float64)
    torch.manual_seed(0)
    loss = WMSE(size=size, eps=0.0)(x, y)
    torch.manual_seed(0)
    order = torch.randperm(rows) if parts > 1 else torch.arange(rows)
    total = 0.0
    for part in torch.tensor_split(order, parts):
        assert len(part) >= size
        total += distance(whitened(x[part]), whitened(y[part]), True) * len(part) / rows
    torch.testing.assert_close(loss, total)


def test_cuts_are_averaged():
    x, y = torch.randn(2, 12, 3, dtype=torch.float64)
    torch.manual_seed(0)
    singles = [w_mse_loss(x, y, size=4) for _ in range(3)]
    torch.manual_seed(0)
    torch.testing.assert_close(w_mse_loss(x, y, size=4, iterations=3), torch.stack(singles).mean())


@pytest.mark.parametrize("whitening", ["cholesky", "zca"])
def test_gradcheck(whitening):
    x, y = (torch.randn(8, 3, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: w_mse_loss(x, y, whitening=whitening), (x, y))


def test_an_affine_map_of_a_view_does_not_matter_up_to_a_turn():
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    lower = torch.randn(3, 3, dtype=torch.float64).tril() + 3 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(w_mse_loss(x @ lower.T - 2, y, eps=0.0), w_mse_loss(x, y, eps=0.0))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="size must be positive"):
        WMSE(size=0)
    with pytest.raises(ValueError, match="iterations must be positive"):
        w_mse_loss(torch.eye(2), torch.eye(2), iterations=0)
    with pytest.raises(ConfigError, match="whitening must be"):
        WMSE(whitening="pca")
    with pytest.raises(ValueError, match="views must be 2 or more"):
        WMSE(views=1)
    assert WMSE(views=4).views == 4
