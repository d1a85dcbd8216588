from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import NTXent, SupCon, nt_xent_loss


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 6),
    width=st.integers(1, 4),
    temperature=st.sampled_from([0.01, 0.1, 1.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(samples, width, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(samples, width, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    z = [row / row.norm() for view in views for row in view]
    losses = []
    for i in range(2 * samples):
        partner = (i + samples) % (2 * samples)
        denominator = sum(torch.exp(z[i] @ z[k] / temperature) for k in range(2 * samples) if k != i)
        losses.append(-torch.log(torch.exp(z[i] @ z[partner] / temperature) / denominator))
    expected = sum(losses) / len(losses)
    loss = NTXent(temperature)(*views)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(expected, views), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("count", [2, 3])
def test_is_supcon_with_a_class_for_each_sample(count):
    views = [torch.randn(5, 4, dtype=torch.float64) for _ in range(count)]
    expected = SupCon(0.3)(torch.cat(views), torch.arange(5).repeat(count))
    torch.testing.assert_close(nt_xent_loss(*views, temperature=0.3), expected)


def test_a_zero_vector_is_orthogonal_to_everything():
    x = torch.eye(3, dtype=torch.float64)
    x[0] = 0
    x.requires_grad_()
    loss = nt_xent_loss(x, torch.eye(3, dtype=torch.float64), temperature=1.0)
    loss.backward()
    similarities = torch.cat([x, torch.eye(3, dtype=torch.float64)]).detach()
    similarities = similarities @ similarities.T
    lse = similarities.fill_diagonal_(-torch.inf).logsumexp(1)
    torch.testing.assert_close(loss.detach(), lse.mean() - 4 / 6)
    assert x.grad.isfinite().all()
    assert not x.grad[0].any()


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature must be positive"):
        NTXent(0.0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        nt_xent_loss(torch.eye(2), torch.eye(2), temperature=-1.0)
