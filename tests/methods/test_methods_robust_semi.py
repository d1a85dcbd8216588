"""Robust training with a teacher: its loss against a loop, the attack, and what must stand still meanwhile."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, Normalize, RobustSemi
from repertoire.rules import Backprop

K = 3


def classifier(seed: int, classes: int = K, batch_norm: bool = True) -> Classifier:
    torch.manual_seed(seed)
    net = (
        backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
        if batch_norm
        else backbones.Identity(in_channels=6, image_size=1)
    )
    channels = net.in_channels
    return Classifier(Normalize([0.5] * channels, [0.25] * channels), net, heads.Linear(net.out_features, classes))


def batch_of(count: int = 4, unlabelled: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    batch = Batch((torch.rand(count, 1, 8, 8, generator=generator),), torch.arange(count) % K, torch.arange(count))
    if unlabelled:
        images = torch.rand(unlabelled, 1, 8, 8, generator=generator)
        batch.streams = {"unlabelled": Batch((images,), torch.full((unlabelled,), -1), torch.arange(unlabelled))}
    return batch


def softmax(row: Tensor) -> list[float]:
    total = sum(math.exp(value) for value in row.tolist())
    return [math.exp(value) / total for value in row.tolist()]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_is_its_formula(hard: bool, weighted: bool):
    options = {"robust": 1.7, "distil": 0.6, "beta": 0.3, "epsilon": 0.1, "steps": 3}
    teacher = classifier(1).double().eval()
    method = RobustSemi(classifier(0), losses.CrossEntropy(), teacher, hard=hard, weighted=weighted, **options)
    method.double().eval()
    batch = batch_of().map(lambda t: t.double() if t.is_floating_point() else t)
    images = torch.cat([batch.images, batch.streams["unlabelled"].images])
    label = teacher(images).argmax(1)
    torch.manual_seed(5)
    changed = method.attacked(images, label)
    total = 0.0
    for image, other, c in zip(images, changed, label.tolist(), strict=True):
        p, q, t = (
            softmax(net(x[None])[0]) for net, x in ((method.model, image), (method.model, other), (teacher, image))
        )
        agreed, withstood = (sum(a * b for a, b in zip(t, said, strict=True)) for said in (p, q))
        weight = 0.3 * agreed + 0.7 * (1 - withstood) if weighted else 1.0
        total += 0.6 * (-math.log(p[c]) if hard else divergence(t, p)) + 1.7 * weight * divergence(p, q)
    expected = float(F.cross_entropy(method.model(batch.images), batch.targets).detach()) + total / 10
    torch.manual_seed(5)
    assert float(method.step(batch).loss.detach()) == pytest.approx(expected)


def test_the_attack_stays_close_and_finds_something():
    method = RobustSemi(classifier(0), losses.CrossEntropy(), classifier(1), epsilon=0.1, steps=10)
    images = batch_of(12, 0).images
    label = method.model.eval()(images).argmax(1)
    changed = method.attacked(images, label)
    assert float((changed - images).abs().max()) <= 0.1 + 1e-6
    assert changed.min() >= 0
    assert changed.max() <= 1
    before, after = (F.cross_entropy(method.model(x), label) for x in (images, changed))
    assert after > before + 0.01


def test_of_a_linear_model_a_step_is_the_sign_of_the_weights():
    """Vectors have no bounds, and from the middle one long step reaches the corner of the cube."""
    model = classifier(0, classes=2, batch_norm=False)
    method = RobustSemi(model, losses.CrossEntropy(), classifier(1, classes=2, batch_norm=False), epsilon=0.5, steps=9)
    x, label = torch.randn(8, 6), torch.arange(8) % 2
    weight = next(p for name, p in model.head.named_parameters() if p.ndim == 2).detach()
    towards = (weight[1] - weight[0]).sign()
    sign = torch.where(label == 0, 1.0, -1.0)[:, None]
    torch.testing.assert_close(method.attacked(x, label), x + 0.5 * sign * towards)


def test_the_teacher_and_the_statistics_stand_still_while_it_is_attacked():
    method = RobustSemi(classifier(0), losses.CrossEntropy(), classifier(1), steps=3).train()
    assert not method.teacher.training
    assert method.model.training
    kept = {name: value.clone() for name, value in method.state_dict().items()}
    method.attacked(batch_of().images, torch.zeros(4, dtype=torch.int64))
    assert all(torch.equal(value, kept[name]) for name, value in method.state_dict().items())
    rule = Backprop()
    rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1))
    rule.step(method, batch_of())
    for name, value in method.state_dict().items():
        assert torch.equal(value, kept[name]) == name.startswith(("teacher.", "model.normalize.")), name


def test_without_labels_left_it_learns_from_labelled_samples_alone():
    method = RobustSemi(classifier(0), losses.CrossEntropy(), classifier(1), steps=2)
    assert method.step(batch_of(6, 0)).loss.isfinite()


def test_training_makes_a_network_withstand_more():
    def trained(robust: float) -> float:
        method = RobustSemi(
            classifier(0), losses.CrossEntropy(), classifier(1).eval(), epsilon=0.15, steps=4, robust=robust
        )
        rule = Backprop()
        rule.setup(method, lambda module: torch.optim.Adam(module.parameters(), lr=1e-2))
        torch.manual_seed(0)
        for _ in range(60):
            rule.step(method, batch_of(6, 12))
        return float(method.step(batch_of(6, 12)).logs["robust_loss"])

    assert trained(6.0) < 0.5 * trained(0.0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="give teacher="):
        RobustSemi(classifier(0), losses.CrossEntropy())
    with pytest.raises(ConfigError, match="the teacher knows 5 classes, and this network is to learn 3"):
        RobustSemi(classifier(0), losses.CrossEntropy(), classifier(1, classes=5))
    with pytest.raises(ConfigError, match=r"beta must lie in \[0, 1\]"):
        RobustSemi(classifier(0), losses.CrossEntropy(), classifier(1), beta=1.5)
