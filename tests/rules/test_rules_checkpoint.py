from __future__ import annotations

import copy
from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from repertoire import backbones, heads, losses, registry
from repertoire.backbones import Backbone
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Classifier, Embedding, Method, Normalize, Supervised
from repertoire.plan import Ledger
from repertoire.rules import Backprop, Checkpoint, Rule


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


def supervised(spec: str = "resnet20:width=4", size: int = 8) -> Method:
    torch.manual_seed(0)
    net = registry.build("backbones", spec, in_channels=3, image_size=size)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 3))
    return Supervised(model, losses.CrossEntropy()).train()


def batch_of(count: int = 12, size: int = 8, views: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = tuple(torch.rand(count, 3, size, size, generator=generator) for _ in range(views))
    return Batch(images, torch.arange(count) % 3, torch.arange(count))


def trained(rule: Rule, method: Method, batch: Batch, precision: str = "32-true", **options: object) -> Method:
    method = copy.deepcopy(method)
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    rule.setup(method, sgd, fabric=fabric, example=batch.images[:2], **options)
    torch.manual_seed(7)
    for _ in range(3):
        rule.step(method, batch)
    return method


def assert_same(one: Method, other: Method) -> None:
    """Weights and buffers, bit for bit."""
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_weights_and_buffers_are_those_of_back_propagation(precision: str, pieces: int):
    method, batch = supervised(), batch_of()
    results = [trained(r, method, batch, precision, accumulate=pieces) for r in (Backprop(), Checkpoint())]
    assert_same(*results)
    assert int(results[0].model.backbone.blocks[1].norm1.num_batches_tracked) == 3 * pieces


class Dropping(Backbone):
    """Dropout and batch normalisation in every block."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 8, 8)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.Dropout(0.5))
                for a, b in pairwise(widths)
            ]
        )
        self.stage_ends, self.in_channels, self.out_features = [2], 3, 8


def test_dropout_draws_the_same_masks_twice():
    torch.manual_seed(0)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), Dropping(), heads.Linear(8, 3))
    method = Supervised(model, losses.CrossEntropy()).train()
    assert_same(*(trained(rule, method, batch_of()) for rule in (Backprop(), Checkpoint())))


def test_networks_of_timm():
    if find_spec("timm") is None:
        pytest.skip("timm is not installed")
    method, batch = supervised("timm:resnet18", 32), batch_of(4, 32)
    assert_same(*(trained(r, method, batch) for r in (Backprop(), Checkpoint())))


def test_several_views_pass_at_once():
    net = backbones.ResNet(8, in_channels=3, width=4)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 3))
    method = Embedding(model, losses.SupCon(), dimensions=8).train()
    assert_same(*(trained(r, method, batch_of(views=2)) for r in (Backprop(), Checkpoint())))


def test_a_step_leaves_nothing_behind():
    method, batch = supervised(), batch_of()
    calls: list[int] = []
    block = method.model.backbone.blocks[1]
    block.register_forward_hook(lambda module, args, output: calls.append(1))
    rule = Checkpoint()
    rule.setup(method, sgd)
    rule.step(method, batch)
    assert len(calls) == 1, "hooks see the first pass only"
    assert all("forward" not in vars(block) for block in method.model.backbone.blocks)
    assert block.norm1.momentum == 0.1
    copy.deepcopy(method)


def test_activations_are_not_kept():
    peaks = {}
    for rule in (Backprop(), Checkpoint()):
        method, batch = supervised("resnet20:width=8", 16), batch_of(32, 16)
        rule.setup(method, sgd)
        rule.step(method, batch)
        with Ledger() as ledger:
            rule.step(method, batch)
        peaks[type(rule).__name__] = ledger.peak
    assert peaks["Checkpoint"] < 0.6 * peaks["Backprop"]


def test_a_layer_that_counts_its_passes_is_refused():
    method, batch = supervised(), batch_of()
    inside = method.model.backbone.blocks[2]
    nn.utils.parametrizations.spectral_norm(inside.conv1)
    before = copy.deepcopy(method.state_dict())
    rule = Checkpoint()
    rule.setup(method, sgd)
    with pytest.raises(ConfigError, match=r"blocks\.2\.conv1\S* changes in every forward pass"):
        rule.step(method, batch)
    for name, parameter in method.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
