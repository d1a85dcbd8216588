from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.losses import InfoNCE, info_nce_loss


def reference(x, y, temperature, normalize, negatives=None):
    if normalize:
        x, y = (torch.stack([row / row.norm() for row in z]) for z in (x, y))
        negatives = None if negatives is None else torch.stack([row / row.norm() for row in negatives])
    total = 0.0
    for i in range(len(x)):
        positive = torch.exp(x[i] @ y[i] / temperature)
        against = y if negatives is None else negatives
        denominator = sum(torch.exp(x[i] @ other / temperature) for other in against)
        total = total - torch.log(positive / (denominator + (0 if negatives is None else positive)))
    return total / len(x)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 6),
    width=st.integers(1, 4),
    temperature=st.sampled_from([0.05, 1.0]),
    normalize=st.booleans(),
    memory=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(rows, width, temperature, normalize, memory, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y, z = (torch.randn(rows, width, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3))
    queue = torch.randn(5, width, generator=generator, dtype=torch.float64) if memory else None
    options = {"temperature": temperature, "normalize": normalize}
    expected = reference(x, y, negatives=queue, **options)
    loss = info_nce_loss(x, y, negatives=queue, **options)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, (x, y)), torch.autograd.grad(expected, (x, y)), rtol=1e-6, atol=1e-8
    )
    three = (expected.detach() + reference(x, z, negatives=queue, **options)) / 2
    torch.testing.assert_close(InfoNCE(**options)(x, y, z, negatives=queue), three)
    both = (expected.detach() + reference(y, x, negatives=queue, **options)) / 2
    torch.testing.assert_close(InfoNCE(symmetric=True, **options)(x, y, negatives=queue), both)


def test_bounds_the_mutual_information_of_gaussians():
    # With the density ratio itself as the score, log N less the loss is near the mutual information.
    generator = torch.Generator().manual_seed(0)
    rows, rho = 4000, 0.9
    x = torch.randn(rows, 1, dtype=torch.float64, generator=generator)
    y = rho * x + math.sqrt(1 - rho**2) * torch.randn(rows, 1, dtype=torch.float64, generator=generator)
    # log p(y | x) = (rho x y - rho² x² / 2 - y² / 2) / (1 - rho²) + const: a dot product of three features.
    s = 1 / (1 - rho**2)
    left = torch.cat([rho * s * x, -(rho**2) * s * x**2 / 2, torch.ones_like(x)], 1)
    right = torch.cat([y, torch.ones_like(y), -s * y**2 / 2 + y**2 / 2], 1)
    bound = math.log(rows) - float(info_nce_loss(left, right, temperature=1.0, normalize=False))
    assert bound == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.05)


def test_negatives_must_fit_the_views():
    for negatives in (torch.zeros(4, 3), torch.zeros(4, 2, dtype=torch.float64), torch.zeros(2)):
        with pytest.raises(ShapeError, match=r"negatives must be torch.float32 \[M, 2\] like the views"):
            InfoNCE()(torch.eye(2), torch.eye(2), negatives=negatives)
