from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.losses import NTXent, Trajectory, VICReg, trajectory_loss


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 5), width=st.integers(2, 5), count=st.integers(3, 5), seed=st.integers(0, 1000))
def test_is_the_paper(rows, width, count, seed):
    views = torch.randn(count, rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z = [[row / row.norm() for row in view] for view in views]
    bends = [1 - cosine(z[c][i] - z[c - 1][i], z[c + 1][i] - z[c][i]) for c in range(1, count - 1) for i in range(rows)]
    assert float(trajectory_loss(*views)) == pytest.approx(sum(bends) / len(bends))


def test_gradcheck():
    views = [torch.randn(4, 3, dtype=torch.float64).requires_grad_() for _ in range(3)]
    assert torch.autograd.gradcheck(trajectory_loss, views)


def test_a_path_that_is_nearly_straight_costs_nearly_nothing():
    angles = torch.tensor([0.3, 0.31, 0.32], dtype=torch.float64)
    straight = [torch.tensor([[a.cos(), a.sin()]]) for a in angles]
    assert float(trajectory_loss(*straight)) < 1e-4
    assert float(trajectory_loss(straight[0], straight[1], straight[0])) == pytest.approx(2.0)


def test_views_that_do_not_move_have_no_direction():
    x, y = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    loss = trajectory_loss(x, x, y)
    loss.backward()
    assert float(loss.detach()) == 1.0
    assert x.grad.isfinite().all()


def test_is_added_to_another_loss():
    views = torch.randn(3, 8, 4, dtype=torch.float64)
    torch.testing.assert_close(Trajectory(weight=0.3)(*views), VICReg()(*views) + 0.3 * trajectory_loss(*views))
    torch.testing.assert_close(Trajectory(NTXent())(*views), NTXent()(*views) + trajectory_loss(*views))
    assert Trajectory().views == 3


def test_needs_three_views():
    with pytest.raises(ShapeError, match="a trajectory needs at least three views of every sample, in order; found 2"):
        Trajectory()(torch.eye(2), torch.eye(2))
