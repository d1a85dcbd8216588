from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.ops import pair_rows


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 7),
    m=st.one_of(st.none(), st.integers(1, 6)),
    strip=st.integers(1, 4),
    similarity=st.sampled_from(["dot", "cosine", "euclidean", "sqeuclidean"]),
    seed=st.integers(0, 1000),
)
def test_is_the_dense_form(n, m, strip, similarity, seed):
    x = draw(seed, n, 3).requires_grad_()
    y = None if m is None else draw(seed + 1, m, 3).requires_grad_()
    shift = draw(seed + 2, n).requires_grad_()
    other = x if y is None else y

    def function(values, rows, shift):
        ordered = values.sort(dim=1).values
        return torch.stack([(ordered * torch.arange(ordered.shape[1])).sum(1), shift[rows] ** 2], dim=1)

    found = pair_rows(x, y, function, similarity=similarity, scale=0.7, parameters=(shift,), strip=strip)
    if similarity in ("dot", "cosine"):
        a, b = (t / t.norm(dim=1, keepdim=True) if similarity == "cosine" else t for t in (x, other))
        s = a @ b.T
    else:
        square = (x[:, None] - other).square().sum(2)
        # A distance of zero has no slope.
        root = square.where(square > 0, 1.0).sqrt().where(square > 0, 0.0)
        s = square if similarity == "sqeuclidean" else root
    expected = function(0.7 * s, slice(None), shift)
    torch.testing.assert_close(found, expected)
    leaves = [t for t in (x, y, shift) if t is not None]
    weights = torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view(found.shape)
    gradients = [torch.autograd.grad((v * weights).sum(), leaves, allow_unused=True) for v in (found, expected)]
    for a, b, leaf in zip(*gradients, leaves, strict=True):
        zero = torch.zeros_like(leaf)
        torch.testing.assert_close(zero if a is None else a, zero if b is None else b, rtol=1e-6, atol=1e-6)


def test_gradients_of_gradients():
    x, y, w = draw(0, 4, 3).requires_grad_(), draw(1, 5, 3).requires_grad_(), draw(2, 5).requires_grad_()

    def function(x, y, w):
        return pair_rows(x, y, lambda s, rows, w: torch.tanh(s @ w), similarity="euclidean", parameters=(w,), strip=3)

    assert torch.autograd.gradcheck(function, (x, y, w))
    assert torch.autograd.gradgradcheck(function, (x, y, w))


def test_a_function_of_the_wrong_shape():
    with pytest.raises(ShapeError, match=r"with 2 rows for this strip \[2, 2\], found \[1\]"):
        pair_rows(torch.eye(2), None, lambda strip, rows: strip.sum()[None])
    with pytest.raises(ShapeError, match="strip must be 1 or more"):
        pair_rows(torch.eye(2), None, lambda strip, rows: strip.sum(1), strip=0)
