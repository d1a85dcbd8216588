from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.losses import relation_distillation


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def relation(prototype: list[float], rows: list[list[float]], t: float) -> list[float]:
    powers = [math.exp(cosine(prototype, row) / t) for row in rows]
    return [power / sum(powers) for power in powers]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(0, 4), st.sampled_from([0.1, 1.0]), st.integers(0, 999))
def test_is_the_formula(n, k, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    z, old_z = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    p, old_p = (torch.randn(k, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for now, before in zip(p.tolist(), old_p.tolist(), strict=True):
        pairs = zip(relation(before, old_z.tolist(), temperature), relation(now, z.tolist(), temperature), strict=True)
        expected += sum(q * math.log(q / r) for q, r in pairs)
    found = relation_distillation(z, p, old_z, old_p, temperature=temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_prototypes_that_turn_with_the_features_lose_nothing():
    generator = torch.Generator().manual_seed(0)
    z, p = torch.randn(9, 4, generator=generator), torch.randn(3, 4, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator))
    assert relation_distillation(5 * z @ turn, 3 * p @ turn, z, p) < 1e-6
    assert relation_distillation(z, p @ turn, z, p) > 1e-3


def test_an_empty_batch_has_a_gradient():
    z, p = torch.zeros(0, 4, requires_grad=True), torch.randn(2, 4).requires_grad_()
    loss = relation_distillation(z, p, z.detach(), p.detach())
    loss.backward()
    assert loss == 0
    assert not p.grad.any()


def test_what_does_not_fit():
    z, p = torch.zeros(4, 3), torch.zeros(2, 3)
    with pytest.raises(ShapeError, match="features must be"):
        relation_distillation(z, p, z[:2], p)
    with pytest.raises(ShapeError, match="prototypes must be"):
        relation_distillation(z, p[:, :2], z, p[:, :2])
