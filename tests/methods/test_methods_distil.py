"""Distillation: the loss against a loop, what norm and direction need, and means of classes from a run."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.methods import Classifier, Distil, Normalize, Stage, class_means

K = 3


def classifier(seed: int, classes: int = K, width: int = 4) -> Classifier:
    torch.manual_seed(seed)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=width, depth=2)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, classes))


def batch_of(count: int = 5) -> Batch:
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch((images,), torch.arange(count) % K, torch.arange(count))


def softmax(row: list[float], temperature: float) -> list[float]:
    total = sum(math.exp(value / temperature) for value in row)
    return [math.exp(value / temperature) / total for value in row]


def test_is_its_formula():
    student, teacher, batch = classifier(0), classifier(1, width=6).eval(), batch_of()
    with torch.no_grad():
        teacher.head.linear.weight *= 20
    method = Distil(student, losses.CrossEntropy(), teacher, temperature=2.5, weight=0.7).double().eval()
    images = batch.images.double()
    total = 0.0
    for own, told, y in zip(method.model(images), method.teacher(images), batch.targets.tolist(), strict=True):
        total -= math.log(softmax(own.tolist(), 1)[y])
        p, q = softmax(told.tolist(), 2.5), softmax(own.tolist(), 2.5)
        total += 0.7 * 2.5**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    given = Batch((images,), batch.targets, batch.index)
    assert float(method.step(given).loss.detach()) == pytest.approx(total / len(batch), rel=1e-9)


def test_a_student_that_says_what_its_teacher_says_is_taught_nothing():
    method = Distil(classifier(0), losses.CrossEntropy(), classifier(0)).eval()
    assert float(method.step(batch_of()).logs["teacher_loss"]) == pytest.approx(0, abs=1e-6)


def test_norm_and_direction_are_added_of_projected_features():
    teacher, batch, seen = classifier(1, width=6), batch_of(), batch_of(9)
    method = Distil(classifier(0), losses.CrossEntropy(), teacher, norm_direction=2.0)
    method.begin(Stage(batches=lambda: seen.split(4)))
    assert method.training
    method.eval()
    means = class_means(teacher, [seen])
    plain = Distil(method.model, losses.CrossEntropy(), teacher).eval()
    with torch.no_grad():
        projected = method.projection(method.model.embed(batch.images))
        wanted = losses.norm_direction(projected, teacher.embed(batch.images), means, batch.targets)
        gain = method.step(batch).loss - plain.step(batch).loss
    torch.testing.assert_close(gain, 2 * wanted)
    torch.testing.assert_close(method.state_dict()["class_means"], means)
    alike = Distil(classifier(0), losses.CrossEntropy(), classifier(1), norm_direction=1.0)
    assert isinstance(alike.projection, torch.nn.Identity)


def test_means_of_classes_are_those_of_evaluation():
    model, batch = classifier(0).train(), batch_of(7)
    batch.targets[-1] = -1
    found = class_means(model, batch.split(3))
    assert model.training
    features = model.eval().embed(batch.images).detach()
    expected = [features[batch.targets == y].mean(0) for y in range(K)]
    torch.testing.assert_close(found, torch.stack(expected))


def test_what_does_not_fit_is_refused():
    loss = losses.CrossEntropy()
    with pytest.raises(ConfigError, match="method 'distil' learns from another run: give teacher="):
        Distil(classifier(0), loss)
    method = Distil(classifier(0), loss, classifier(1), norm_direction=1.0)
    with pytest.raises(ShapeError, match="there are no batches to take the means of"):
        method.begin(Stage())
