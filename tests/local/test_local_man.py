"""The momentum auxiliary network: whom it follows, what it stores, and that a run with it resumes exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import backbones, heads, losses, train
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local import MAN, Exits, Local, LocalLearning
from repertoire.methods import Classifier, Normalize, Supervised
from repertoire.recipe import WeightAverage
from stopping import crash


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 3)
    ).double()


def samples(count: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, dtype=torch.float64, generator=generator), torch.arange(count) % 3


def first(learner: LocalLearning) -> MAN:
    found = learner.auxiliaries[0]
    assert isinstance(found, MAN)
    return found


def test_the_average_follows_the_next_unit_by_the_formula():
    x, y = samples()
    net = mlp()
    learner = LocalLearning(net, "all", "man:momentum=0.8", sgd, example=x)
    expected = [net[i].weight.detach().clone() for i in (2, 4, 6)]
    for _ in range(5):
        learner.step(x, y)
        for k, i in enumerate((2, 4, 6)):
            expected[k] = 0.8 * expected[k] + 0.2 * net[i].weight.detach()
    for network, weight in zip(learner.auxiliaries, expected, strict=True):
        (average,) = (m for m in network.average.modules() if isinstance(m, nn.Linear))
        torch.testing.assert_close(average.weight, weight, rtol=1e-12, atol=1e-12)


def test_the_exit_reads_average_plus_bias():
    x, y = samples()
    net = mlp()
    learner = LocalLearning(net, "all", "man", sgd, example=x)
    man = first(learner)
    h = torch.tanh(net[0](x)).detach().requires_grad_()
    read = torch.tanh(F.linear(h, man.average[0].weight, man.average[0].bias))
    read = read + torch.tanh(F.linear(h, man.learnable_bias[0].weight, man.learnable_bias[0].bias))
    logits = F.linear(read, man.base.classifier.weight, man.base.classifier.bias)
    torch.testing.assert_close(man(h), logits)
    step = man.objective(h, Batch((x,), y, torch.arange(len(y))), F.cross_entropy)
    torch.testing.assert_close(step.loss, F.cross_entropy(logits, y))
    found, wanted = (torch.autograd.grad(v, h)[0] for v in (step.loss, F.cross_entropy(logits, y)))
    torch.testing.assert_close(found, wanted)
    assert not torch.equal(man.learnable_bias[0].weight, net[2].weight), "the bias has weights of its own"
    assert torch.equal(man.average[0].weight, net[2].weight), "the average starts from the unit's"


def test_nothing_but_the_next_blocks_own_step_changes_the_unit():
    """The unit is neither trained nor stored with the auxiliary network that follows it."""
    x, y = samples()
    net = mlp()
    learner = LocalLearning(net, "all", "man", sgd, example=x)
    man = first(learner)
    assert man.followed == (learner.chain.units[1].module,)
    assert set(man.state_dict()) == {
        f"{part}.{name}" for part in ("average.0", "learnable_bias.0", "base.classifier") for name in ("weight", "bias")
    }
    held = {id(p) for p in learner.trainer.blocks[0].parameters()}
    assert not held & {id(p) for p in net[2].parameters()}
    average = man.average[0].weight.clone()
    optimizer = learner.optimizers[0]
    for _ in range(2):
        loss, _ = learner.trainer.blocks[0](x, Batch((x,), y, torch.arange(len(y))))
        loss.backward()
        optimizer.step()
    assert torch.equal(average, man.average[0].weight), "neither gradient nor weight decay moves the average"
    assert net[2].weight.grad is None


@pytest.mark.parametrize(("momentum", "like"), [(0.0, "now"), (1.0, "then")])
def test_the_ends_of_the_range(momentum: float, like: str):
    x, y = samples()
    net = mlp()
    learner = LocalLearning(net, "all", f"man:momentum={momentum}", sgd, example=x)
    weights = {"then": net[2].weight.detach().clone()}
    for _ in range(3):
        learner.step(x, y)
    weights["now"] = net[2].weight.detach()
    assert torch.equal(first(learner).average[0].weight, weights[like])
    assert not torch.equal(weights["now"], weights["then"])


def test_without_an_average_the_bias_stands_alone():
    x, y = samples()
    net = mlp()
    learner = LocalLearning(net, "all", "man:momentum=none", sgd, example=x)
    man = first(learner)
    assert man.average is None
    assert man.followed == ()
    learner.step(x, y)
    h = torch.tanh(net[0](x))
    torch.testing.assert_close(man(h), man.base.classifier(man.learnable_bias(h)))


def test_a_learnt_share_weighs_the_two_copies():
    """MAN++: at first what it is without it, then by the formula, and a gradient by hand moves the share."""
    x, y = samples()
    torch.manual_seed(3)
    plain = first(LocalLearning(mlp(), "all", "man:momentum=0.8", sgd, example=x))
    torch.manual_seed(3)
    learner = LocalLearning(mlp(), "all", "man:momentum=0.8,scale=true", sgd, example=x)
    man = first(learner)
    h = torch.tanh(learner.model[0](x)).detach()
    assert torch.equal(man(h), plain(h))
    average, bias = torch.tanh(F.linear(h, *man.average[0].parameters())), man.learnable_bias(h)
    logits = man.base.classifier(average + bias)
    residual = (logits.softmax(1) - F.one_hot(y, 3)) / len(y)
    gradient = (residual @ man.base.classifier.weight * (bias - average)).sum().detach()
    learner.step(x, y)
    torch.testing.assert_close(man.share.detach(), 1 - 0.1 * (gradient + 0.01))  # weight decay, by this optimiser
    for _ in range(3):
        learner.step(x, y)
    read = (2 - man.share) * man.average(h) + man.share * man.learnable_bias(h)
    torch.testing.assert_close(man(h), man.base.classifier(read))
    assert "share" in man.state_dict()
    assert "share" not in plain.state_dict()


def test_it_composes():
    torch.manual_seed(0)
    net = backbones.ResNet(14, in_channels=1, width=4)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    cut = {"blocks": 2, "at": ("blocks.2",), "example": x}
    learner = LocalLearning(model, auxiliary="man:base=(auglocal:depth=2)", optimizer=sgd, **cut)
    assert first(learner).base.names == ["blocks.4", "blocks.6"], "chosen from what follows the averaged unit"
    twice = LocalLearning(model, auxiliary="man:base=(man:base=conv)", optimizer=sgd, **cut)
    man = first(twice)
    assert man.followed == (net.blocks[3], net.blocks[4])
    twice.step(x, y)
    for average, live in ((man.average, net.blocks[3]), (man.base.average, net.blocks[4])):
        moved = (average.conv1.weight - live.conv1.weight).abs().max()
        assert 0 < moved < 0.1


def test_what_cannot_be_built_is_refused():
    x, _ = samples()
    with pytest.raises(ConfigError, match=r"momentum is 1\.5; expected a number from 0 to 1, or none"):
        LocalLearning(mlp(), 2, "man:momentum=1.5", sgd, example=x)
    with pytest.raises(ConfigError, match="scale weighs the average beside the learnable bias, and momentum=none"):
        LocalLearning(mlp(), 2, "man:momentum=none,scale=true", sgd, example=x)
    with pytest.raises(ConfigError, match="no unit is left to average for the auxiliary network of block 3"):
        LocalLearning(mlp(), "all", "man:base=man", sgd, example=x)
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        LocalLearning(mlp(), 2, "man:base=liner", sgd, example=x)


def supervised() -> Supervised:
    torch.manual_seed(0)
    net = backbones.ResNet(8, in_channels=1, width=4)
    return Supervised(
        Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3)), losses.CrossEntropy()
    )


def test_a_copy_of_the_method_follows_its_own_network():
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    method, rule = supervised(), Local(blocks=2, auxiliary="man:base=conv", at=("blocks.1",))
    rule.setup(method, sgd, example=x)
    twin = copy.deepcopy(method)
    assert twin.local[0].followed == (twin.model.backbone.blocks[2],)
    assert method.local[0].followed == (method.model.backbone.blocks[2],)
    # A moving average of the whole method (--ema) averages the averages, and takes the statistics of the last step.
    average = WeightAverage(method, 0.5)
    for step in range(3):
        rule.step(method, Batch((x,), y, torch.arange(12)))
        average.update(method, step)
    mine, theirs = average.method.local[0], method.local[0]
    assert not any(p.requires_grad for p in mine.parameters())
    assert not torch.equal(mine.average.conv1.weight, theirs.average.conv1.weight)
    assert torch.equal(mine.average.norm1.running_mean, theirs.average.norm1.running_mean)
    assert not torch.equal(theirs.average.norm1.running_mean, theirs.followed[0].norm1.running_mean)


def test_exits_are_rebuilt_from_what_is_stored():
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    method, rule = supervised(), Local(blocks=3, auxiliary="man:base=conv")
    rule.setup(method, sgd, example=x)
    for _ in range(4):
        rule.step(method, Batch((x,), y, torch.arange(12)))
    method.eval()
    exits = Local(blocks=3, auxiliary="man:base=conv").exits(method.model, x[:2])
    exits.classifiers[:-1].load_state_dict(method.local.state_dict())
    h = method.model.normalize(x)
    for block in method.model.backbone.blocks[: len(rule.partition[0])]:
        h = block(h)
    assert isinstance(exits, Exits)
    torch.testing.assert_close(exits.eval()(x)[0], method.local[0](h))
    assert exits.work[0] > 0


def test_a_run_goes_on_where_it_was(tmp_path):
    options = {
        "rule": "local:blocks=3,auxiliary=(man:base=conv,momentum=0.9)",
        "backbone": "convnet:width=4",
        "batch_size": 512,
        "epochs": 2,
        "ema": 0.9,
        "save_every": 1,
    }
    whole = train.fit("digits", out=tmp_path / "whole", **options)
    with crash(Local, after=3):
        train.fit("digits", out=tmp_path / "cut", **options)
    resumed = train.resume(tmp_path / "cut")
    a, b = (train.last_state(run.path) for run in (whole, resumed))
    assert a.keys() == b.keys()
    assert any(".average." in name for name in a)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert resumed.metrics == whole.metrics
    assert resumed.exit_curve()["exits"] == whole.metrics["exits"]
