from __future__ import annotations

import math

import pytest
import torch

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import pairwise_bce_loss, same_rank


def test_agrees_with_a_loop_over_pairs():
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.rand(n, 3, generator=generator, dtype=torch.float64).softmax(1) for n in (4, 5))
    same = torch.rand(4, 5, generator=generator) < 0.5
    total = 0.0
    for i in range(4):
        for j in range(5):
            agree = sum(float(a) * float(b) for a, b in zip(p[i], q[j], strict=True))
            total -= math.log(agree if same[i, j] else 1 - agree) / 20
    assert float(pairwise_bce_loss(p, q, same)) == pytest.approx(total)


def test_certainty_has_a_finite_gradient():
    logits = torch.tensor([[90.0, 0.0], [0.0, 90.0]], requires_grad=True)
    p = logits.softmax(1)
    pairwise_bce_loss(p, p, torch.tensor([[False, True], [True, False]])).backward()
    assert logits.grad.isfinite().all()


def test_ranks_are_compared_as_sets():
    features = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
    found = same_rank(features, count=2)
    largest = [set(sorted(range(6), key=lambda k: -float(row[k]))[:2]) for row in features]
    for i in range(12):
        for j in range(12):
            assert bool(found[i, j]) == (largest[i] == largest[j])


def test_what_does_not_fit_is_refused():
    p = torch.full((2, 2), 0.5)
    with pytest.raises(ShapeError, match="same must be bool"):
        pairwise_bce_loss(p, p, torch.zeros(2, 2))
    with pytest.raises(ShapeError, match="probabilities and others"):
        pairwise_bce_loss(p, p[:, :1], torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(ShapeError, match="d of 3 or more"):
        same_rank(p, count=3)
    with pytest.raises(ConfigError, match="count"):
        same_rank(p, count=0)
