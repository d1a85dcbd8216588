from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import NextDigit, from_digits, next_digit_loss, to_digits


def written(y: float, length: int, base: int, low: float, high: float) -> list[int]:
    place = min(max(math.floor((y - low) / (high - low) * base**length), 0), base**length - 1)
    digits = []
    for _ in range(length):
        place, digit = divmod(place, base)
        digits.append(digit)
    return digits[::-1]


CASES = {
    "rows": st.integers(1, 5),
    "length": st.integers(1, 6),
    "base": st.sampled_from([2, 3, 10]),
    "low": st.sampled_from([-3.0, 0.0, 10.0]),
    "span": st.sampled_from([0.5, 1.0, 40.0]),
    "seed": st.integers(0, 999),
}


@settings(max_examples=25, deadline=None)
@given(**CASES)
def test_is_the_formula(rows, length, base, low, span, seed):
    generator = torch.Generator().manual_seed(seed)
    high = low + span
    values = low + span * (1.4 * torch.rand(rows, generator=generator, dtype=torch.float64) - 0.2)
    outputs = torch.randn(rows, length * base, generator=generator, dtype=torch.float64)
    digits = [written(y, length, base, low, high) for y in values.tolist()]
    assert to_digits(values, length, base=base, low=low, high=high).tolist() == digits
    expected = []
    for row, number in zip(outputs.tolist(), digits, strict=True):
        total = 0.0
        for k, digit in enumerate(number):
            scores = row[k * base : (k + 1) * base]
            total -= scores[digit] - math.log(sum(map(math.exp, scores)))
        expected.append(total)
    each = NextDigit(base, low, high, reduction="none")(outputs, values)
    torch.testing.assert_close(each, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(**CASES)
def test_digits_give_back_the_number_up_to_half_of_the_last(rows, length, base, low, span, seed):
    values = low + span * torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = from_digits(
        to_digits(values, length, base=base, low=low, high=low + span), base=base, low=low, high=low + span
    )
    assert float((found - values).abs().max()) <= span / base**length / 2 + 1e-5 * (abs(low) + span)


def test_a_prefix_is_a_coarser_number():
    digits = to_digits(torch.tensor([0.7]), 10)
    assert digits[:, :4].tolist() == to_digits(torch.tensor([0.7]), 4).tolist()
    assert digits.dtype == torch.int64


def test_the_finest_digits_are_exact():
    value = torch.tensor([1 / 3], dtype=torch.float64)
    assert to_digits(value, 52).flatten().tolist() == [0, 1] * 26


def test_gradcheck():
    outputs = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: next_digit_loss(f, torch.tensor([0.1, 0.5, 0.9]), base=3), (outputs,))


def test_arguments_out_of_range():
    for option in ("base=1", "low=1,high=0", "low=0,high=inf"):
        with pytest.raises(ConfigError, match=r"base must be 2 or more|low must be less|high must be a finite"):
            registry.build("losses", f"next-digit:{option}")
    with pytest.raises(ShapeError, match="1 to 52 digits to the base 2, found 53"):
        to_digits(torch.zeros(1), 53)
    with pytest.raises(ShapeError, match=r"values must be real numbers \[N\]"):
        to_digits(torch.zeros(1, 1), 3)
    with pytest.raises(ShapeError, match=r"digits must be integers \[..., K\]"):
        from_digits(torch.zeros(3))
    with pytest.raises(ShapeError, match=r"outputs must be \[N, K \* 2\]"):
        next_digit_loss(torch.zeros(1, 3), torch.zeros(1))
    with pytest.raises(ShapeError, match="found 0"):
        next_digit_loss(torch.zeros(1, 0), torch.zeros(1))
    with pytest.raises(ShapeError, match="not finite are rows 0"):
        next_digit_loss(torch.zeros(1, 2), torch.tensor([math.inf]))
