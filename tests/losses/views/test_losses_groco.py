from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import GroCo, groco_loss


def sorted_ranks(values, steepness):
    n = len(values)
    ranks = torch.eye(n, dtype=torch.float64)
    values = list(values)
    for layer in range(n):
        for left in range(layer % 2, n - 1, 2):
            a, b = values[left], values[left + 1]
            alpha = torch.atan(steepness * (b - a)) / math.pi + 0.5
            values[left], values[left + 1] = alpha * a + (1 - alpha) * b, (1 - alpha) * a + alpha * b
            swap = torch.eye(n, dtype=torch.float64)
            rows = [swap[k] for k in range(n)]
            rows[left] = alpha * swap[left] + (1 - alpha) * swap[left + 1]
            rows[left + 1] = (1 - alpha) * swap[left] + alpha * swap[left + 1]
            ranks = ranks @ torch.stack(rows)
    return ranks


def float_of(value):
    return float(value.detach())


def reference(views, negatives, steepness, stop_gradient):
    z = [[row / row.norm() for row in view] for view in views]
    others = [[row.detach() for row in view] for view in z] if stop_gradient else z
    losses = []
    for u in range(len(z)):
        for i in range(len(z[0])):
            near = sorted((z[u][i] @ others[v][i] for v in range(len(z)) if v != u), key=float_of)
            far = sorted((z[u][i] @ others[u][j] for j in range(len(z[0])) if j != i), key=float_of)[-negatives:]
            ranks = sorted_ranks(far + near, steepness)
            probability = ranks[:, len(far) :].sum(1)
            target = torch.tensor([0.0] * len(far) + [1.0] * len(near), dtype=torch.float64)
            losses.append(torch.nn.functional.binary_cross_entropy(probability.clamp(0, 1), target))
    return sum(losses) / len(losses)


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(2, 5),
    count=st.integers(2, 4),
    negatives=st.integers(1, 6),
    steepness=st.sampled_from([0.5, 1.0, 10.0]),
    stop_gradient=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(samples, count, negatives, steepness, stop_gradient, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(samples, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]
    expected = reference(views, negatives, steepness, stop_gradient)
    loss = GroCo(negatives, steepness, stop_gradient)(*views)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(expected, views), rtol=1e-6, atol=1e-8
    )


def test_what_is_in_order_costs_little_and_the_order_within_a_group_does_not_matter():
    apart, close = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.9, 0.1]])
    right = groco_loss(apart, apart, steepness=100.0)
    wrong = groco_loss(close, -close, steepness=100.0)
    assert float(right) < 0.01 < 1.0 < float(wrong)
    views = torch.randn(3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(groco_loss(*views), groco_loss(*views.flip(0)))


def test_a_single_sample_has_nothing_to_be_sorted_from():
    x = torch.randn(1, 3, requires_grad=True)
    loss = groco_loss(x, torch.randn(1, 3))
    assert float(loss.detach()) == 0.0
    assert not torch.autograd.grad(loss, x)[0].any()


def test_wrong_arguments():
    with pytest.raises(ValueError, match="negatives must be positive"):
        GroCo(negatives=0)
    with pytest.raises(ValueError, match="steepness must be positive"):
        groco_loss(torch.eye(2), torch.eye(2), steepness=0.0)
    with pytest.raises(ValueError, match="views must be 2 or more"):
        GroCo(views=1)
    assert GroCo(views=4).views == 4
