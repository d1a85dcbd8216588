"""Meta auxiliary learning: its loss against a loop, the generator's gradient against finite differences, no traces."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, MetaAuxiliary, Normalize
from repertoire.rules import Backprop

K, PSI = 2, 2


class Product(nn.Module):
    """A weight for each of two features: the network of two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, -0.4]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def two_parameters(**options: object) -> MetaAuxiliary:
    """A method whose network has two parameters: heads are fixed."""
    torch.manual_seed(0)
    net = backbones.Identity(2)
    net.blocks[0] = Product()
    model = Classifier(Normalize([0.0, 0.0], [1.0, 1.0]), net, heads.Linear(2, K))
    method = MetaAuxiliary(model, losses.CrossEntropy(), psi=PSI, rate=0.5, **options).double()
    for fixed in (method.model.head, method.auxiliary):
        fixed.requires_grad_(False)
    assert sum(p.numel() for p in method.model.parameters() if p.requires_grad) == 2
    return method


def rows(count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        (torch.randn(count, 2, generator=generator, dtype=torch.float64),), torch.arange(count) % K, torch.arange(count)
    )


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(value) for value in row))
    return [value - total for value in row]


def slow(method: MetaAuxiliary, batch: Batch, weight: list[float]) -> tuple[float, float, float, list[float]]:
    """Loss of the classes, that of the finer labels, what the generator minimises, and the derivative of the first two
    by the two parameters, by central differences."""
    head, finer = (
        (layer.weight.tolist(), layer.bias.tolist()) for layer in (method.model.head.linear, method.auxiliary)
    )
    images, targets = batch.images.tolist(), batch.targets.tolist()
    labels = method.finer_labels(batch.images, batch.targets).tolist()

    def scores(layer, row, own):
        return [sum(w * o * x for w, o, x in zip(ws, own, row, strict=True)) + b for ws, b in zip(*layer, strict=True)]

    def both(own: list[float]) -> tuple[float, float]:
        primary = auxiliary = 0.0
        for row, y, soft in zip(images, targets, labels, strict=True):
            primary -= log_softmax(scores(head, row, own))[y] / len(images)
            log_p = log_softmax(scores(finer, row, own))
            for j, share in enumerate(soft):
                at = log_p[y * PSI + j]
                auxiliary -= share * (1 - math.exp(at)) ** 2 * at / len(images)
        return primary, auxiliary

    def total(own: list[float]) -> float:
        return both(own)[0] + method.weight * both(own)[1]

    slopes = []
    for k in range(2):
        up, down = ([w + sign * 1e-5 * (i == k) for i, w in enumerate(weight)] for sign in (1, -1))
        slopes.append((total(up) - total(down)) / 2e-5)
    means = [
        sum(soft[j] for soft, y in zip(labels, targets, strict=True) if y == c) / len(images)
        for c in range(K)
        for j in range(PSI)
    ]
    ahead = both([w - method.rate * slope for w, slope in zip(weight, slopes, strict=True)])[0]
    collapse = sum(m * math.log(m) for m in means)
    return *both(weight), ahead + method.entropy * collapse, slopes


@pytest.mark.parametrize("first_order", [False, True])
def test_is_its_formula(first_order: bool):
    method, batch = two_parameters(weight=0.8, first_order=first_order), rows()
    primary, auxiliary, generated, slopes = slow(method, batch, [0.7, -0.4])
    loss = method.step(batch).loss
    assert float(loss.detach()) == pytest.approx(primary + 0.8 * auxiliary + generated, rel=1e-6)
    # What the generator minimises moves the generator alone.
    weight = method.model.backbone.blocks[0].weight
    (found,) = torch.autograd.grad(loss, weight)
    assert found.tolist() == pytest.approx(slopes, rel=1e-6)


@pytest.mark.parametrize(("first_order", "close"), [(False, 1e-6), (True, 1e-3)])
def test_the_generators_gradient_is_that_of_finite_differences(first_order: bool, close: float):
    method, batch = two_parameters(first_order=first_order), rows()
    parameters = list(method.generator.parameters())
    found = torch.autograd.grad(method.step(batch).loss, parameters, allow_unused=True, materialize_grads=True)
    largest = 0.0
    for parameter, gradient in zip(parameters, found, strict=True):
        for k in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[k] += sign * 1e-4
                    values.append(slow(method, batch, [0.7, -0.4])[2])
                    parameter.view(-1)[k] -= sign * 1e-4
            expected = (values[0] - values[1]) / 2e-4
            assert float(gradient.view(-1)[k]) == pytest.approx(expected, rel=close, abs=1e-6)
            largest = max(largest, abs(expected))
    assert largest > 1e-3


def test_without_entropy_the_generator_learns_from_the_step_ahead_alone():
    method, batch = two_parameters(entropy=0.0), rows()
    (found,) = torch.autograd.grad(method.step(batch).loss, method.generator.head.linear.weight)
    assert found.abs().max() > 1e-4
    method.rate = 1e-12
    (found,) = torch.autograd.grad(method.step(batch).loss, method.generator.head.linear.weight)
    assert found.abs().max() < 1e-9


def image_method(**options: object) -> MetaAuxiliary:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))
    return MetaAuxiliary(model, losses.Focal(), psi=3, **options)


def images(count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch((torch.rand(count, 1, 8, 8, generator=generator),), torch.arange(count) % 3, torch.arange(count))


@pytest.mark.parametrize("first_order", [False, True])
def test_looking_ahead_leaves_no_trace(first_order: bool):
    """Batch normalisation has seen one batch, and no weight has a gradient before the loss is sent back."""
    method, plain = image_method(first_order=first_order).train(), image_method().train()
    with torch.no_grad():
        plain.model(images().images)
    method.step(images())
    kept, seen = (dict(each.model.named_buffers()) for each in (method, plain))
    assert any(name.endswith("running_mean") for name in kept)
    for name, value in kept.items():
        torch.testing.assert_close(value, seen[name])
    assert all(parameter.grad is None for parameter in method.parameters())


def test_labels_are_of_the_own_class_and_sum_to_one():
    method, batch = image_method(), images()
    outputs = method.generator(batch.images)
    labels = method.finer_labels(batch.images, batch.targets)
    for row, y, found in zip(outputs.tolist(), batch.targets.tolist(), labels.tolist(), strict=True):
        expected = [math.exp(value) for value in log_softmax(row[3 * y : 3 * y + 3])]
        assert found == pytest.approx(expected, rel=1e-5)


def test_entropy_keeps_all_finer_labels_in_use():
    def spread(entropy: float) -> float:
        method, batch = image_method(entropy=entropy), images(12)
        with torch.no_grad():
            method.generator.head.linear.bias[::3] += 4
        rule = Backprop()
        rule.setup(method, lambda module: torch.optim.Adam(module.parameters(), lr=1e-2))
        for _ in range(40):
            rule.step(method, batch)
        return float(method.step(batch).logs["label_entropy"])

    assert spread(1.0) > spread(0.0) + 0.3
    assert spread(1.0) > 0.9 * math.log(9)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="psi must be positive"):
        MetaAuxiliary(image_method().model, losses.Focal(), psi=0)
    with pytest.raises(ConfigError, match="rate must be positive"):
        MetaAuxiliary(image_method().model, losses.Focal(), rate=0.0)
