"""What holds for every auxiliary network, behind maps, tokens and vectors: it trains its block and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from repertoire import backbones, heads, losses, registry
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local import LocalLearning
from repertoire.local._block import LocalObjective
from repertoire.methods import Classifier, Normalize

KINDS = ("maps", "tokens", "vectors")

#: Options that change what is computed; the plain names run behind every kind of activations.
OPTIONS = [
    "man:base=(auglocal:depth=1)",
    "man:base=infopro,momentum=0.5",
    "man:momentum=none",
    "dgl:kind=mlp",
    "dgl:kind=cnn",
    "infopro:contrast=true",
    "infopro:error=mse,size=4",
]
CASES = [
    *((kind, name) for kind in KINDS for name in registry.names("auxiliaries")),
    *((KINDS[i % len(KINDS)], spec) for i, spec in enumerate(OPTIONS)),
]

#: Learn from labels alone, and say so where a loss uses none.
SUPERVISED = ("goodness",)


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "vectors":
        return nn.Sequential(
            nn.Linear(10, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 9), nn.Linear(9, 3)
        )
    if kind == "tokens":
        net: backbones.Backbone = backbones.ViT(in_channels=1, image_size=8, patch=4, dim=12, depth=2, heads=2)
    else:
        net = backbones.ResNet(8, in_channels=1, width=4)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))


def samples(kind: str, count: int = 24) -> tuple[Tensor, Tensor]:
    """Samples in [0, 1], noisy copies of one a class."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 3
    shape = (10,) if kind == "vectors" else (1, 8, 8)
    prototypes = torch.rand(3, *shape, generator=generator)
    noise = torch.rand(count, *shape, generator=generator)
    return 0.7 * prototypes[labels] + 0.3 * noise, labels


def adam(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in block.parameters() if p.requires_grad], lr=0.01)


def learner_of(kind: str, spec: str, **options: object) -> LocalLearning:
    net = network(kind)
    torch.manual_seed(2)
    return LocalLearning(net, 3, spec, adam, example=samples(kind)[0][:2], **options)


every_case = pytest.mark.parametrize(("kind", "spec"), CASES)


@every_case
def test_blocks_learn_and_the_state_is_complete(kind: str, spec: str):
    x, y = samples(kind)
    learner = learner_of(kind, spec)
    names = set(network(kind).state_dict())
    logs = [learner.step(x, y) for _ in range(12)]
    for name in ("block1_loss", "block2_loss", "loss"):
        assert logs[-1][name] < logs[0][name], name
    assert set(learner.model.state_dict()) == names, "nothing is added to the network"
    other = learner_of(kind, spec)
    other.model.load_state_dict(copy.deepcopy(learner.model.state_dict()))
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    for _ in range(2):
        torch.manual_seed(3)
        a = learner.step(x, y)
        torch.manual_seed(3)
        b = other.step(x, y)
        assert all(torch.equal(a[name], b[name]) for name in a)
    for mine, theirs in zip(
        learner.auxiliaries.state_dict().values(), other.auxiliaries.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


@every_case
def test_a_block_gets_its_gradient_from_its_own_loss(kind: str, spec: str):
    x, y = samples(kind)
    learner = learner_of(kind, spec)
    batch = Batch((x,), y, torch.arange(len(y)))
    everything = {p for block in learner.trainer.blocks for p in block.parameters()}
    for block in learner.trainer.blocks:
        loss, logs = block(x, batch)
        assert loss.shape == ()
        assert all(value.grad_fn is None and value.shape == () for value in logs.values())
        loss.backward()
        wanted = {p for p in block.parameters() if p.requires_grad}
        assert {p for p in everything if p.grad is not None} == wanted, "every parameter of the block, and no other"
        assert any(p.grad.abs().max() > 0 for unit in block.units for p in unit.parameters())
        for p in everything:
            p.grad = None
        x = block.take()
        assert not x.requires_grad


@every_case
def test_exits_give_class_scores_one_image_at_a_time(kind: str, spec: str):
    x, y = samples(kind)
    learner = learner_of(kind, spec)
    before = {name: value.clone() for name, value in network(kind).state_dict().items()}
    assert all(torch.equal(before[name], value) for name, value in learner.model.state_dict().items())
    for _ in range(3):
        learner.step(x, y)
    learner.eval()
    found = learner.exits(x)
    assert [tuple(logits.shape) for logits in found] == [(len(x), 3)] * 3
    for whole, single in zip(found, learner.exits(x[4:5]), strict=True):
        torch.testing.assert_close(whole[4:5], single, rtol=1e-4, atol=1e-5)


@every_case
def test_any_loss_and_samples_without_labels(kind: str, spec: str):
    x, y = samples(kind)
    learner = learner_of(kind, spec)
    block = learner.trainer.blocks[0]
    assert isinstance(block.objective, LocalObjective)
    auxiliary = block.objective.auxiliary
    views, index = (x, x.flip(-1)), torch.arange(len(y))
    h = block.run(torch.cat(views)).detach().requires_grad_()
    some = torch.where(index < 6, -1, y)
    for loss in (losses.SupCon(), losses.AlignUniform()):
        for labels in (some, torch.full_like(y, -1)):
            if isinstance(loss, losses.AlignUniform) and any(name in spec for name in SUPERVISED):
                with pytest.raises(ConfigError, match="learns from labels"):
                    auxiliary.check_loss(loss)
                continue
            auxiliary.check_loss(loss)
            step = auxiliary.objective(h, Batch(views, labels, index), loss)
            gradients = torch.autograd.grad(step.loss, [h, *(p for p in auxiliary.parameters() if p.requires_grad)])
            assert step.loss.isfinite()
            assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize(("kind", "spec"), [case for case in CASES if case[0] != "vectors"])
def test_bf16_and_channels_last(kind: str, spec: str):
    x, y = samples(kind)
    fabric = Fabric(accelerator="cpu", precision="bf16-mixed")
    learner = learner_of(kind, spec, fabric=fabric)
    learner.model.to(memory_format=torch.channels_last)
    learner.auxiliaries.to(memory_format=torch.channels_last)
    logs = [learner.step(x.to(memory_format=torch.channels_last), y) for _ in range(10)]
    assert logs[-1]["block1_loss"] < logs[0]["block1_loss"]
    assert all(value.isfinite() for value in logs[-1].values())
    assert all(p.dtype == torch.float32 for p in learner.auxiliaries.parameters())
