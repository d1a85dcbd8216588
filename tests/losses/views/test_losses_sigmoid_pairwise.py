from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import SigmoidPairwise, sigmoid_pairwise_loss


def reference(x, y, scale, bias):
    total = 0.0
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            logit = scale * (a @ b) / (a.norm() * b.norm()) + bias
            total = total - torch.log(torch.sigmoid(logit if i == j else -logit))
    return total / len(x)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 6),
    width=st.integers(1, 4),
    scale=st.sampled_from([1.0, 10.0]),
    bias=st.sampled_from([-10.0, 0.0, 2.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(rows, width, scale, bias, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y, z = (torch.randn(rows, width, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3))
    scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (scale, bias))
    loss, expected = sigmoid_pairwise_loss(x, y, scale=scale, bias=bias), reference(x, y, scale, bias)
    torch.testing.assert_close(loss, expected)
    wanted = (x, y, scale, bias)
    torch.testing.assert_close(
        torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), rtol=1e-6, atol=1e-8
    )
    three = sum(reference(*pair, scale, bias) for pair in ((x, y), (x, z), (y, z))) / 3
    torch.testing.assert_close(sigmoid_pairwise_loss(x, y, z, scale=scale, bias=bias), three)


def test_starts_where_the_paper_starts_and_learns_both():
    loss = SigmoidPairwise()
    x, y = torch.randn(2, 9, 4)
    torch.testing.assert_close(loss(x, y), sigmoid_pairwise_loss(x, y, scale=10.0, bias=-10.0))
    loss(x, y).backward()
    assert loss.log_scale.grad != 0
    assert loss.bias.grad != 0


def test_confident_pairs_cost_nothing_even_in_single_precision():
    x = torch.eye(8)
    assert float(sigmoid_pairwise_loss(x, x, scale=100.0, bias=-50.0)) == pytest.approx(0.0, abs=1e-4)
    assert float(sigmoid_pairwise_loss(x, -x, scale=100.0, bias=-50.0)) == pytest.approx(150.0)


def test_halves_of_the_towers_can_be_summed():
    x, y = torch.randn(2, 6, 3, dtype=torch.float64)
    whole = sigmoid_pairwise_loss(x, y) * 6
    own = sum(sigmoid_pairwise_loss(x[half], y[half]) * 3 for half in (slice(3), slice(3, 6)))
    unit = torch.nn.functional.normalize
    across = sum(
        torch.nn.functional.softplus(10 * unit(x[a], dim=1) @ unit(y[b], dim=1).T - 10).sum()
        for a, b in ((slice(3), slice(3, 6)), (slice(3, 6), slice(3)))
    )
    torch.testing.assert_close(whole, own + across)
