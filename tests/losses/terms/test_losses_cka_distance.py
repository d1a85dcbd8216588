"""One minus CKA: the plain form against a loop, both forms against the estimates over a data set, and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire.errors import ShapeError
from repertoire.losses import cka_distance


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3


def hsic(k: list[list[float]], l: list[list[float]], unbiased: bool) -> float:  # noqa: E741
    """Of Gram matrices: centred, or Song et al.'s estimate, equation (5), up to a factor."""
    n = range(len(k))
    if not unbiased:
        centred = [
            [m[i][j] - sum(m[i]) / len(m) - sum(r[j] for r in m) / len(m) + sum(map(sum, m)) / len(m) ** 2 for j in n]
            for m in (k,)
            for i in n
        ]
        return sum(centred[i][j] * l[i][j] for i in n for j in n)
    size = len(k)
    off = [[(k[i][j], l[i][j]) if i != j else (0.0, 0.0) for j in n] for i in n]
    trace = sum(a * b for row in off for a, b in row)
    total = sum(a for row in off for a, _ in row) * sum(b for row in off for _, b in row)
    through = sum(off[i][j][0] * off[j][m][1] for i in n for j in n for m in n)
    return trace + total / ((size - 1) * (size - 2)) - 2 / (size - 2) * through


def gram(x: torch.Tensor) -> list[list[float]]:
    return (x @ x.T).tolist()


@pytest.mark.parametrize("unbiased", [False, True])
def test_agrees_with_a_loop(unbiased):
    x, y = rows(9, 4, 0), rows(9, 6, 1)
    k, l = gram(x), gram(y)  # noqa: E741
    wanted = hsic(k, l, unbiased) / math.sqrt(hsic(k, k, unbiased) * hsic(l, l, unbiased))
    assert float(cka_distance(x, y.view(9, 2, 3), unbiased=unbiased)) == pytest.approx(1 - wanted, abs=1e-10)


@pytest.mark.parametrize("unbiased", [False, True])
def test_gradients(unbiased):
    x, y = rows(6, 3, 2).requires_grad_(), rows(6, 5, 3)
    assert torch.autograd.gradcheck(lambda a: cka_distance(a, y, unbiased=unbiased), x)


def test_few_samples_look_alike_in_the_plain_form_alone():
    x, y = rows(16, 400, 4), rows(16, 400, 5)
    assert float(cka_distance(x, y)) < 0.1
    assert float(cka_distance(x, y, unbiased=True)) == pytest.approx(1, abs=0.2)


def test_what_says_nothing_has_no_gradient():
    for x in (torch.ones(5, 3), torch.randn(1, 3)):
        x.requires_grad_()
        found = cka_distance(x, rows(len(x), 4, 6).float())
        found.backward()
        assert float(found.detach()) == pytest.approx(1)
        assert not x.grad.any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="the same samples, found 4 rows and 5"):
        cka_distance(rows(4, 3, 0), rows(5, 3, 0))
    with pytest.raises(ShapeError, match=r"y must be floating point \[N, ...\]"):
        cka_distance(rows(4, 3, 0), torch.zeros(4))
