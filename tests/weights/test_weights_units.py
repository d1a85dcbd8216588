"""Units of networks: permuted at random, group by group, the networks must compute what they computed before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.backbones import MLP, Backbone, ConvNet, EfficientNetLite, ViT, resnet20
from repertoire.errors import ConfigError
from repertoire.heads import Linear, NormalizedSoftmax
from repertoire.weights import permute_units, units


class Whole(nn.Module):
    def __init__(self, backbone: Backbone, head: type[nn.Module] = Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head(backbone.out_features, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def stirred(net: nn.Module, seed: int = 0) -> nn.Module:
    """A network whose channels all differ, normalisation included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.dim() == 1 and value.is_floating_point():
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(0, value[0].numel() ** -0.5 if value.dim() else 0.1, generator=generator)
    return net.eval()


def sizes_after_permuting(net: nn.Module, x: Tensor) -> list[int]:
    """Permutes all groups at once and compares; the sizes of the groups."""
    found = units(net, x)
    generator = torch.Generator().manual_seed(1)
    permutations = [torch.randperm(group.size, generator=generator) for group in found]
    with torch.no_grad():
        before = net(x)
        net.load_state_dict(permute_units(net.state_dict(), found, permutations))
        torch.testing.assert_close(net(x), before, rtol=1e-5, atol=1e-5 * float(before.abs().max()))
    return [group.size for group in found]


@pytest.mark.parametrize(
    ("net", "image", "expected"),
    [
        (lambda: Whole(MLP(1, 8, 16, 3)), (1, 8, 8), [16, 16, 16]),
        (lambda: Whole(ConvNet(1, 16, 4), NormalizedSoftmax), (1, 16, 16), [4, 8, 16, 32]),
        # The stream of each stage, the inside of each block; where channels are padded, those by themselves.
        (lambda: Whole(resnet20(width=4)), (3, 32, 32), [4, 4, 4, 4, 8, 4, 8, 8, 16, 8, 16, 16]),
        (lambda: resnet20(1, 8, width=2, shortcut="B", stem="large"), (1, 16, 16), [2, 2, 2, 2, 4, 4, 4, 4, 8, 8, 8]),
        (lambda: Whole(ViT(1, 8, patch=4, dim=12, depth=2, heads=2)), (1, 8, 8), [12, 48, 48]),
    ],
)
def test_permuted_units_leave_the_outputs_equal(net, image, expected):
    torch.manual_seed(0)
    assert sizes_after_permuting(stirred(net()), torch.randn(3, *image)) == expected


def test_the_structure_of_lite0():
    torch.manual_seed(0)
    sizes = sizes_after_permuting(stirred(EfficientNetLite(width=0.25, depth=0.3)), torch.randn(3, 3, 32, 32))
    assert sizes == [32, 8, 48, 8, 48, 16, 96, 24, 144, 32, 192, 48, 288, 288, 80]


class Flat(nn.Module):
    """What reads flattened maps: a unit is a block of columns. Also a depthwise convolution and a joining of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm, self.side = nn.GroupNorm(1, 4), nn.Conv2d(2, 3, 1)
        self.read, self.out = nn.Linear(7 * 9, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm(self.deep(self.first(x))))
        y = torch.cat([F.max_pool2d(y, 2), F.avg_pool2d(self.side(x), 2)], 1)
        return self.out(torch.sigmoid(self.read(y.flatten(1))).softmax(1))


def test_blocks_of_columns_follow_their_channel():
    net = stirred(Flat())
    x = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    assert sizes_after_permuting(net, x) == [4, 3, 6]
    first, side, _ = units(net, x)
    blocks = {place.tensor: place.index for place in first.axes if place.axis == 1}["read.weight"]
    assert blocks.tolist() == [list(range(9 * unit, 9 * unit + 9)) for unit in range(4)]
    assert {place.tensor: place.index for place in side.axes}["read.weight"][0].tolist() == list(range(36, 45))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 5, bias=False)
        self.outer = nn.Linear(5, 4, bias=False)
        self.again = nn.Linear(4, 5, bias=False)
        self.again.weight = self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.again(self.outer(self.inner(x).relu())).relu())


def test_tied_weights_move_together():
    net = stirred(Tied())
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    (group,) = units(net, x)  # the width of four is that of the input, through the tie, and stays
    assert [(place.tensor, place.axis) for place in group.axes] == [
        ("inner.weight", 0),
        ("again.weight", 0),
        ("outer.weight", 1),
    ]
    assert sizes_after_permuting(net, x) == [5]


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Linear(3, 8), nn.Conv1d(8, 8, 1, groups=2)
        self.gate, self.last = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(self.grouped(self.first(x)[:, :, None])[:, :, 0])
        return self.last(y * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))


def test_what_is_not_alike_stays_where_it_is():
    """Channels of convolutions in groups, and units that meet constants which differ."""
    assert units(Grouped(), torch.zeros(2, 3)) == []


class Picked(nn.Module):
    """Some units are added up once more: they are not like the others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y) + y[:, :2].sum(1, keepdim=True)


def test_units_of_another_use_are_another_group():
    assert sizes_after_permuting(stirred(Picked()), torch.randn(4, 3)) == [2, 4]


class Judging(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"units of Judging cannot be found: .*\(\w+: .*data-dependent"):
        units(Judging(), torch.zeros(2, 3))


def test_permutations_that_do_not_fit_are_refused():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    groups = units(net, torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="permutations are 2, and the network has 1 groups"):
        permute_units(net.state_dict(), groups, [None, None])
    with pytest.raises(ConfigError, match=r"permutations\[0\] is no permutation of the 4 units"):
        permute_units(net.state_dict(), groups, [torch.tensor([0, 1, 2, 2])])


def test_a_state_without_its_head_is_permuted_too():
    net = stirred(Whole(MLP(1, 4, 6, 1)))
    (group,) = units(net, torch.zeros(2, 1, 4, 4))
    state = {name: value for name, value in net.state_dict().items() if name.startswith("backbone.")}
    moved = permute_units(state, [group], [torch.tensor([1, 2, 3, 4, 5, 0])])
    assert list(moved) == list(state)
    name = "backbone.blocks.0.linear.weight"
    torch.testing.assert_close(moved[name], state[name].roll(-1, 0))
