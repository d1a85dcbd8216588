"""Between two states, and why that helps: the accuracy of the paper's linear model."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire.errors import CheckpointError
from repertoire.weights import interpolate, wise_ft


def test_it_is_the_straight_line():
    pre, fine = (
        {"w": torch.tensor([1.0, 3.0]), "n": torch.tensor(1)},
        {"w": torch.tensor([2.0, -1.0]), "n": torch.tensor(7)},
    )
    for alpha in (0.0, 0.3, 1.0, 1.5):
        found = interpolate(pre, fine, alpha)
        torch.testing.assert_close(found["w"], (1 - alpha) * pre["w"] + alpha * fine["w"])
        assert found["n"] == 7
    torch.testing.assert_close(interpolate(pre, fine, 1.0), fine, rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="lacks w"):
        interpolate({"n": torch.tensor(1)}, fine)


def test_several_states_are_averaged_first():
    base, states = {"w": torch.tensor(0.0)}, [{"w": torch.tensor(value)} for value in (1.0, 3.0, 5.0)]
    assert wise_ft(states, base, alpha=0.5)["w"].item() == pytest.approx(1.5)
    torch.testing.assert_close(wise_ft(states[1:2], base, alpha=0.2), interpolate(base, states[1], 0.2))
    torch.testing.assert_close(wise_ft([base] * 3, base), base, rtol=0, atol=0)


def test_accuracy_of_two_linear_models_and_their_mean_is_that_of_the_formula():
    """The paper's Example 1 in a form that is solved exactly. Labels are 1 or -1. The signal of a feature is the label,
    with noise of its own; of a spurious feature it is the label turned round with the probability p. Each model adds up
    one invariant feature and n spurious ones of its own, and the mean of weights adds up the features of both."""
    generator = torch.Generator().manual_seed(0)
    count, own, p, noise = 200_000, 3, 0.8, 0.6

    def features() -> torch.Tensor:
        turned = torch.rand(count, own, generator=generator) < p
        signal = torch.where(turned, -1.0, 1.0)  # times the label, by which everything is multiplied
        invariant = torch.ones(count, 1)
        columns = torch.cat([invariant * own, signal], 1)
        return columns + noise * torch.randn(count, own + 1, generator=generator)

    first, second = features(), features()
    weight = torch.full((own + 1,), 1.0)

    def exact(parts: int) -> float:
        """Over the number of spurious features that are turned round, the chance that normal noise does not win."""
        total, features_used = 0.0, parts * own
        for wrong in range(features_used + 1):
            chance = math.comb(features_used, wrong) * p**wrong * (1 - p) ** (features_used - wrong)
            margin = parts * own + features_used - 2 * wrong
            spread = noise * math.sqrt(parts * (own + 1))
            total += chance * 0.5 * math.erfc(-margin / spread / math.sqrt(2))
        return total

    one, other = first @ weight, second @ weight
    merged = interpolate({"w": torch.cat([2 * weight, 0 * weight])}, {"w": torch.cat([0 * weight, 2 * weight])})["w"]
    both = torch.cat([first, second], 1) @ merged
    for scores, parts in ((one, 1), (other, 1), (both, 2)):
        assert float((scores > 0).double().mean()) == pytest.approx(exact(parts), abs=0.005)
    assert exact(2) > exact(1) + 0.05
