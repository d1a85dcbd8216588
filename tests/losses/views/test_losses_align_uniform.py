from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import AlignUniform, align_uniform_loss, alignment_loss, uniformity_loss

SETTINGS = settings(max_examples=25, deadline=None)


def unit(x):
    return torch.stack([row / row.norm() for row in x])


def reference_alignment(views, alpha):
    z = [unit(view) for view in views]
    terms = [
        torch.linalg.vector_norm(z[u][i] - z[v][i]) ** alpha
        for u in range(len(z))
        for v in range(u)
        for i in range(len(z[0]))
    ]
    return sum(terms) / len(terms)


def reference_uniformity(x, t):
    z, n = unit(x), len(x)
    terms = [torch.exp(-t * ((z[i] - z[j]) ** 2).sum()) for i in range(n) for j in range(n) if i != j]
    return torch.log(sum(terms) / len(terms))


@SETTINGS
@given(
    samples=st.integers(2, 7),
    count=st.integers(2, 3),
    alpha=st.sampled_from([1.0, 1.5, 2.0, 4.0]),
    t=st.sampled_from([0.5, 2.0, 40.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(samples, count, alpha, t, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(samples, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]
    align, uniform = reference_alignment(views, alpha), [reference_uniformity(view, t) for view in views]
    torch.testing.assert_close(alignment_loss(*views, alpha=alpha), align)
    torch.testing.assert_close(uniformity_loss(views[0], t=t), uniform[0])
    expected = 0.7 * align + 1.3 * sum(uniform) / count
    loss = AlignUniform(0.7, 1.3, alpha, t)(*views)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(expected, views), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_identical_views_have_a_finite_gradient(alpha):
    x = torch.randn(4, 3, requires_grad=True)
    loss = alignment_loss(x, x.detach().clone(), alpha=alpha)
    loss.backward()
    assert loss == 0
    assert x.grad.isfinite().all()


def test_uniformity_of_what_is_known():
    # The corners of a simplex: all squared distances are 2 n / (n - 1).
    corners = torch.eye(5, dtype=torch.float64) - 0.2
    torch.testing.assert_close(uniformity_loss(corners, t=3.0), torch.tensor(-7.5, dtype=torch.float64))
    torch.testing.assert_close(uniformity_loss(torch.ones(600, 4)), torch.tensor(0.0), rtol=0, atol=1e-5)


def test_uniformity_of_fewer_than_two_rows_is_zero():
    for rows in (0, 1):
        x = torch.ones(rows, 3, requires_grad=True)
        loss = uniformity_loss(x)
        loss.backward()
        assert loss == 0
        assert not x.grad.any()


def test_uniformity_is_gradcheck():
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(uniformity_loss, (x,))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("alpha", 0.5, "alpha must be 1 or more, found 0.5"),
        ("alpha", math.nan, "alpha must be 1 or more"),
        ("t", 0.0, "t must be positive"),
        ("align_weight", -1.0, "align_weight must be 0 or more"),
        ("uniform_weight", -1.0, "uniform_weight must be 0 or more"),
    ],
)
def test_options_out_of_range(option, value, message):
    with pytest.raises(ValueError, match=message):
        AlignUniform(**{option: value})
    with pytest.raises(ValueError, match=message):
        align_uniform_loss(torch.eye(2), torch.eye(2), **{option: value})
