"""PLeaS: what it must give exactly, and its layers against least squares that were put together by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.backbones import Backbone, ConvNet, EfficientNetLite, resnet20
from repertoire.data import Batch
from repertoire.errors import CheckpointError, ConfigError
from repertoire.heads import Linear
from repertoire.weights import Rebased, Stored, match, permute_least_squares, permute_units, refresh_batchnorm, units


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


class Whole(nn.Module):
    """What runs leave behind, without its normalisation."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.head = backbone, Linear(backbone.out_features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class Flat(nn.Module):
    """A linear layer that reads flattened maps, and biases everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.deep = nn.Conv2d(1, 4, 3, stride=2), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.read, self.out = nn.Linear(4 * 9, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.read(self.deep(self.conv(x).relu()).relu().flatten(1)).tanh())


def two(build, x: Tensor) -> list[nn.Module]:
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = build().eval()
        refresh_batchnorm(net, [x])
        nets.append(net)
    return nets


def called(nets: list[nn.Module], x: Tensor, states: list | None = None, **options):
    """The operator on networks, whose `network` gives copies of them."""
    import copy

    def network(state, of=0):
        net = copy.deepcopy(nets[of])
        net.load_state_dict({**net.state_dict(), **state})
        return net.eval()

    def batches(of=None):
        for part in x.split(10):
            yield Batch((part,), torch.zeros(len(part), dtype=torch.long), torch.arange(len(part)))

    return permute_least_squares(states or [net.state_dict() for net in nets], network, batches, **options)


@pytest.mark.parametrize(
    ("build", "image", "by"),
    [
        (lambda: Whole(ConvNet(1, 8, 4, 3)), (1, 8, 8), "activations"),
        (lambda: Whole(resnet20(1, 8, width=4, shortcut="B")), (1, 8, 8), "weights"),
        (Flat, (1, 7, 7), "weights"),
    ],
)
def test_side_by_side_both_networks_are_what_they_were(build, image, by):
    x = torch.randn(24, *image, generator=torch.Generator().manual_seed(0))
    nets = two(build, x)
    found = called(nets, x, width=2.0, by=by)
    assert isinstance(found, Stored)
    torch.testing.assert_close(found.build(build()).eval()(x), (nets[0](x) + nets[1](x)) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [1.0, 1.25])
def test_a_permuted_copy_merges_into_what_it_is_a_copy_of(width):
    x = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first, second = two(lambda: Whole(ConvNet(1, 8, 4, 3)), x)
    groups = units(first, x)
    generator = torch.Generator().manual_seed(1)
    orders = [torch.randperm(group.size, generator=generator) for group in groups]
    second.load_state_dict(permute_units(first.state_dict(), groups, orders))
    found = called([first, second], x, width=width)
    if width == 1:
        torch.testing.assert_close(dict(found), dict(first.state_dict()), rtol=1e-4, atol=1e-5)
    else:
        assert [len(v) for n, v in found.tensors.items() if n.endswith("norm.weight")] == [5, 10, 20]
        net = found.build(Whole(ConvNet(1, 8, 4, 3))).eval()
        torch.testing.assert_close(net(x), first(x), rtol=1e-4, atol=1e-4)
        assert (net.backbone.out_features, net.head.in_features) == (20, 20)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 2))


def test_layers_are_the_least_squares_that_were_written_out():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = (net.double() for net in two(mlp, x.float()))
    found = called([first, second], x, width=1.5, ridge=0.0).tensors
    groups = units(first, x)
    matching = match(first, second, groups, [x])

    def sides(number):
        """Pairs that are one, and the units of either network by themselves."""
        pairs = list(enumerate(matching.permutations[number].tolist()))
        likeness = matching.similarities[number].tolist()
        apart = sorted(sorted(pairs, key=lambda pair: likeness[pair[0]])[:2])
        return [pair for pair in pairs if pair not in apart], [i for i, _ in apart], [j for _, j in apart]

    def together(a, b, number):
        both, own, other = sides(number)
        return torch.stack(
            [(a[:, i] + b[:, j]) / 2 for i, j in both] + [a[:, i] for i in own] + [b[:, j] for j in other], 1
        )

    z = together(first[:2](x), second[:2](x), 0)
    y = together(first[:3](x), second[:3](x), 1)
    torch.testing.assert_close(found["2.weight"][:2], torch.linalg.lstsq(z, y[:, :2]).solution.T)
    torch.testing.assert_close(found["2.weight"][2:4, :4], torch.linalg.lstsq(z[:, :4], y[:, 2:4]).solution.T)
    of_second = [0, 1, 4, 5]
    torch.testing.assert_close(
        found["2.weight"][4:][:, of_second], torch.linalg.lstsq(z[:, of_second], y[:, 4:]).solution.T
    )
    assert not found["2.weight"][2:4, 4:].any()
    assert not found["2.weight"][4:, 2:4].any()

    z = torch.cat([together(first[:4](x), second[:4](x), 1), torch.ones(40, 1).double()], 1)
    solution = torch.linalg.lstsq(z, (first(x) + second(x)) / 2).solution.T
    torch.testing.assert_close(found["4.weight"], solution[:, :-1])
    torch.testing.assert_close(found["4.bias"], solution[:, -1])


@pytest.mark.parametrize("layer", ["conv", "deep", "read"])
def test_layers_of_maps_leave_nothing_to_gain(layer):
    """Of the squares between a layer's answer and the mean of the matched answers, the gradient is zero."""
    x = torch.randn(30, 1, 7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nets = [net.double() for net in two(Flat, x.float())]
    found = called(nets, x, ridge=0.0)
    matching = match(*nets, units(nets[0], x), [x])
    nets[1].load_state_dict(matching.moved(nets[1].state_dict()))
    given: list[Tensor] = []
    for net in nets:
        getattr(net, layer).register_forward_hook(lambda _, inputs, output: given.extend([inputs[0], output]))
        net(x)
    z, y = (given[0] + given[2]) / 2, (given[1] + given[3]) / 2
    module = Flat().double()
    module.load_state_dict(dict(found))
    part = getattr(module, layer)
    with torch.enable_grad():
        F.mse_loss(part(z), y, reduction="sum").backward()
    for parameter in part.parameters():
        assert parameter.grad.abs().max() < 1e-8


def test_what_padded_shortcuts_carry_keeps_its_width():
    x = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    nets = two(lambda: Whole(resnet20(1, 8, width=4)), x)
    found = called(nets, x, width=1.5)
    assert found.tensors["backbone.blocks.1.norm1.weight"].shape == (6,)
    assert found.tensors["backbone.blocks.1.norm2.weight"].shape == (4,)
    assert found.build(Whole(resnet20(1, 8, width=4)))(x).isfinite().all()


def test_the_structure_of_lite0():
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nets = two(lambda: EfficientNetLite(width=0.1, depth=0.1), x)
    found = called(nets, x, width=1.0)
    assert isinstance(found, Rebased)
    nets[0].load_state_dict(dict(found))
    assert nets[0](x).isfinite().all()


def test_heads_of_their_own_read_the_features_of_their_network():
    """Side by side, each head finds its network's features where it is told, and what it says is unchanged."""
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    nets = two(lambda: Whole(ConvNet(1, 8, 4, 2)), x)
    states = [{n: v for n, v in net.state_dict().items() if not n.startswith("head.")} for net in nets]
    found = called(nets, x, states, width=2.0)
    assert found.settings == {"out_features": 16}
    for net, places in zip(nets, found.features, strict=True):
        columns = torch.tensor(places)
        weight = net.head.linear.weight[:, columns.clamp_min(0)] * (columns >= 0)
        whole = {**found.tensors, "head.linear.weight": weight, "head.linear.bias": net.head.linear.bias}
        built = Stored("shaped", whole, found.settings).build(Whole(ConvNet(1, 8, 4, 2))).eval()
        torch.testing.assert_close(built(x), net(x), rtol=1e-4, atol=1e-4)
    assert called(nets, x, states).features[0] == list(range(8))


def test_what_does_not_fit_is_refused():
    x = torch.randn(10, 3)
    first, second = two(mlp, x)
    with pytest.raises(ConfigError, match="two networks are matched and fitted, 3 given"):
        called([first, second], x, [first.state_dict()] * 3)
    with pytest.raises(ConfigError, match=r"width must lie in \[1, 2\], found 2\.5"):
        called([first, second], x, width=2.5)
    with pytest.raises(CheckpointError, match="not of one architecture"):
        called([first, second], x, [first.state_dict(), {}])
    with pytest.raises(ConfigError, match=r"no units of Linear can stand side by side at a width of 1\.5; use 1"):
        called([nn.Linear(3, 2), nn.Linear(3, 2)], x, width=1.5)
