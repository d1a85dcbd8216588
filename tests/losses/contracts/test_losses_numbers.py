"""Plain regression losses, and what losses on numbers say about heads and predictions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import (
    MAE,
    MSE,
    HLGauss,
    Huber,
    NextDigit,
    RegressionWithClasses,
    huber_loss,
    mae_loss,
    mse_loss,
    next_digit_loss,
)


def huber(error: float, delta: float) -> float:
    return error**2 / 2 if abs(error) <= delta else delta * (abs(error) - delta / 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.sampled_from([0.1, 1.0, 3.0]), st.integers(0, 999))
def test_are_the_formulas(rows, numbers, delta, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs, targets = torch.randn(2, rows, numbers, generator=generator, dtype=torch.float64)
    errors = (outputs - targets).tolist()
    for module, function, each in (
        (MSE, mse_loss, lambda e: e * e),
        (MAE, mae_loss, abs),
        (lambda **o: Huber(delta, **o), lambda *a: huber_loss(*a, delta=delta), lambda e: huber(e, delta)),
    ):
        expected = torch.tensor([sum(map(each, row)) / numbers for row in errors], dtype=torch.float64)
        torch.testing.assert_close(module(reduction="none")(outputs, targets), expected)
        torch.testing.assert_close(function(outputs, targets), expected.mean())
    if numbers == 1:
        torch.testing.assert_close(mse_loss(outputs, targets[:, 0]), mse_loss(outputs, targets))


def test_what_does_not_fit_is_named():
    with pytest.raises(ShapeError, match=r"targets must be numbers \[3, 2\] like the outputs, found .* \[3\]"):
        mse_loss(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ShapeError, match=r"not finite are rows 0, 2"):
        mae_loss(torch.zeros(3, 2), torch.tensor([[0, torch.nan], [0, 0], [torch.inf, 0]]))
    with pytest.raises(ConfigError, match="delta must be positive"):
        Huber(delta=0.0)


def test_widths_of_heads():
    assert (MSE().width(3), HLGauss(bins=21, low=0, high=1).width(1), HLGauss().width(5)) == (3, 21, 5)
    assert NextDigit(base=3, length=4).width(1) == 12
    assert (RegressionWithClasses([1.0, 2.0]).width(1), RegressionWithClasses(bins=7).width(1)) == (4, 8)
    for loss in (HLGauss(low=0, high=1), NextDigit(), RegressionWithClasses()):
        with pytest.raises(ConfigError, match="predicts one number a sample, and these have 2; use mse"):
            loss.width(2)
    with pytest.raises(ConfigError, match="give low and high"):
        HLGauss().width(1)


def test_predictions_are_in_the_units_of_the_targets():
    outputs = torch.tensor([[2.0], [3.0]])
    assert torch.equal(MSE().predict(outputs), outputs)
    logits = torch.full((2, 4), -50.0)
    logits[0, 0] = logits[1, 3] = 50.0
    torch.testing.assert_close(HLGauss(low=10, high=18).predict(logits), torch.tensor([[11.0], [17.0]]))
    assert torch.equal(HLGauss().predict(logits), logits)  # scores of ordered classes
    assert torch.equal(RegressionWithClasses().predict(logits), logits[:, :1])
    # Digits 1, 0 to the base 2 of the range from 0 to 8 are from 4 to 6; the first digit undecided, all alike.
    digits = torch.tensor([[-50.0, 50.0, 50.0, -50.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(NextDigit(low=0.0, high=8.0).predict(digits), torch.tensor([[5.0], [4.0]]))
    assert next_digit_loss(digits[:1], torch.tensor([5.5]), low=0.0, high=8.0) < 1e-6


def test_bins_between_the_ends_of_a_range():
    loss = RegressionWithClasses(low=0.0, high=8.0, bins=4)
    outputs = torch.zeros(3, 5)
    outputs[:, 2] = 50.0  # the second bin, from 2 to 4
    each = RegressionWithClasses(low=0.0, high=8.0, bins=4, reduction="none")(outputs, torch.tensor([1.9, 2.1, 3.9]))
    assert (each - torch.tensor([1.9, 2.1, 3.9]) ** 2 > 1).tolist() == [True, False, False]
    assert loss.width(1) == 5
