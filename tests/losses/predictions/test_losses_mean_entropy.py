from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import MeanEntropy, mean_entropy


def reference(logits: list[list[float]], prior: list[float]) -> float:
    mean = [0.0] * len(prior)
    for row in logits:
        total = sum(math.exp(value) for value in row)
        for c, value in enumerate(row):
            mean[c] += math.exp(value) / total / len(logits)
    return sum(p * (math.log(p) - math.log(share / sum(prior))) for p, share in zip(mean, prior, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.booleans(), st.integers(0, 999))
def test_agrees_with_the_formula(count, classes, even, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    prior = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.1
    expected = reference(logits.tolist(), [1.0] * classes if even else prior.tolist())
    found = MeanEntropy()(logits) if even else mean_entropy(logits, prior=prior)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_even_shares_are_the_negative_entropy_of_the_mean_up_to_a_constant():
    logits = torch.randn(6, 5, dtype=torch.float64)
    mean = logits.softmax(1).mean(0)
    assert float(mean_entropy(logits)) == pytest.approx(math.log(5) + float((mean * mean.log()).sum()))


def test_the_bounds_are_reached():
    certain = 500 * torch.eye(4, dtype=torch.float64)
    assert float(mean_entropy(certain)) == pytest.approx(0, abs=1e-12)
    assert float(mean_entropy(certain[[2, 2, 2]])) == pytest.approx(math.log(4))
    # Certain of each sample and even over all: what entropy of single answers alone would not tell apart.
    assert float(mean_entropy(torch.zeros(3, 4))) == pytest.approx(0, abs=1e-6)


def test_gradient_raises_the_class_that_nobody_is_taken_for():
    logits = torch.tensor([[2.0, 1.0, -3.0], [1.0, 2.0, -3.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mean_entropy, logits)
    mean_entropy(logits).backward()
    assert (logits.grad[:, 2] < 0).all()
    far = torch.tensor([[900.0, 0.0, -900.0]], requires_grad=True)
    mean_entropy(far).backward()
    assert far.grad.isfinite().all()


def test_what_is_refused():
    with pytest.raises(ShapeError, match="a share for each class"):
        mean_entropy(torch.zeros(2, 3), prior=torch.ones(2))
    with pytest.raises(ConfigError, match="prior must be positive"):
        mean_entropy(torch.zeros(2, 2), prior=torch.tensor([1.0, 0.0]))
