from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from repertoire import losses
from repertoire.backbones import ConvNet, Identity
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.heads import Linear
from repertoire.methods import Classifier, Normalize, RobustSelfTraining


def made(classes: int = 2, std: float = 1.0, **options: object) -> RobustSelfTraining:
    torch.manual_seed(0)
    model = Classifier(Normalize([0.0] * 4, [std] * 4), Identity(4), Linear(4, classes))
    return RobustSelfTraining(model, losses.CrossEntropy(), **options).double().eval()


def rows(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def given(labelled: int = 4, unlabelled: int = 9) -> Batch:
    batch = Batch((rows(labelled),), torch.arange(labelled) % 2, torch.arange(labelled))
    others = Batch((rows(unlabelled, 2),), torch.full((unlabelled,), -1), torch.arange(unlabelled))
    batch.streams = {"unlabelled": others}
    return batch


@pytest.mark.parametrize("std", [1.0, 3.0])
def test_the_worst_place_of_a_linear_network_is_on_a_line(std: float):
    """Two classes: the loss falls along w = w1 - w0 alone, so the supremum is one number, found by search."""
    gamma = 0.7
    method = made(std=std, gamma=gamma, steps=200)
    x, y = rows(6), torch.arange(6) % 2
    head = method.model.head.linear
    w, b = (head.weight[1] - head.weight[0]).detach(), float((head.bias[1] - head.bias[0]).detach())
    found = method.worst(x, y)
    for i in range(6):
        sign, f = 2 * int(y[i]) - 1, float(x[i] @ w / std) + b

        def value(t: float, sign: int = sign, f: float = f) -> float:  # z = x - sign * t * std * w / |w|
            return -(math.log1p(math.exp(-sign * f + t * float(w.norm()))) - gamma * t * t)

        best = minimize_scalar(value, bounds=(0, 10), method="bounded", options={"xatol": 1e-10}).x
        torch.testing.assert_close(found[i], x[i] - sign * best * std * w / w.norm(), atol=1e-4, rtol=0)


def test_what_cannot_move_is_self_training_with_hard_labels():
    batch = given()
    method = made(gamma=1e12)
    z = method.model(batch.streams["unlabelled"].images)
    expected = F.cross_entropy(method.model(batch.images), batch.targets) + F.cross_entropy(z, z.argmax(1))
    torch.testing.assert_close(method.step(batch).loss, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(made(steps=0).step(batch).loss, expected)


@pytest.mark.parametrize("robust", [False, True])
def test_agrees_with_the_formula_where_all_classes_are_tried(robust: bool):
    batch, gamma = given(), 2.0
    method = made(3, gamma=gamma, weight=0.4, steps=50, candidates=3, robust_labelled=robust)
    # Each row with each class, all at once: none has a share in the value of another.
    x, y = batch.streams["unlabelled"].images.repeat_interleave(3, 0), torch.arange(3).repeat(9)

    def value(z: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(method.model(z), y, reduction="none") - gamma * (z - x).square().sum(1)

    z = x
    for _ in range(2000):  # plain gradient ascent in short steps
        z = z.detach().requires_grad_()
        z = z + 0.05 * torch.autograd.grad(value(z).sum(), z)[0]
    total = float(value(z.detach()).detach().view(9, 3).min(1).values.sum())
    places = method.worst(batch.images, batch.targets) if robust else batch.images
    expected = float(F.cross_entropy(method.model(places), batch.targets).detach()) + 0.4 * total / 9
    assert float(method.step(batch).loss.detach()) == pytest.approx(expected, abs=1e-6)


def test_the_gradient_is_that_of_the_supremum():
    """Danskin: by finite differences of the whole, in which places and labels follow the weights."""
    batch = given()
    method = made(gamma=1.0, steps=100)
    method.step(batch).loss.backward()
    weight = method.model.head.linear.weight
    for place in ((0, 1), (1, 3)):
        found = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
                value = method.step(batch).loss
                weight[place] -= step
            found.append(float(value))
        assert (found[0] - found[1]) / 2e-5 == pytest.approx(float(weight.grad[place]), abs=1e-6)


def test_a_cost_that_is_too_small_is_refused():
    method, x = made(gamma=1e-3, steps=5), rows(6)
    with pytest.raises(ConfigError, match=r"gamma is 0.001.*use gamma=0.002"):
        method.worst(x, method.model(x).argmax(1))


def test_running_statistics_see_each_sample_once():
    torch.manual_seed(0)
    net = ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    model = Classifier(Normalize([0.5], [0.25]), net, Linear(net.out_features, 2))
    method = RobustSelfTraining(model, losses.CrossEntropy()).train()
    batch = Batch((torch.rand(4, 1, 8, 8),), torch.arange(4) % 2, torch.arange(4))
    batch.streams = {"unlabelled": Batch((torch.rand(8, 1, 8, 8),), torch.full((8,), -1), torch.arange(8))}
    method.step(batch)
    counted = [m.num_batches_tracked for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert counted
    assert all(int(count) == 1 for count in counted)


def test_without_unlabelled_samples_it_says_so():
    with pytest.raises(ConfigError, match="no stream 'unlabelled'"):
        made().step(Batch((rows(4),), torch.arange(4) % 2, torch.arange(4)))
