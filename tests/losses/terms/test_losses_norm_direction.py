"""Norm and direction: the loss against a loop over samples, and where it is zero."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire.errors import ShapeError
from repertoire.losses import norm_direction


def rows(count: int, seed: int, width: int = 5) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_a_loop():
    """As the released code writes it, sample by sample, with lengths on both sides of the teacher's."""
    student, teacher, means = rows(9, 0), rows(9, 1), rows(3, 2)
    targets = torch.arange(9) % 3
    expected, longer = [], 0
    for s, t, y in zip(student.tolist(), teacher.tolist(), targets.tolist(), strict=True):
        centre = means[y].tolist()
        own, theirs, length = (math.sqrt(sum(v * v for v in row)) for row in (s, t, centre))
        longer += own > theirs
        expected.append(1 - sum(a * b / length for a, b in zip(s, centre, strict=True)) / max(own, theirs))
    assert 0 < longer < 9
    found = norm_direction(student, teacher, means, targets, reduction="none")
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(norm_direction(student, teacher, means, targets), found.mean())


def test_is_zero_where_the_feature_is_a_multiple_of_the_mean_and_long_enough():
    means, targets = rows(2, 0), torch.tensor([0, 1, 0])
    along = means[targets]
    teacher = along.norm(dim=1, keepdim=True) * torch.nn.functional.normalize(rows(3, 1), dim=1)
    for factor, expected in ((1.0, 0.0), (3.0, 0.0), (0.5, 0.5), (-2.0, 2.0)):
        found = norm_direction(factor * along, teacher, means, targets)
        assert float(found) == pytest.approx(expected, abs=1e-12)


def test_gradients():
    student, teacher, means = rows(6, 3).requires_grad_(), rows(6, 4), rows(3, 5)
    targets = torch.arange(6) % 3
    assert torch.autograd.gradcheck(lambda s: norm_direction(s, teacher, means, targets), student)
    nothing = torch.zeros(2, 5, requires_grad=True)
    norm_direction(nothing, teacher[:2].float(), means.float(), targets[:2]).backward()
    assert nothing.grad.isfinite().all()


def test_what_does_not_fit_is_refused():
    targets = torch.tensor([0, 1])
    with pytest.raises(ShapeError, match="project the student's features"):
        norm_direction(rows(2, 0), rows(2, 1, 6), rows(2, 2, 6), targets)
    with pytest.raises(ShapeError, match=r"class_means must be \[K, 5\]"):
        norm_direction(rows(2, 0), rows(2, 1), rows(2, 2, 6), targets)
    with pytest.raises(ShapeError, match=r"targets must be integers \[2\]"):
        norm_direction(rows(2, 0), rows(2, 1), rows(2, 2), torch.tensor([0]))
    with pytest.raises(ShapeError, match="targets must lie in"):
        norm_direction(rows(2, 0), rows(2, 1), rows(1, 2), targets)
