from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import NumberToken, cross_entropy, number_token_loss, number_token_penalty


def softmax(row: list[float]) -> list[float]:
    return [math.exp(f) / sum(map(math.exp, row)) for f in row]


def reference(row: list[float], target: int, values: list[float], distance: str, reweigh: bool) -> float:
    numbers = [k for k, v in enumerate(values) if not math.isnan(v)]
    if target not in numbers:
        return 0.0
    p, y = softmax([row[k] for k in numbers]), values[target]
    if distance == "wasserstein":
        found = sum(a * abs(values[k] - y) for a, k in zip(p, numbers, strict=True))
    else:
        away = abs(y - sum(a * values[k] for a, k in zip(p, numbers, strict=True)))
        found = away**2 if distance == "squared" else away
    if reweigh:
        inside = sum(softmax(row)[k] for k in numbers)
        furthest = 1.01 * (max(values[k] for k in numbers) - min(values[k] for k in numbers))
        found = inside * found + (1 - inside) * (furthest**2 if distance == "squared" else furthest)
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 8),
    st.sampled_from(["wasserstein", "squared", "absolute"]),
    st.booleans(),
    st.sampled_from([0.0, 0.3, 2.0]),
    st.integers(0, 999),
)
def test_is_the_formula(rows, tokens, distance, reweigh, weight, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, tokens, (rows,), generator=generator)
    values = torch.randint(-9, 9, (tokens,), generator=generator).float()
    values[torch.rand(tokens, generator=generator) < 0.4] = math.nan
    expected = [
        weight * reference(f, y, values.tolist(), distance, reweigh) - math.log(softmax(f)[y])
        for f, y in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    each = NumberToken(values, distance, weight, reweigh, reduction="none")(logits, targets)
    torch.testing.assert_close(each, torch.tensor(expected, dtype=torch.float64))


def test_without_values_tokens_are_ordered_classes():
    logits, targets = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 3])
    values = torch.arange(4.0)
    torch.testing.assert_close(number_token_loss(logits, targets), number_token_loss(logits, targets, values))
    beside, far = torch.eye(4)[[1]] * 5, torch.eye(4)[[3]] * 5
    assert number_token_loss(beside, targets[:1]) < number_token_loss(far, targets[:1])


def test_only_the_mean_can_be_misled():
    """Half 3 and half 5 has the mean 4, and is far from the certainty of a 4."""
    logits = torch.zeros(1, 9, dtype=torch.float64).scatter(1, torch.tensor([[3, 5]]), 50.0)
    four = torch.tensor([4])
    assert number_token_penalty(logits, four, distance="squared").item() == pytest.approx(0, abs=1e-9)
    assert number_token_penalty(logits, four).item() == pytest.approx(1)


def test_no_number_at_all_is_cross_entropy():
    logits, targets = torch.randn(3, 4, requires_grad=True), torch.tensor([0, 1, 2])
    values = torch.full((4,), math.nan)
    for reweigh in (False, True):
        loss = number_token_loss(logits, targets, values, reweigh=reweigh)
        torch.testing.assert_close(loss, cross_entropy(logits, targets))
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()


@pytest.mark.parametrize("distance", ["wasserstein", "squared"])
def test_gradcheck(distance):
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    targets, values = torch.tensor([0, 3, 2]), torch.tensor([1.0, 5.0, math.nan, 2.0])
    loss = NumberToken(values, distance, reweigh=True)
    assert torch.autograd.gradcheck(lambda f: loss(f, targets), (logits,))


def test_arguments_out_of_range():
    for option in ("distance=cubed", "number_weight=-1", "number_weight=nan", "values=(1,inf)"):
        with pytest.raises(ConfigError, match=option.partition("=")[0]):
            registry.build("losses", f"number-token:{option}")
    with pytest.raises(ShapeError, match=r"values must be \[3\], one for each token, found \[2\]"):
        number_token_loss(torch.zeros(1, 3), torch.tensor([0]), torch.zeros(2))
