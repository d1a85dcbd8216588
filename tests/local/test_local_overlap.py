"""Blocks that overlap: gradients cross one border and no more, at the price that the formula gives."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from repertoire import backbones, heads, losses, train
from repertoire.data import Batch
from repertoire.errors import ConfigError, NonFiniteLoss
from repertoire.local import Exits, Local, LocalLearning
from repertoire.local._overlap import OverlapBlock
from repertoire.local._trainer import _plus
from repertoire.methods import Classifier, Method, Normalize, Supervised
from repertoire.plan import Ledger
from stopping import crash


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.1)


def small(width: int = 4, depth: int = 14) -> Classifier:
    torch.manual_seed(0)
    net = backbones.ResNet(depth, in_channels=1, width=width)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))


def images(count: int = 12, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, size, size, generator=generator), torch.arange(count) % 3


def by_hand(learner: LocalLearning, net: Classifier, readouts: nn.ModuleList, x: Tensor, y: Tensor) -> list[Tensor]:
    """The gradients of the sum of all losses, each a forward pass of its own from where its block begins."""
    units = list(net.backbone.blocks)
    sizes = [len(names) for names in learner.partition]
    bounds = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    total, h, start = x.new_zeros(()), net.normalize(x), 0
    for index, end in enumerate(bounds):
        h = h.detach()
        for unit in units[start:end]:
            h = unit(h)
        if index == len(bounds) - 1:
            logits = net.head(net.backbone.pool(h))
        else:
            seen = h
            for unit in units[end : min(end + learner.overlap, bounds[index + 1])]:
                seen = unit(seen)
            logits = readouts[index](seen)
        total, start = total + F.cross_entropy(logits, y), end
    parameters = [*net.parameters(), *readouts.parameters()]
    return list(torch.autograd.grad(total, parameters))


@pytest.mark.parametrize(
    ("auxiliary", "overlap"),
    [
        *itertools.product(["linear", "conv:depth=1", "auglocal:depth=1"], [1, 2, 9]),
        ("man", 1),
        ("man:base=(auglocal:depth=2)", 1),  # the cascades and leaps of MLAAN
    ],
)
def test_a_step_is_what_the_formula_says(auxiliary: str, overlap: int):
    """Every weight moves by the gradients of its own block's loss and of the one before that looks through it."""
    x, y = images()
    x, net = x.double(), small().double()
    at = ("blocks.0", "blocks.2") if auxiliary.startswith("man") else ("blocks.0", "blocks.3", "blocks.4")
    learner = LocalLearning(net, 4, auxiliary, sgd, at=at, example=x, overlap=overlap)
    reference, readouts, once = copy.deepcopy(net), copy.deepcopy(learner.auxiliaries), copy.deepcopy(net)
    trained = [*reference.parameters(), *readouts.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    learner.step(x, y)
    expected = by_hand(learner, reference, readouts, x, y)
    mine = [*net.parameters(), *learner.auxiliaries.parameters()]
    for new, old, gradient in zip(mine, trained, expected, strict=True):
        if new.requires_grad:
            torch.testing.assert_close(new.detach(), old.detach() - 0.1 * gradient, rtol=1e-9, atol=1e-12)
    once(x)
    for mine, theirs in zip(net.buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, msg="running statistics count a batch once")


def test_the_first_block_hears_of_one_border_and_no_more():
    x, y = images()
    moved = []
    for changed in (None, 2, 3):
        net = small()
        if changed is not None:
            with torch.no_grad():
                for parameter in net.backbone.blocks[changed].parameters():
                    parameter.mul_(3)
        torch.manual_seed(5)
        at = ("blocks.1", "blocks.3")
        LocalLearning(net, 3, "linear", sgd, at=at, example=x, overlap=1).step(x, y)
        moved.append(torch.cat([p.detach().flatten() for p in net.backbone.blocks[0].parameters()]))
    assert not torch.equal(moved[0], moved[1]), "the first unit of the next block"
    assert torch.equal(moved[0], moved[2]), "the second"


def plain(count: int = 6) -> nn.Sequential:
    """Convolutions that are all alike."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()) for _ in range(count)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def test_it_costs_another_forward_pass_of_the_units_and_keeps_their_activations():
    """The bounds of the docstring: operations exactly, and bytes up to what a step holds besides."""
    x, y = torch.rand(8, 8, 16, 16), torch.arange(8) % 3
    unit = 2 * 8 * 16 * 16 * 8 * 8 * 9  # operations of a convolution, of all images
    maps = 8 * 8 * 16 * 16 * 4  # bytes of its output, of all images
    flops, peaks = {}, {}
    for overlap in (0, 1, 2):
        net = plain()
        learner = LocalLearning(net, 3, "linear", sgd, at=("1.0", "3.0"), example=x, overlap=overlap)
        assert [len(names) for names in learner.partition] == [2, 2, 3]
        learner.step(x, y)
        with FlopCounterMode(display=False) as counter:
            learner.step(x, y)
        flops[overlap] = counter.get_total_flops()
        with Ledger() as ledger:
            learner.step(x, y)
        peaks[overlap] = ledger.peak
    assert [flops[overlap] - flops[0] for overlap in (1, 2)] == [2 * unit, 4 * unit], "two borders"
    for overlap in (1, 2):
        # A convolution and its tanh keep one map, and three are gradients at the borders.
        assert peaks[overlap] - peaks[0] <= (overlap + 3) * maps


def test_nothing_is_kept_after_a_step():
    x, y = images()
    learner = LocalLearning(small(), 3, "linear", sgd, example=x, overlap=1)
    learner.step(x, y)
    for block in learner.trainer.blocks:
        assert block.output is None
        assert block._crossing is None
    assert all(p.grad is None for p in learner.model.parameters())


def test_blocks_that_do_not_overlap_are_as_they_were():
    x, _ = images()
    learner = LocalLearning(small(), 3, "linear", sgd, example=x)
    assert not any(isinstance(block, OverlapBlock) for block in learner.trainer.blocks)


def test_pieces_add_up_to_the_batch():
    x, y = torch.rand(12, 8, 16, 16).double(), torch.arange(12) % 3
    nets = [plain().double(), plain().double()]
    for net, accumulate in zip(nets, (1, 3), strict=True):
        torch.manual_seed(3)
        LocalLearning(net, 3, "linear", sgd, example=x, overlap=1, accumulate=accumulate).step(x, y)
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_what_a_block_does_alone_can_be_compiled():
    x, y = torch.rand(6, 8, 8, 8), torch.arange(6) % 3
    found = []
    for compile in ("aot_eager", False):
        net = plain(2)
        torch.manual_seed(2)
        learner = LocalLearning(net, 2, "linear", sgd, at=("0.0",), example=x, compile=compile, overlap=1)
        found.append([float(learner.step(x, y)[name]) for _ in range(3) for name in ("block1_loss", "loss")])
    torch.testing.assert_close(*(torch.tensor(values) for values in found), rtol=1e-4, atol=1e-5)


def test_a_nan_leaves_nothing_behind():
    x, y = images()
    net = small()
    learner = LocalLearning(net, 3, "linear", sgd, at=("blocks.0", "blocks.2"), example=x, overlap=1)
    with torch.no_grad():
        net.backbone.blocks[1].norm2.weight.fill_(3e38)
    before = copy.deepcopy(dict(net.named_parameters()))
    with pytest.raises(NonFiniteLoss, match="block 1 of 3"):
        learner.step(x, y)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters()), "the overlap is of the next block"
    assert all(block._crossing is None for block in learner.trainer.blocks)
    assert all(p.grad is None for p in net.parameters())


def test_frozen_units_are_crossed():
    """Nothing of the first block learns but its auxiliary network, and nothing of the unit that both share."""
    x, y = images()
    net = small()
    for number in (0, 1):
        net.backbone.blocks[number].requires_grad_(False)
    learner = LocalLearning(net, 3, "linear", sgd, at=("blocks.0", "blocks.2"), example=x, overlap=1)
    before = copy.deepcopy(dict(net.named_parameters()))
    learner.step(x, y)
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in net.named_parameters() if p.requires_grad}


def test_what_waits_is_brought_to_the_loss_scale_of_its_time():
    class Scaler:
        def get_scale(self) -> float:
            return 32.0

    gradient, owed = torch.ones(3), torch.full((3,), 8.0)
    assert _plus(owed, None, None, gradient).tolist() == [9.0] * 3
    assert _plus(owed, Scaler(), 32.0, gradient).tolist() == [9.0] * 3
    assert _plus(owed, Scaler(), 64.0, gradient).tolist() == [5.0] * 3


def test_a_step_that_the_loss_scaler_left_out_asks_nothing_of_the_next_block(monkeypatch: pytest.MonkeyPatch):
    x, y = images()
    nets = [small(), small()]
    for number, net in enumerate(nets):
        torch.manual_seed(5)
        learner = LocalLearning(net, 2, "linear", sgd, at=("blocks.1",), example=x, overlap=1)
        if number:
            real = OverlapBlock.cross
            monkeypatch.setattr(OverlapBlock, "cross", lambda block, real=real: (real(block), None)[1])
            learner.step(x, y)
            continue
        trainer = learner.trainer
        monkeypatch.setattr(type(trainer), "skipped", property(lambda _: True, lambda *_: None), raising=False)
        learner.step(x, y)
        monkeypatch.undo()
    for a, b in zip(*(net.backbone.blocks[2].parameters() for net in nets), strict=True):
        assert torch.equal(a, b)


def test_exits_are_behind_the_overlap():
    x, y = images()
    net = small()
    learner = LocalLearning(net, 3, "linear", sgd, at=("blocks.1", "blocks.4"), example=x, overlap=9)
    for _ in range(3):
        learner.step(x, y)
    learner.eval()
    exits = Exits(learner.chain, learner.ends, learner.auxiliaries).eval()
    assert learner.ends == [4, 6, 6]
    for mine, theirs in zip(exits(x), learner.exits(x), strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(exits(x)[-1], net(x))
    method: Method = Supervised(net, losses.CrossEntropy())
    rule = Local(blocks=3, auxiliary="linear", at=("blocks.1", "blocks.4"), overlap=9)
    rule.setup(method, sgd, example=x)
    found = rule.exits(net, x)
    found.classifiers[:2].load_state_dict(method.local.state_dict())
    rule.step(method.train(), Batch((x,), y, torch.arange(len(y))))
    assert found.names == exits.names == ["blocks.4", "blocks.6", "head"]
    assert found.work == exits.work


def test_a_run_goes_on_where_it_was_and_exports_its_network_alone(tmp_path: Path):
    """After a crash between two checkpoints, exits included; what is exported answers as the network does."""
    options = {
        "rule": "local:blocks=3,overlap=1,auxiliary=(conv:depth=1)",
        "backbone": "convnet:width=4",
        "batch_size": 512,
        "epochs": 2,
        "save_every": 1,
    }
    whole = train.fit("digits", out=tmp_path / "whole", **options)
    with crash(Local, after=3):
        train.fit("digits", out=tmp_path / "cut", **options)
    resumed = train.resume(tmp_path / "cut")
    a, b = (train.last_state(run.path) for run in (whole, resumed))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert resumed.metrics == whole.metrics
    assert resumed.exit_curve()["exits"] == whole.metrics["exits"]
    pixels = whole.splits.test.pixels(slice(0, 9))
    answers, left = whole.predict_early(pixels, 1.0)
    torch.testing.assert_close(
        torch.as_tensor(answers), torch.as_tensor(whole.predict(pixels)), rtol=1e-5, atol=1e-6, check_dtype=False
    )
    assert left.max() == 2
    assert not any("local" in name for name in whole.model.state_dict())
    exported = torch.export.load(whole.export("pt2", tmp_path / "net.pt2")).module()
    views = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(
        exported(views).detach(), torch.as_tensor(whole.predict(views)), rtol=1e-4, atol=1e-5, check_dtype=False
    )


def test_the_head_alone_is_not_overlapped():
    x, y = images()
    learner = LocalLearning(small(), 3, "linear", sgd, example=x, head_apart=True, overlap=1)
    assert [len(block.ahead) for block in learner.trainer.blocks] == [1, 1, 0, 0]
    assert learner.step(x, y)["loss"].isfinite()


@pytest.mark.parametrize(
    "build", [lambda: Local(overlap=-1), lambda: LocalLearning(small(), optimizer=sgd, overlap=-1)]
)
def test_fewer_than_no_units_are_refused(build):
    with pytest.raises(ConfigError, match="overlap"):
        build()
