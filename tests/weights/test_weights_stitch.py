"""Stitched networks: a network stitched to itself is itself, and costs are those that were worked out by hand."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repertoire.backbones import MLP, Backbone, ConvNet, ViT
from repertoire.data import Batch
from repertoire.errors import CheckpointError, ConfigError
from repertoire.heads import Linear
from repertoire.weights import (
    Progress,
    Stitched,
    Stored,
    _progress,
    count_flops,
    refresh_batchnorm,
    stitch,
    train_stitched,
)
from stopping import goes_on


class Whole(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.head = backbone, Linear(backbone.out_features, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


def convnet(width: int, seed: int = 0) -> Whole:
    torch.manual_seed(seed)
    net = Whole(ConvNet(1, 8, width, depth=3)).eval()
    refresh_batchnorm(net, [images()])
    return net


def images(count: int = 40, side: int = 8) -> torch.Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(0))


def batches():
    x = images()
    for part in torch.arange(len(x)).split(20):
        yield Batch((x[part],), part % 3, part)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Whole(ConvNet(1, 8, 4, 3)),
        lambda: Whole(MLP(1, 8, 6, 3)),
        lambda: Whole(ViT(1, 8, patch=4, dim=12, depth=3, heads=2)),
    ],
)
def test_a_network_stitched_to_itself_is_itself(build):
    torch.manual_seed(0)
    net = build().eval()
    refresh_batchnorm(net, [images(400)])
    joined = stitch([net, copy.deepcopy(net)], [images(400)])
    blocks = len(net.backbone.blocks)
    assert [(r.leaves, r.enters) for r in joined.routes if r.join >= 0] == [(i, i + 1) for i in range(blocks - 1)]
    for number in range(len(joined.routes)):
        torch.testing.assert_close(joined.use(number)(images()), net(images()), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_stitching_layers_are_the_pseudo_inverse():
    small, large = convnet(2), convnet(4, seed=1)
    net = stitch([large, small], images().split(10))
    route = next(r for r in net.routes if r.join >= 0 and r.leaves == 0)
    a, b = (anchor.backbone.blocks[0](images()).movedim(1, -1).flatten(0, 2).double() for anchor in (small, large))
    solution = torch.linalg.pinv(torch.cat([a, torch.ones(len(a), 1)], 1)) @ b
    layer = net.stitches[route.join].linear
    torch.testing.assert_close(layer.weight.double(), solution[:-1].T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.bias.double(), solution[-1], rtol=1e-4, atol=1e-5)


def test_costs_are_those_of_convolutions_by_hand():
    """Two operations for each weight at each place; the grid is halved once, behind the first block."""
    small, large = convnet(2), convnet(4, seed=1)
    net = stitch([small, large], [images()])

    def block(ins: int, outs: int, side: int) -> int:
        return 2 * 9 * ins * outs * side**2

    def whole(w: int) -> list[int]:
        return [block(1, w, 8), block(w, 2 * w, 4), block(2 * w, 4 * w, 4)]

    expected = {
        (-1, 0, 0): sum(whole(2)) + 2 * 8 * 3,
        (-1, 0, 1): sum(whole(4)) + 2 * 16 * 3,
        (0, 1, 1): whole(2)[0] + 2 * 2 * 4 * 16 + sum(whole(4)[1:]) + 2 * 16 * 3,
        (1, 2, 1): sum(whole(2)[:2]) + 2 * 4 * 8 * 16 + whole(4)[2] + 2 * 16 * 3,
    }
    assert {(r.leaves, r.enters, r.back): r.flops for r in net.routes} == expected
    assert [r.flops for r in net.routes] == sorted(expected.values())
    assert count_flops(small, images(5)) == 5 * expected[-1, 0, 0]
    assert net.backbone is large.backbone
    assert net.head is large.head
    torch.testing.assert_close(net(images()), large(images()))
    torch.testing.assert_close(net.use(0).embed(images()), small.backbone(images()))


def test_a_budget_takes_the_best_route_that_fits():
    net = stitch([convnet(2), convnet(4, seed=1)], [images()])
    shares = [route.flops / net.routes[-1].flops for route in net.routes]
    assert [net.within(share) for share in shares] == [0, 1, 2, 3]
    assert net.within(shares[2] - 1e-6) == 1
    net.scores = [0.2, 0.9, 0.5, 0.8]
    assert [net.within(share) for share in shares] == [0, 1, 1, 1]
    with pytest.raises(ConfigError, match=r"budget is 0.01 of the largest network, and the cheapest route takes 0\.2"):
        net.within(0.01)
    with pytest.raises(ConfigError, match="route must be one of 0 to 3, found 4"):
        net.use(4)


@torch.no_grad()
def test_every_route_has_statistics_of_its_own():
    net = stitch([convnet(2), convnet(4, seed=1)], [images()], initial="random")
    before = [net.use(number)(images()) for number in range(4)]
    net.measure_statistics(lambda: [images()])
    norm = net.largest.backbone.blocks[2].norm
    found = []
    for number, route in enumerate(net.routes):
        net.use(number)
        if route.back == 1:
            parts = list(net.largest.backbone.blocks[route.enters : 2])
            if route.join >= 0:
                parts = [*net.anchors[0].backbone.blocks[: route.leaves + 1], net.stitches[route.join], *parts]
            x = images()
            for part in parts:
                x = part(x)
            expected = net.largest.backbone.blocks[2].conv(x).mean((0, 2, 3))
            torch.testing.assert_close(norm.running_mean, expected, rtol=0, atol=5e-3)
            found.append(norm.running_mean.clone())
    assert min(float((a - b).abs().max()) for a, b in itertools.combinations(found, 2)) > 0.05
    same = [torch.allclose(logits, net.use(n)(images()), atol=1e-3) for n, logits in enumerate(before)]
    assert same == [True, False, False, True]


def test_training_samples_routes_and_leaves_what_was_written():
    torch.manual_seed(0)
    net = stitch([convnet(2), convnet(4, seed=1)], [images()])
    losses = []
    for _ in range(2):
        targets = torch.arange(40) % 3
        with torch.no_grad():
            losses.append([float(F.cross_entropy(net.use(n)(images()), targets)) for n in range(4)])
        train_stitched(net, batches, epochs=15, lr=1e-2)
    assert all(after < before for before, after in zip(*losses, strict=True))
    assert not net.training
    net.scores = [0.1, 0.2, 0.3, 0.4]

    told = {
        "backbone": "convnet:width=2,depth=3",
        "head": "linear",
        "in_channels": 1,
        "image_size": 8,
        "num_classes": 3,
    }
    stored = net.stored(networks=[told])
    built = stored.build(convnet(4))
    assert isinstance(built, Stitched)
    assert (built.routes, built.scores) == (net.routes, net.scores)
    for number in range(4):
        torch.testing.assert_close(built.use(number)(images()), net.use(number)(images()), rtol=0, atol=0)
    lacking = {name: value for name, value in stored.tensors.items() if "stitches" not in name}
    with pytest.raises(CheckpointError, match="do not fit the network"):
        Stored("stitched", lacking, stored.settings).build(convnet(4))


def test_distillation_is_towards_the_largest():
    """Taught by it alone, the routes say more of what the largest network said than taught by classes alone."""
    large = convnet(4, seed=1)
    with torch.no_grad():
        large.head.linear.weight.mul_(20)  # sure of what it says
    said = large(images()).softmax(1).detach()
    away = []
    for distil in (0.0, 1.0):
        net = stitch(copy.deepcopy([convnet(2), large]), [images()])
        train_stitched(net, batches, epochs=15, lr=1e-2, distil=distil)
        with torch.no_grad():
            logits = [net.use(number)(images()).log_softmax(1) for number in range(4)]
        away.append(sum(float(F.kl_div(each, said, reduction="batchmean")) for each in logits))
    assert away[1] < away[0] / 2


def test_what_does_not_fit_is_refused():
    net = convnet(2)
    with pytest.raises(ConfigError, match="two networks or more, 1 given"):
        stitch([net], [images()])
    with pytest.raises(ConfigError, match="Linear has no backbone with blocks"):
        stitch([net, nn.Linear(3, 2)], [images()])
    with pytest.raises(ConfigError, match="batches is empty"):
        stitch([net, convnet(4)], [])
    with pytest.raises(ConfigError, match="no block of network 0 has as many places as one of network 1"):
        stitch([Whole(MLP(1, 8, 4, 3)).eval(), convnet(4)], [images()])
    joined = stitch([net, convnet(4)], [images()])
    with pytest.raises(ConfigError, match="batches is empty"):
        train_stitched(joined, list)
    with pytest.raises(ConfigError, match="temperature must be positive"):
        train_stitched(joined, batches, temperature=0.0)


def test_whoever_is_stopped_at_any_time_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """In the middle of the least squares, of training, where layers draw, and of the statistics of the routes."""
    monkeypatch.setattr(_progress, "EVERY", 0.0)

    def anchor(width: int) -> nn.Module:
        net = convnet(width)
        net.backbone.blocks[1] = nn.Sequential(net.backbone.blocks[1], nn.Dropout(0.3))
        return net

    def work(progress: Progress | None) -> dict[str, torch.Tensor]:
        net = stitch([anchor(2), anchor(4)], [batch.images for batch in batches()], progress=progress)
        torch.manual_seed(5)
        calls = itertools.count()

        def drawn() -> list[Batch]:
            """Each call gives the same images in another order: who goes on has to call as often."""
            order = torch.randperm(40, generator=torch.Generator().manual_seed(next(calls)))
            return [Batch((images()[part],), part % 3, part) for part in order.split(20)]

        train_stitched(net, drawn, epochs=2, lr=0.01, seed=1, statistics=lambda: [images()], progress=progress)
        return dict(net.state_dict())

    # The least squares twice, the number of batches, four steps and the end, and four routes.
    assert goes_on(work, tmp_path) == 2 + 1 + 5 + 4
