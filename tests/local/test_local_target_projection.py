"""Random target projection against the formula, and as a rule: what is trained, what is not, what is refused."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from repertoire import backbones, heads, losses, registry
from repertoire.data import Batch
from repertoire.errors import ConfigError, UnknownName
from repertoire.local import Exits, LocalLearning, TargetProjection, TargetProjectionSGD
from repertoire.local.auxiliaries._target_projection import last_activation, target_distance
from repertoire.methods import Classifier, Method, Normalize, Supervised

RELU = {"relu": lambda v: max(v, 0.0), "tanh": math.tanh, "none": lambda v: v}


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.1)


def make_method() -> Method:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    return Supervised(
        Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3)), losses.CrossEntropy()
    )


def make_batch(labels: Tensor | None = None) -> Batch:
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch((images,), torch.arange(12) % 3 if labels is None else labels, torch.arange(12))


def slow_distance(row: Tensor, projected: Tensor, activation: str, distance: str) -> float:
    """One sample `[C, places]` and its projected label of the same shape, number by number."""
    total = 0.0
    for h, b in zip(row.flatten().tolist(), projected.flatten().tolist(), strict=True):
        t = RELU[activation](b)
        total += {"l2": 0.5 * (h - t) ** 2, "l1": abs(h - t), "direct": -h * b}[distance]
    return total / row.shape[1]


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from(sorted(RELU)),
    st.sampled_from(["l2", "l1", "direct"]),
    st.integers(0, 2**31),
)
@settings(max_examples=25, deadline=None)
def test_distance_agrees_with_the_formula(count, channels, places, activation, distance, seed):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(count, channels, places, generator=generator, dtype=torch.float64)
    b = torch.randn(count, channels, places, generator=generator, dtype=torch.float64)
    found = target_distance(h, b, activation, distance)
    for row, target, value in zip(h, b, found, strict=True):
        assert math.isclose(float(value), slow_distance(row, target, activation, distance), abs_tol=1e-12)


@pytest.mark.parametrize("maps", ["pooled", "channels", "flat"])
def test_the_forms_of_a_target_for_maps(maps):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.Flatten()).double()
    x, y = torch.randn(5, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
    learner = LocalLearning(net, "all", f"target-projection:maps={maps}", sgd, example=x)
    network = learner.auxiliaries[0]
    assert network.activation == "relu"
    h = net[1](net[0](x)).detach()
    b = network.classifier.projection[y]
    if maps == "pooled":
        rows, targets = h.mean((2, 3))[..., None], b[..., None]
    elif maps == "channels":
        rows, targets = h.flatten(2), b[..., None].expand(-1, -1, 4)
    else:
        rows, targets = h.flatten(2), b.view(5, 3, 4)
    expected = sum(slow_distance(r, t, "relu", "l2") for r, t in zip(rows, targets, strict=True)) / 5
    logs = learner.step(x, y)
    assert math.isclose(float(logs["block1_loss"]), expected, rel_tol=1e-10)


def test_a_step_is_the_delta_rule_of_the_paper():
    """W moves by (t - h) * act'(z) times the layer's input, and by nothing that comes from later layers."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 3
    learner = LocalLearning(net, "all", "target-projection", sgd, example=x)
    before = copy.deepcopy(net)
    learner.step(x, y)
    with torch.no_grad():
        h = x
        for number, (index, slope) in enumerate([(0, lambda z: 1 - z.tanh() ** 2), (2, lambda z: (z > 0).double())]):
            layer, act = before[index], before[index + 1]
            z = layer(h)
            target = act(learner.auxiliaries[number].classifier.projection[y])
            error = (target - act(z)) * slope(z) / len(x)
            torch.testing.assert_close(net[index].weight, layer.weight + 0.1 * error.T @ h)
            torch.testing.assert_close(net[index].bias, layer.bias + 0.1 * error.sum(0))
            h = act(z)
        error = (torch.eye(3, dtype=torch.float64)[y] - before[4](h).softmax(1)) / len(x)
        torch.testing.assert_close(net[4].weight, before[4].weight + 0.1 * error.T @ h)


def test_direct_puts_the_projected_label_in_the_place_of_the_gradient():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 3
    learner = LocalLearning(net, "all", "target-projection:distance=direct", sgd, example=x)
    before = net[0].weight.detach().clone()
    z = net[0](x).detach()
    learner.step(x, y)
    delta = learner.auxiliaries[0].classifier.projection[y] * (1 - z.tanh() ** 2) / len(x)
    torch.testing.assert_close(net[0].weight.detach(), before + 0.1 * delta.T @ x)


def test_the_matrices_never_change_and_are_in_the_checkpoint():
    method, batch = make_method(), make_batch()
    rule = TargetProjectionSGD()
    rule.setup(method, sgd, example=batch.images)
    held = {name: value.clone() for name, value in method.state_dict().items() if name.endswith("projection")}
    assert [tuple(value.shape) for value in held.values()] == [(3, 4), (3, 8)]
    for _ in range(3):
        rule.step(method, batch)
    after = method.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in held.items())
    assert not list(method.local.parameters())


def test_the_head_is_a_block_of_its_own():
    method, batch = make_method(), make_batch()
    rule = TargetProjectionSGD()
    rule.setup(method, sgd, example=batch.images)
    assert rule.partition == [["blocks.0"], ["blocks.1"], ["head"]]
    other, same = make_method(), TargetProjectionSGD()
    same.setup(other, sgd, example=batch.images)
    other.load_state_dict(method.state_dict())
    with torch.no_grad():
        other.model.head.linear.weight.mul_(-5)
    logs = rule.step(method, batch)
    same.step(other, batch)
    assert {"loss", "block1_loss", "block2_loss", "block2_accuracy"} <= logs.keys()
    for a, b in zip(method.model.backbone.parameters(), other.model.backbone.parameters(), strict=True):
        assert torch.equal(a, b), "the last layer before the head saw the head"


