from __future__ import annotations

import pytest
import torch

from repertoire.claims import Budget
from repertoire.claims.beds import long_tail


def test_the_tail_falls_by_equal_factors_and_is_never_empty():
    assert long_tail.tail(400, 100) == [400, 240, 144, 86, 52, 31, 19, 11, 7, 4]
    assert long_tail.tail(10, 100, 3) == [10, 1, 1]


def test_every_class_counts_alike_and_rare_means_rare():
    targets = torch.tensor([0, 0, 0, 0, 1, 2, 2])
    logits = torch.eye(3)[torch.tensor([0, 0, 0, 1, 1, 2, 0])]
    found = long_tail.figures(logits, targets, known=[5, 100, 20])
    assert found["balanced accuracy"] == pytest.approx((0.75 + 1 + 0.5) / 3)
    assert found["frequent"] == pytest.approx(1.0)
    assert found["rare"] == pytest.approx(0.75)


def test_a_smoke_run_learns_from_a_tail_too():
    rows = long_tail.rows(Budget("smoke"), 0)
    counts = rows.y.bincount()
    assert counts[0] > counts[-1] >= 1
    found = long_tail.tailed(Budget("smoke"), 0, method="experts:count=2", head="experts:count=2,hidden=4")
    assert set(found) == {"balanced accuracy", "frequent", "rare", "validation"}
