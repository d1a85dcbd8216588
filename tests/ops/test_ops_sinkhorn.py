from __future__ import annotations

import math

import pytest
import torch

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import sinkhorn


def by_turns(scores: list[list[float]], epsilon: float, iterations: int) -> list[list[float]]:
    """Columns, then rows, divided by their sums, entry by entry."""
    q = [[math.exp(s / epsilon) for s in row] for row in scores]
    for _ in range(iterations):
        for k in range(len(q[0])):
            total = sum(row[k] for row in q)
            for row in q:
                row[k] /= total
        q = [[value / sum(row) for value in row] for row in q]
    return q


def test_agrees_with_scaling_by_turns():
    scores = torch.rand(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.tensor(by_turns(scores.tolist(), 0.05, 3), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores), expected)


def test_columns_get_equal_weight_where_every_row_wants_the_first():
    scores = torch.rand(40, 5, generator=torch.Generator().manual_seed(1))
    scores[:, 0] += 0.5
    found = sinkhorn(scores, iterations=200)
    torch.testing.assert_close(found.sum(1), torch.ones(40))
    torch.testing.assert_close(found.sum(0), torch.full((5,), 8.0), rtol=1e-3, atol=1e-3)
    assert sinkhorn(scores, iterations=1).sum(0).std() > found.sum(0).std()


def test_large_scores_and_half_precision():
    found = sinkhorn(torch.tensor([[300.0, 0.0], [0.0, 300.0]], dtype=torch.float16))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.eye(2))


def test_what_is_no_matrix_is_refused():
    for wrong in (torch.zeros(3), torch.zeros(0, 2), torch.zeros(2, 2, dtype=torch.int64)):
        with pytest.raises(ShapeError, match="scores must be"):
            sinkhorn(wrong)
    with pytest.raises(ConfigError, match="epsilon"):
        sinkhorn(torch.zeros(2, 2), epsilon=0)