def test_a_head_of_ones_own_network_can_stand_apart():
    model, x = make_method().model, make_batch().images
    together = LocalLearning(model, "all", "linear", sgd, example=x)
    apart = LocalLearning(model, "all", "target-projection", sgd, example=x, head_apart=True)
    assert apart.partition == [*together.partition, ["head"]]
    assert len(apart.auxiliaries) == 2
    apart.step(x, torch.arange(12) % 3)
    assert [e.shape for e in apart.exits(x)] == [(12, 3)] * 3


def test_an_exit_answers_with_the_nearest_target():
    batch, method = make_batch(), make_method()
    rule = TargetProjectionSGD()
    rule.setup(method, sgd, example=batch.images)
    method.eval()
    network = method.local[1]
    assert isinstance(network, TargetProjection)
    with torch.no_grad():
        h = method.model.backbone.blocks[1](method.model.backbone.blocks[0](method.model.normalize(batch.images)))
        distances = torch.cdist(h.mean((2, 3)), network.classifier.projection.relu())
        assert torch.equal(network(h).argmax(1), distances.argmin(1))
        exits = rule.exits(method.model, batch.images)
        assert isinstance(exits, Exits)
        assert exits.names == ["blocks.0", "blocks.1", "head"]
        exits.classifiers[0].load_state_dict(method.local[0].state_dict())
        exits.classifiers[1].load_state_dict(method.local[1].state_dict())
        answers = exits.eval()(batch.images)
        torch.testing.assert_close(answers[-1], method.model(batch.images))
        torch.testing.assert_close(answers[1], network(h))


def test_samples_without_a_label_take_no_part():
    weights = []
    for labels in (torch.arange(12) % 3, torch.where(torch.arange(12) < 6, torch.arange(12) % 3, -1)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        network = LocalLearning(net, "all", "target-projection", sgd, example=torch.zeros(2, 4)).auxiliaries[0]
        x = torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
        keep = slice(0, 6) if labels.min() >= 0 else slice(None)
        h = net[1](net[0](x[keep]))
        loss = network.objective(h, Batch((x[keep],), labels[keep], torch.arange(12)[keep]), nn.CrossEntropyLoss()).loss
        weights.append(torch.autograd.grad(loss, net[0].weight)[0])
    torch.testing.assert_close(*weights)


def test_half_precision_and_a_batch_of_unlabelled_are_finite():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    network = LocalLearning(net, "all", "target-projection", sgd, example=torch.zeros(2, 4)).auxiliaries[0]
    h = torch.full((3, 5), 300.0, dtype=torch.float16, requires_grad=True)
    for labels in (torch.tensor([0, 1, 2]), torch.full((3,), -1)):
        step = network.half().objective(h, Batch((h,), labels, torch.arange(3)), nn.CrossEntropyLoss())
        assert step.loss.isfinite()
        assert torch.autograd.grad(step.loss, h)[0].isfinite().all()


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Dropout(0.1)], "relu"),
        ([nn.Linear(4, 4), nn.Sigmoid(), nn.Unflatten(1, (4, 1, 1)), nn.MaxPool2d(1), nn.Flatten()], "sigmoid"),
        ([nn.GELU(), nn.Linear(4, 4)], "none"),
        ([nn.ReLU(), nn.LayerNorm(4)], "none"),
    ],
)
def test_the_last_activation_is_found(layers, expected):
    module = nn.Sequential(*layers).train()
    assert last_activation(module, torch.zeros(1, 4)) == expected
    assert all(m.training for m in module.modules())


def test_the_last_activation_of_residual_networks():
    class Residual(nn.Module):
        def __init__(self, after: bool) -> None:
            super().__init__()
            self.linear, self.after = nn.Linear(4, 4), after

        def forward(self, x: Tensor) -> Tensor:
            y = x + self.linear(x).relu()
            return y.relu() if self.after else y

    assert last_activation(Residual(True), torch.zeros(1, 4)) == "relu"
    assert last_activation(Residual(False), torch.zeros(1, 4)) == "none"


def test_a_small_convolutional_network_learns():
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.rand(60, 1, 8, 8) * 0.3
    for row, label in enumerate(y.tolist()):
        x[row, 0, 1 + 2 * label : 3 + 2 * label] += 0.7
    method = make_method()
    rule = registry.build("rules", "tpsgd")
    rule.setup(method, sgd, example=x)
    batch = Batch((x,), y, torch.arange(60))
    for _ in range(60):
        rule.step(method, batch)
    assert (method.eval().model(x).argmax(1) == y).float().mean() > 0.9


def test_what_cannot_be_is_refused():
    x = torch.zeros(2, 4)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    with pytest.raises(ConfigError, match=r"scale is 0\.0; expected a positive"):
        LocalLearning(net, "all", "target-projection:scale=0", sgd, example=x)
    with pytest.raises(UnknownName, match="did you mean 'relu'"):
        LocalLearning(net, "all", "target-projection:activation=rela", sgd, example=x)
    with pytest.raises(ConfigError, match="maps"):
        LocalLearning(net, "all", "target-projection:maps=round", sgd, example=x)
    unlabelled = make_method()
    unlabelled.needs = replace(unlabelled.needs, labels="unused")
    with pytest.raises(ConfigError, match=r"rule 'tpsgd' cannot train method 'supervised': .* does without"):
        TargetProjectionSGD().setup(unlabelled, sgd, example=make_batch().images)
