from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.ops import class_index, class_sums, unit_rows


def test_unit_rows_gradcheck():
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(unit_rows, (x,))
    expected = torch.stack([row / row.square().sum().sqrt() for row in x])
    torch.testing.assert_close(unit_rows(x), expected)


def test_zero_rows_stay_zero_without_gradient():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    z = unit_rows(x)
    torch.testing.assert_close(z, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    z.sum().backward()
    assert x.grad[0].tolist() == [0.0, 0.0]
    assert x.grad[1].abs().sum() > 0


def test_unit_rows_of_half_precision_are_float32():
    z = unit_rows(torch.tensor([[300.0, 400.0]], dtype=torch.float16))  # the square of 400 is no half
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, torch.tensor([[0.6, 0.8]]))


def test_unit_rows_of_the_wrong_shape():
    with pytest.raises(ShapeError, match=r"rows must be a floating point \[N, d\], found torch.float32 \[3\]"):
        unit_rows(torch.ones(3))
    with pytest.raises(ShapeError, match=r"found torch.int64"):
        unit_rows(torch.ones(3, 2, dtype=torch.int64))


@settings(max_examples=25, deadline=None)
@given(labels=st.lists(st.integers(-(2**62), 2**62) | st.integers(-2, 3), max_size=12))
def test_class_index_and_sums(labels):
    index, counts = class_index(torch.tensor(labels, dtype=torch.int64))
    values = sorted(set(labels))
    assert index.tolist() == [values.index(label) for label in labels]
    assert counts.tolist() == [labels.count(value) for value in values]
    x = torch.arange(2.0 * len(labels)).view(-1, 2)
    sums = class_sums(x, index, len(counts))
    for number, value in enumerate(values):
        expected = sum((x[i] for i, label in enumerate(labels) if label == value), torch.zeros(2))
        torch.testing.assert_close(sums[number], expected)
