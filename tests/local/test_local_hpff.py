"""Patch feature fusion: which patches there are, and that their features are averaged before the classifier."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import backbones, heads
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.local import HPFF, Exits, LocalLearning
from repertoire.methods import Classifier, Normalize


def sgd(block: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(block.parameters(), lr=0.1)


def behind_maps(spec: str, side: int) -> HPFF:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1), nn.Flatten())
    net.append(nn.Linear(8 * side * side, 5))
    learner = LocalLearning(net, auxiliary=spec, optimizer=sgd, at=("0",), example=torch.zeros(2, 3, side, side))
    found = learner.auxiliaries[0]
    assert isinstance(found, HPFF)
    return found


def by_hand(network: HPFF, x: Tensor, corners: list[tuple[int, int]], side: int) -> Tensor:
    """Logits of the mean of the features of each patch, one at a time; normalisation has its running statistics."""
    features = [network.base.embed(x[:, :, top : top + side, left : left + side]) for top, left in corners]
    return F.linear(torch.stack(features).mean(0), *network.base.classifier.parameters())


@pytest.mark.parametrize(
    ("grid", "side", "patch", "starts"),
    [
        (2, 16, 8, [0, 8]),
        (2, 9, 5, [0, 4]),
        (3, 10, 4, [0, 3, 6]),
        (4, 5, 2, [0, 2, 3]),
        (2, 1, 1, [0]),
        (1, 6, 6, [0]),
    ],
)
def test_the_features_of_all_patches_are_averaged(grid: int, side: int, patch: int, starts: list[int]):
    network = behind_maps(f"hpff:base=(conv:depth=1),grid={grid}", side).eval()
    assert network.side == (patch, patch)
    x, y = torch.randn(6, 4, side, side, requires_grad=True), torch.arange(6) % 5
    expected = by_hand(network, x, [(top, left) for top in starts for left in starts], patch)
    torch.testing.assert_close(network(x), expected)
    step = network.objective(x, Batch((x,), y, torch.arange(6)), F.cross_entropy)
    torch.testing.assert_close(step.loss, F.cross_entropy(expected, y))
    torch.testing.assert_close(*(torch.autograd.grad(loss, x)[0] for loss in (step.loss, F.cross_entropy(expected, y))))


def test_every_position_has_a_say_and_a_patch_sees_no_other():
    network = behind_maps("hpff:base=(conv:depth=2,size=99)", 11).eval()
    x = torch.randn(1, 4, 11, 11, requires_grad=True)
    network(x)[0, 0].backward()
    assert x.grad.abs().sum(1).gt(0).all()
    whole, cut = (behind_maps(f"hpff:base=(conv:depth=1,size=99),grid={grid}", 8).eval() for grid in (1, 2))
    cut.load_state_dict(whole.state_dict())
    z = torch.randn(3, 4, 8, 8)
    assert not torch.allclose(whole(z), cut(z)), "a convolution stops at the edge of its patch"


def test_normalisation_sees_all_patches_of_a_batch_together():
    network = behind_maps("hpff:base=(conv:depth=1)", 8)
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    norm.momentum = 1.0
    x = torch.randn(5, 4, 8, 8)
    network(x)
    convolution = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    patches = torch.cat([part for half in x.chunk(2, 2) for part in half.chunk(2, 3)])
    torch.testing.assert_close(norm.running_mean, convolution(patches).mean((0, 2, 3)))


@pytest.mark.parametrize("base", ["linear", "patches:channels=6", "dgl"])
def test_other_bases_and_other_activations(base: str):
    assert behind_maps(f"hpff:base=({base})", 8)(torch.zeros(2, 4, 8, 8)).shape == (2, 5)
    net = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 3))
    learner = LocalLearning(net, 2, f"hpff:base=({base})", sgd, example=torch.zeros(2, 7))
    network, x = learner.auxiliaries[0].eval(), torch.randn(4, 9)
    assert network.side is None
    torch.testing.assert_close(network(x), network.base(x))


@pytest.mark.parametrize("base", ["auglocal", "man", "predsim", "infopro", "hpff"])
def test_what_does_not_read_patches_is_refused(base: str):
    with pytest.raises(ConfigError, match=rf"hpff: {base} cannot read patches: .* Use linear, conv, patches or dgl"):
        behind_maps(f"hpff:base={base}", 8)
    with pytest.raises(ConfigError, match="hpff: grid is 0; expected 1 or more"):
        behind_maps("hpff:grid=0", 8)


def test_cascades_of_two_blocks_learn_and_their_exits_are_rebuilt():
    """The hierarchy of the paper: a loss behind two blocks, each trained by two losses but the first and the last."""
    torch.manual_seed(0)
    net = backbones.ResNet(14, in_channels=1, width=4)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    learner = LocalLearning(model, 3, "hpff:base=(conv:depth=1)", sgd, example=x, overlap=99)
    sizes = [len(names) for names in learner.partition]
    assert [len(block.ahead) for block in learner.trainer.blocks] == [sizes[1], sizes[2], 0]
    losses = [float(learner.step(x, y)["block1_loss"]) for _ in range(12)]
    assert losses[-1] < losses[0]
    learner.eval()
    exits = Exits(learner.chain, learner.ends, learner.auxiliaries).eval()
    for mine, theirs in zip(exits(x), learner.exits(x), strict=True):
        torch.testing.assert_close(mine, theirs)
