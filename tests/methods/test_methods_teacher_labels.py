"""Labels of a teacher: the loss against a loop, a teacher that stands still, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, Normalize, TeacherLabels
from repertoire.rules import Backprop

K = 3


def classifier(seed: int, classes: int = K) -> Classifier:
    torch.manual_seed(seed)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, classes))


def batch_of(count: int = 4, unlabelled: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    batch = Batch((torch.rand(count, 1, 8, 8, generator=generator),), torch.arange(count) % K, torch.arange(count))
    if unlabelled:
        images = torch.rand(unlabelled, 1, 8, 8, generator=generator)
        batch.streams = {"unlabelled": Batch((images,), torch.full((unlabelled,), -1), torch.arange(unlabelled))}
    return batch


def test_is_its_formula_with_the_loss_of_uneven_classes():
    """Frequencies of the classes are those of the labelled samples for guessed labels, too."""
    loss = losses.LogitAdjusted(torch.tensor([90.0, 9.0, 1.0]))
    teacher = classifier(1).eval()
    method = TeacherLabels(classifier(0), loss, teacher, weight=0.7).eval()
    batch = batch_of()

    def mean(images: torch.Tensor, labels: list[int]) -> float:
        total = 0.0
        for row, y in zip(method.model(images).tolist(), labels, strict=True):
            shifted = [value + math.log(count / 100) for value, count in zip(row, (90, 9, 1), strict=True)]
            total -= shifted[y] - math.log(sum(math.exp(value) for value in shifted))
        return total / len(labels)

    others = batch.streams["unlabelled"].images
    with torch.no_grad():  # which names several classes
        teacher.head.linear.bias -= teacher(others).mean(0)
    named = teacher(others).argmax(1).tolist()
    assert len(set(named)) > 1
    expected = mean(batch.images, batch.targets.tolist()) + 0.7 * mean(others, named)
    assert float(method.step(batch).loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_teacher_stands_still():
    method = TeacherLabels(classifier(0), losses.CrossEntropy(), classifier(1)).train()
    assert not method.teacher.training
    kept = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    rule = Backprop()
    rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1))
    rule.step(method, batch_of())
    assert all(torch.equal(value, kept[name]) for name, value in method.teacher.state_dict().items())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="method 'teacher-labels' learns from another run: give teacher="):
        TeacherLabels(classifier(0), losses.CrossEntropy())
    with pytest.raises(ConfigError, match="the teacher knows 5 classes, and this network is to learn 3"):
        TeacherLabels(classifier(0), losses.CrossEntropy(), classifier(1, classes=5))
    with pytest.raises(ConfigError, match="has no stream 'unlabelled'"):
        TeacherLabels(classifier(0), losses.CrossEntropy(), classifier(1)).step(batch_of(4, 0))
