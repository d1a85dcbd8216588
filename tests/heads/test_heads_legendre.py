from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from repertoire.heads import ConvexGradient, Legendre


def potential(link: ConvexGradient, z: torch.Tensor) -> torch.Tensor:
    """The convex network itself, layer by layer from its definition."""
    below = None
    for level, layer in enumerate(link.inputs):
        before = layer(z)
        if below is not None:
            before = before + below @ (F.softplus(link.between[level - 1]) / link.hidden).T
        below = (1 + before.exp()).log()
    g = below @ F.softplus(link.output) / link.hidden
    return F.softplus(link.raw_alpha) * (z**2).sum(1) / 2 + F.softplus(link.raw_gamma) * g


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 999))
def test_the_map_is_the_gradient_of_the_convex_network(rows, width, hidden, depth, seed):
    torch.manual_seed(seed)
    link = ConvexGradient(width, hidden, depth).double()
    z = (2 * torch.randn(rows, width, dtype=torch.float64)).requires_grad_()
    (expected,) = torch.autograd.grad(potential(link, z).sum(), z)
    torch.testing.assert_close(link(z), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(0, 999))
def test_a_block_is_strongly_monotone_with_a_symmetric_jacobian(width, seed):
    torch.manual_seed(seed)
    link = ConvexGradient(width, 3, 3).double()
    with torch.no_grad():
        for parameter in link.parameters():
            parameter.add_(torch.randn_like(parameter))
    a, b = torch.randn(2, 20, width, dtype=torch.float64)
    alpha = F.softplus(link.raw_alpha)
    assert (((a - b) * (link(a) - link(b))).sum(1) >= alpha * (a - b).square().sum(1) - 1e-9).all()
    jacobian = torch.autograd.functional.jacobian(lambda z: link(z[None])[0], a[0])
    torch.testing.assert_close(jacobian, jacobian.T)
    assert torch.linalg.eigvalsh(jacobian).min() >= alpha.detach() - 1e-9


def test_probabilities_are_those_of_the_paper():
    head = Legendre(6, 4).double()
    z = torch.randn(5, 6, dtype=torch.float64)
    v = head.link(head.linear(z))
    p = head(z).softmax(1)
    torch.testing.assert_close(p[:, :3], v.exp() / (1 + v.exp().sum(1, keepdim=True)))
    torch.testing.assert_close(p[:, 3], 1 / (1 + v.exp().sum(1)))


def test_without_blocks_it_is_logistic_regression():
    head = Legendre(6, 4, blocks=0)
    z = torch.randn(5, 6)
    torch.testing.assert_close(head(z), F.pad(head.linear(z), (0, 1)))


def test_the_link_is_learned():
    head, z = Legendre(4, 3), torch.randn(64, 4)
    F.cross_entropy(head(z), torch.arange(64) % 3).backward()
    assert all(parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("options", [{"blocks": -1}, {"hidden": 0}, {"depth": 0}, {"num_classes": 1}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="must be"):
        Legendre(4, **{"num_classes": 3, **options})
