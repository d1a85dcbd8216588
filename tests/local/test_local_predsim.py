"""Similarity matching against the matrices of the paper, and what PredSim makes of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import losses
from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.local import LocalLearning, PredSim, similarity_matching_loss


def reference(features: Tensor, targets: Tensor, classes: int) -> float:
    """Both N x N matrices, entry by entry, over the labelled samples."""
    rows = [row - row.mean() for row, t in zip(features.double(), targets, strict=True) if t >= 0]
    hot = [torch.eye(classes, dtype=torch.float64)[t] - 1 / classes for t in targets.tolist() if t >= 0]

    def cosine(a: Tensor, b: Tensor) -> float:
        lengths = float(a.norm() * b.norm())
        return float(a @ b) / lengths if lengths > 0 else 0.0

    total = sum(
        (cosine(a, b) - cosine(s, t)) ** 2
        for a, s in zip(rows, hot, strict=True)
        for b, t in zip(rows, hot, strict=True)
    )
    return total / max(1, len(rows)) ** 2


@given(st.integers(0, 9), st.integers(1, 12), st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_agrees_with_the_matrices(count: int, width: int, classes: int, unlabelled: bool, seed: int):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, width, dtype=torch.float64, generator=generator)
    targets = torch.randint(-1 if unlabelled else 0, classes, (count,), generator=generator)
    if count > 2:
        features[0] = 0
        features[1] = features[2]
    expected = reference(features, targets, classes)
    assert float(similarity_matching_loss(features, targets, classes)) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert float(similarity_matching_loss(features.float(), targets, classes)) == pytest.approx(expected, abs=1e-4)


def test_the_two_ways_agree_and_have_one_gradient():
    features = torch.randn(8, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.arange(8) % 3
    # Twice the samples: the loss of the same pairs, computed from the short products.
    short = similarity_matching_loss(torch.cat([features, features]), torch.cat([targets, targets]), 3)
    whole = similarity_matching_loss(features, targets, 3)
    torch.testing.assert_close(short, whole)
    for a, b in zip(torch.autograd.grad(short, features), torch.autograd.grad(whole, features), strict=True):
        torch.testing.assert_close(a, b)


def test_it_does_not_change_with_what_the_cosine_ignores():
    features, targets = torch.randn(7, 5, dtype=torch.float64), torch.arange(7) % 2
    value = similarity_matching_loss(features, targets, 2)
    scaled = features * torch.rand(7, 1, dtype=torch.float64).add(0.1) + torch.randn(7, 1, dtype=torch.float64)
    torch.testing.assert_close(similarity_matching_loss(scaled, targets, 2), value)


def test_dead_features_have_a_finite_gradient():
    features = torch.zeros(4, 6, requires_grad=True)
    similarity_matching_loss(features, torch.tensor([0, 1, 0, -1]), 2).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    with pytest.raises(ShapeError, match=r"features \[N, d\] and targets \[N\]"):
        similarity_matching_loss(features, torch.arange(3), 3)


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.1)


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    ).double()


def test_the_objective_is_the_weighted_sum():
    x, y = torch.rand(10, 2, 8, 8, dtype=torch.float64), torch.arange(10) % 3
    learner = LocalLearning(convolutions(), 2, "predsim:beta=0.7,dimensions=100", sgd, at=("0",), example=x)
    network = learner.auxiliaries[0]
    assert isinstance(network, PredSim)
    assert network.side == (4, 4), "6 x 8 x 8 is more than 100, and 6 x 4 x 4 is not"
    with torch.no_grad():
        network.classifier.weight.normal_()
    h = learner.trainer.blocks[0].run(x)
    step = network.objective(h, Batch((x,), y, torch.arange(10)), F.cross_entropy)
    logits = network.classifier(F.avg_pool2d(h, 2).flatten(1))
    torch.testing.assert_close(network(h), logits)
    spread = network.similar(h).flatten(2).std(2)
    expected = 0.3 * F.cross_entropy(logits, y) + 0.7 * reference(spread.detach(), y, 3)
    torch.testing.assert_close(step.loss, expected)
    assert sorted(step.logs) == ["accuracy", "loss", "similarity_loss"]


def test_labels_stay_out_of_a_loss_that_has_none():
    """With a loss on views the block's gradient is the same whatever the labels are."""
    x = torch.rand(10, 2, 8, 8, dtype=torch.float64)
    learner = LocalLearning(convolutions(), 2, "predsim", sgd, at=("0",), example=x)
    h = learner.trainer.blocks[0].run(torch.cat([x, x.flip(3)])).detach().requires_grad_()
    found = []
    for labels in (torch.arange(10) % 3, torch.zeros(10, dtype=torch.int64), torch.full((10,), -1)):
        batch = Batch((x, x.flip(3)), labels, torch.arange(10))
        found.append(torch.autograd.grad(learner.auxiliaries[0].objective(h, batch, losses.AlignUniform()).loss, h)[0])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_what_cannot_be_is_refused():
    x = torch.rand(4, 2, 8, 8, dtype=torch.float64)
    with pytest.raises(ConfigError, match="beta is 2"):
        LocalLearning(convolutions(), 2, "predsim:beta=2", sgd, at=("0",), example=x)
    with pytest.raises(ConfigError, match="dimensions is 0"):
        LocalLearning(convolutions(), 2, "predsim:dimensions=0", sgd, at=("0",), example=x)
    for auxiliary in ("predsim", "infopro:contrast=true", "man:base=predsim"):
        with pytest.raises(ConfigError, match="compare the samples of a batch"):
            LocalLearning(convolutions(), 2, auxiliary, sgd, at=("0",), example=x, accumulate=2)
    LocalLearning(convolutions(), 2, "infopro", sgd, at=("0",), example=x, accumulate=2)
