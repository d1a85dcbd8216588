from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.losses import SyCon, nt_xent_loss, sycon_loss

SETTINGS = settings(max_examples=20, deadline=None)


def unit(rows: list[list[float]]) -> list[list[float]]:
    return [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in rows]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def reference(views, predicted, previous, t: float) -> float:
    """Both terms, row by row, of two views."""
    z = unit([row for view in views for row in view])
    g = unit([row for view in predicted for row in view])
    old = unit([row for view in previous for row in view])
    half, total = len(views[0]), 0.0
    for i in range(len(z)):
        others = [k for k in range(len(z)) if k != i]
        negatives = sum(math.exp(dot(z[i], z[k]) / t) + math.exp(dot(z[i], old[k]) / t) for k in others)
        total -= math.log(math.exp(dot(z[i], z[(i + half) % len(z)]) / t) / negatives)
        positive = math.exp(dot(g[i], old[i]) / t)
        negatives = sum(math.exp(dot(g[i], old[k]) / t) + math.exp(dot(g[i], z[k]) / t) for k in others)
        total -= math.log(positive / (positive + negatives))
    return total / len(z)


def drawn(count: int, n: int, d: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(count)]


@SETTINGS
@given(st.integers(1, 6), st.integers(2, 5), st.sampled_from([0.1, 0.5, 2.0]), st.integers(0, 999))
def test_is_the_formula(n, d, temperature, seed):
    views, predicted, previous = (drawn(2, n, d, seed + k) for k in range(3))
    loss = SyCon(temperature)(*views, predicted=torch.stack(predicted, 1), previous=torch.stack(previous, 1))
    expected = reference(*([v.tolist() for v in part] for part in (views, predicted, previous)), temperature)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64))


@SETTINGS
@given(st.integers(2, 6), st.integers(0, 999))
def test_an_earlier_network_that_is_the_current_one(n, seed):
    """The first term is NT-Xent with each negative twice over; the second knows the answer for sure."""
    views = drawn(2, n, 4, seed)
    same = torch.stack(views, 1)
    z = torch.nn.functional.normalize(torch.cat(views))
    away = ((z @ z.T) / 0.5).exp().fill_diagonal_(0).sum(1)
    second = (1 / 0.5 - (math.exp(1 / 0.5) + 2 * away).log()).neg().mean()
    expected = nt_xent_loss(*views, temperature=0.5) + math.log(2) + second
    torch.testing.assert_close(sycon_loss(*views, temperature=0.5, predicted=same, previous=same), expected)


def test_without_an_earlier_network_it_is_nt_xent():
    views = drawn(3, 5, 4, 0)
    assert torch.equal(sycon_loss(*views, temperature=0.3), nt_xent_loss(*views, temperature=0.3))


def test_views_and_samples_may_change_places():
    views, predicted, previous = (drawn(2, 5, 4, k) for k in range(3))
    loss = sycon_loss(*views, predicted=torch.stack(predicted, 1), previous=torch.stack(previous, 1))
    for order, turn in ((torch.randperm(5), [0, 1]), (torch.arange(5), [1, 0])):
        parts = ([part[k][order] for k in turn] for part in (views, predicted, previous))
        a, b, c = parts
        again = sycon_loss(*a, predicted=torch.stack(b, 1), previous=torch.stack(c, 1))
        torch.testing.assert_close(again, loss)


def test_the_gradient_is_right_and_the_second_term_has_negatives_of_the_current_network():
    views, predicted, previous = (drawn(2, 3, 3, k) for k in range(3))
    fixed = torch.stack(previous, 1)
    given = [part.requires_grad_() for part in (*views, torch.stack(predicted, 1))]
    assert torch.autograd.gradcheck(lambda a, b, g: sycon_loss(a, b, predicted=g, previous=fixed), given)


def test_what_does_not_fit():
    x, both = torch.zeros(3, 2), torch.zeros(3, 2, 2)
    with pytest.raises(ShapeError, match="go together"):
        sycon_loss(x, x, previous=both)
    with pytest.raises(ShapeError, match=r"predicted must be torch.float32 \[3, 2, 2\]"):
        sycon_loss(x, x, predicted=torch.zeros(6, 2), previous=both)
    with pytest.raises(ShapeError, match="previous must be"):
        sycon_loss(x, x, predicted=both, previous=both.double())
