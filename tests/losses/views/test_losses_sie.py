from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import SIE, sie_loss, vicreg_loss


def variance(z):
    return torch.relu(1 - (z.var(0) + 1e-4).sqrt()).mean()


def covariance(z):
    c = torch.cov(z.T).reshape(z.shape[1], z.shape[1])
    return (c.square().sum() - c.diagonal().square().sum()) / z.shape[1]


def reference(x, y, g, hypernetwork, weights):
    part = x.shape[1] - hypernetwork.shape[1]
    matrices = [sum(g[i, k] * hypernetwork[k] for k in range(g.shape[1])) for i in range(len(x))]
    predicted = torch.stack([matrices[i] @ x[i, part:] for i in range(len(x))])
    return (
        weights[0] * (x[:, :part] - y[:, :part]).square().mean()
        + weights[1] * (predicted - y[:, part:]).square().mean()
        + weights[2] * (variance(x) + variance(y) + variance(predicted))
        + weights[3] * (covariance(x) + covariance(y))
    )


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 6),
    width=st.integers(2, 6),
    parameters=st.integers(1, 4),
    share=st.sampled_from([0.2, 0.5, 0.9]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(rows, width, parameters, share, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(rows, width, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    g = torch.randn(rows, parameters, generator=generator, dtype=torch.float64)
    loss = SIE(parameters, share, 2.0, 3.0, 5.0, 7.0, dimensions=width).double()
    expected = reference(x, y, g, loss.hypernetwork, (2.0, 3.0, 5.0, 7.0))
    value = loss(x, y, transformation=g)
    torch.testing.assert_close(value, expected)
    wanted = (x, y, loss.hypernetwork)
    torch.testing.assert_close(
        torch.autograd.grad(value, wanted), torch.autograd.grad(expected, wanted), rtol=1e-6, atol=1e-8
    )


def test_the_hypernetwork_learns_the_transformation():
    generator = torch.Generator().manual_seed(0)
    x, angle = torch.randn(256, 4, generator=generator), 6.3 * torch.rand(256, generator=generator)
    g = torch.stack([angle.cos(), angle.sin()], 1)
    turned = torch.stack([g[:, 0] * x[:, 2] - g[:, 1] * x[:, 3], g[:, 1] * x[:, 2] + g[:, 0] * x[:, 3]], 1)
    y = torch.cat([x[:, :2], turned], 1)
    loss = SIE(parameters=2, dimensions=4, variance_weight=0.0, covariance_weight=0.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        value = loss(x, y, transformation=g)
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 1e-3
    turn = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [1.0, 0.0]]])
    torch.testing.assert_close(loss.hypernetwork.detach(), turn, atol=0.02, rtol=0)


def test_views_between_take_part_in_what_does_not_depend_on_the_transformation():
    x, y, z = torch.randn(3, 6, 4, dtype=torch.float64)
    g, maker = torch.randn(6, 2, dtype=torch.float64), torch.zeros(2, 2, 2, dtype=torch.float64)
    options = {"variance_weight": 0.0, "covariance_weight": 0.0, "equivariance_weight": 0.0}
    loss = sie_loss(x, y, z, transformation=g, hypernetwork=maker, **options)
    expected = vicreg_loss(
        x[:, :2], y[:, :2], z[:, :2], invariance_weight=10.0, variance_weight=0.0, covariance_weight=0.0
    )
    torch.testing.assert_close(loss, expected)


def test_wrong_arguments():
    x = torch.randn(3, 4)
    with pytest.raises(ConfigError, match=r"say SIE\(dimensions=4\)"):
        SIE()(x, x, transformation=torch.zeros(3, 4))
    loss = SIE(parameters=2, dimensions=4)
    with pytest.raises(ShapeError, match=r"SIE needs the transformation .* float \[3, 2\]"):
        loss(x, x)
    with pytest.raises(ShapeError, match=r"transformation must be a floating point \[3, 2\]"):
        loss(x, x, transformation=torch.zeros(3, 4))
    with pytest.raises(ShapeError, match=r"hypernetwork must be \[p, e, e\] with e less than 2"):
        loss(x[:, :2], x[:, :2], transformation=torch.zeros(3, 2))
    with pytest.raises(ConfigError, match="dimensions must be 2 or more"):
        SIE(dimensions=1)
    with pytest.raises(ConfigError, match="equivariant must lie in"):
        SIE(equivariant=1.0)
