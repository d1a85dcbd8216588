from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.losses import TiCo, tico_loss


def reference(views, covariance, decay, weight):
    z = [torch.stack([row / row.norm() for row in view]) for view in views]
    new = decay * covariance + (1 - decay) * sum(torch.outer(row, row) for row in z[0]) / len(z[0])
    invariance = sum(z[0][i] @ other[i] for other in z[1:] for i in range(len(other))) / (len(z[0]) * len(z[1:]))
    contrast = sum(row @ new @ row for row in z[0]) / len(z[0])
    return weight * contrast - invariance, new


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 6),
    width=st.integers(1, 5),
    count=st.integers(2, 3),
    decay=st.sampled_from([0.0, 0.9]),
    weight=st.sampled_from([0.0, 20.0]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper_step_by_step(rows, width, count, decay, weight, seed):
    generator = torch.Generator().manual_seed(seed)
    loss, covariance = TiCo(decay, weight).double(), torch.zeros(width, width, dtype=torch.float64)
    loss.prepare(width)
    for _ in range(3):
        views = [torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(count)]
        views = [view.requires_grad_() for view in views]
        expected, new = reference(views, covariance, decay, weight)
        value = loss(*views)
        torch.testing.assert_close(value, expected)
        for mine, theirs in zip(torch.autograd.grad(value, views), torch.autograd.grad(expected, views), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(loss.covariance.double(), covariance)  # not before the weights have changed
        loss.after_update()
        torch.testing.assert_close(loss.covariance.double(), new.detach())
        covariance = new.detach()


def test_the_contrast_is_the_mean_squared_similarity_with_the_past():
    past, x = torch.randn(50, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    unit, z = (torch.nn.functional.normalize(rows, dim=1) for rows in (past, x))
    loss, _ = tico_loss(x, x, covariance=unit.T @ unit / 50, decay=0.999999, weight=1.0)
    torch.testing.assert_close(loss + 1, (z @ unit.T).square().mean(), rtol=1e-4, atol=1e-4)


def test_resuming_goes_on_exactly_whether_the_width_is_known_or_not():
    views = torch.randn(4, 2, 5, 3)
    loss = TiCo()
    for pair in views[:2]:
        loss(*pair)
        loss.after_update()
    for other in (TiCo(), TiCo(dimensions=3)):
        other.load_state_dict(copy.deepcopy(loss.state_dict()))
        twin = copy.deepcopy(loss)
        for pair in views[2:]:
            assert torch.equal(other(*pair), twin(*pair))
            other.after_update()
            twin.after_update()
        assert torch.equal(other.covariance, twin.covariance)


def test_wrong_arguments():
    with pytest.raises(ShapeError, match=r"covariance must be a floating point \[3, 3\] like the views are wide"):
        TiCo(dimensions=4)(torch.eye(3), torch.eye(3))
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
        TiCo(decay=1.0)
    with pytest.raises(ValueError, match="dimensions must be 0 or more"):
        TiCo(dimensions=-1)
