from __future__ import annotations

import pytest
import torch
from nets import batches, images, network
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from repertoire.backbones import resnet20
from repertoire.compress import DynamicConv2d, dynamic, filter_cost
from repertoire.compress._changed import answers_changed
from repertoire.compress._dynamic import _logistic
from repertoire.compress._filters import dynamic_layers, folded, followers, most_active
from repertoire.data import Batch
from repertoire.errors import CheckpointError, ConfigError


def made(mass: float = 0.6, **options: object) -> nn.Module:
    return dynamic(network(), batches, mass=mass, **options).build(network()).eval()


@pytest.mark.parametrize("mass", [0.2, 0.6, 0.999, 1.0])
def test_the_fewest_filters_that_reach_the_mass(mass):
    heat = torch.rand(20, 9, generator=torch.Generator().manual_seed(0)).relu() - 0.2
    heat = heat.relu()
    heat[3] = 0
    for row, kept in zip(heat.tolist(), most_active(heat, mass).tolist(), strict=True):
        order = sorted(range(9), key=lambda i: -row[i])
        count, total = 0, 0.0
        while total < mass * sum(row) - 1e-7:
            total += row[order[count]]
            count += 1
        assert [i for i in range(9) if kept[i]] == sorted(order[:count])


class Padding(nn.Conv2d):
    """Pads its inputs by itself where it takes every second place."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)) if self.stride == (2, 2) else x)


def test_a_convolution_that_does_more_is_left_out():
    net = nn.Sequential(
        Padding(1, 4, 3, padding=1), nn.ReLU(), Padding(4, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 2, 1)
    )
    assert list(followers(net, images(2))) == ["0", "4"]


def test_with_all_filters_on_it_is_the_network():
    model = network()
    layers = followers(model, images(2))
    assert layers == {"0": ("1", True), "6": ("7", True)}  # not the convolution in groups
    changed = folded(model, layers, 0.6)
    assert isinstance(changed[1], nn.Identity)
    for layer in dynamic_layers(changed).values():
        layer.mode = "all"
    with torch.no_grad():
        torch.testing.assert_close(changed(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_shortcuts_stay():
    torch.manual_seed(0)
    model = resnet20(in_channels=1).eval()
    layers = followers(model, torch.rand(2, 1, 8, 8))
    assert len(layers) == 19
    assert all(norm is not None for norm, _ in layers.values())
    changed = folded(model, layers, 0.6)
    for layer in dynamic_layers(changed).values():
        layer.mode = "all"
    with torch.no_grad():
        torch.testing.assert_close(changed(images()), model(images()), rtol=1e-3, atol=1e-4)


def test_what_is_skipped_is_not_computed_and_nothing_changes():
    net = made(first=True)
    x = images(4)
    expected = net(x)
    for layer in dynamic_layers(net).values():
        layer.mode = "skip"
    counts = []
    for image in x:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(image[None])
        counts.append(counter.get_flop_counts()["Global"][torch.ops.aten.convolution])
    with torch.no_grad():
        torch.testing.assert_close(net(x), expected.detach(), rtol=1e-4, atol=1e-5)
    for layer in dynamic_layers(net).values():
        layer.mode = "predicted"
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x[:1])
    whole = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert max(counts) < whole
    # What is counted beside them: the grouped convolution, and one channel each that finds out the shape of an output.
    beside = 2 * 8 * 8 * 12 * 4 * 9 + 2 * 9 * (8 * 8 + 4 * 4)
    predictors = sum(layer.predictor.weight.numel() for layer in dynamic_layers(net).values())
    told = filter_cost(net, [x])
    assert told.used == pytest.approx((sum(counts) / 4 - beside) / 2 + predictors)
    assert told.whole == 64 * 8 * 9 + 16 * 16 * 12 * 9


def test_predictors_learn_what_their_layer_does():
    stored = dynamic(network(), batches, mass=0.6, rounds=1, epochs=0, first=True)
    net = stored.build(network()).eval()
    layer = net[6]
    seen = []
    handle = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        net(images())
        handle.remove()
        kept = layer.kept(seen[0])
        wanted = most_active(layer.heat(layer.convolved(seen[0], layer.weight, layer.bias)), 0.6)
    right = float((kept == wanted).double().mean())
    share = wanted.double().mean(0)
    assert right > float(torch.maximum(share, 1 - share).mean())
    assert stored.settings["forecast"] == pytest.approx(stored.settings["share"], abs=0.15)
    assert filter_cost(net, [images()]).share == pytest.approx(stored.settings["share"])


def test_logistic_regression_is_at_its_minimum():
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(80, 4, generator=generator, dtype=torch.float64) + 5
    y = torch.rand(80, 3, generator=generator) < torch.sigmoid((x[:, :3] - 5).float())
    weight, bias = (part.requires_grad_() for part in _logistic(x, y, ridge=0.0))
    loss = nn.functional.binary_cross_entropy_with_logits(x @ weight.T + bias, y.double())
    for gradient in torch.autograd.grad(loss, [weight, bias]):
        assert float(gradient.abs().max()) < 1e-4


def test_more_mass_costs_more_and_all_of_it_nothing_is_lost():
    shares = [dynamic(network(), batches, mass=mass, epochs=0).settings["forecast"] for mass in (0.3, 0.6, 0.9)]
    assert shares == sorted(shares)
    assert shares[0] < 0.6 * shares[2]


def test_learning_brings_the_answers_nearer():
    model = network()
    errors = []
    for epochs in (0, 20):
        net = made(0.4, epochs=epochs)
        with torch.no_grad():
            errors.append(float((net(images()).log_softmax(1) - model(images()).log_softmax(1)).square().mean()))
    assert errors[1] < errors[0]


def firing() -> nn.Sequential:
    """Half of the filters of the second convolution fire for bright images, the other half for dark ones."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip
    with torch.no_grad():
        net[0].weight.fill_(1 / 9)
        net[0].bias.fill_(0)
        side = torch.cat([torch.ones(8), -torch.ones(8)])
        net[2].weight.copy_((side / 54)[:, None, None, None].expand(16, 6, 3, 3))
        net[2].bias.copy_(-0.5 * side)
    return net.eval()


def bright_and_dark():
    """Two batches of images that are bright or dark all over."""
    generator = torch.Generator().manual_seed(3)
    level = (torch.arange(80) % 2).float()[:, None, None, None] * 0.9
    x = level + 0.1 * torch.rand(80, 1, 8, 8, generator=generator)
    for part in torch.arange(80).split(40):
        yield Batch((x[part],), part % 2, part)


def test_by_default_the_answers_change_little_and_weights_stay():
    model = firing()
    stored = dynamic(model, bright_and_dark)
    built = stored.build(firing()).eval()
    assert list(dynamic_layers(built)) == ["2"]
    torch.testing.assert_close(built[2].weight, model[2].weight)
    assert stored.settings["share"] < 0.9
    for batch in bright_and_dark():
        assert answers_changed(built, model, batch.images) <= 0.02
    # With the paper's mass and a few steps of learning, the answers are others.
    other = dynamic(model, bright_and_dark, mass=0.6).build(firing()).eval()
    assert answers_changed(other, model, batch.images) > answers_changed(built, model, batch.images)


def test_where_no_mass_keeps_the_answers_it_is_refused():
    net = nn.Sequential(nn.Conv2d(1, 3, (3, 3)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    stripes = torch.zeros(3, 6, 6)
    for k in range(6):
        stripes[0, k], stripes[1, :, k], stripes[2, k, k], stripes[2, k, (k + 3) % 6] = k % 2, k % 2, 1, 1
        stripes[2, k, (k + 1) % 6] = 1  # as bright as the others, on the mean
    with torch.no_grad():
        for k in range(3):
            net[0].weight[k, 0] = 9 * (stripes[k, :3, :3] - stripes[k, :3, :3].mean())
        net[0].bias.fill_(-8.0)
    x = stripes[torch.arange(60) % 3][:, None]
    # The predictor sees the mean of the image, which is the same for all.
    with pytest.raises(ConfigError, match=r"no mass changes the answers .* give more images"):
        dynamic(net, lambda: [Batch((x,), torch.zeros(60), torch.arange(60))], first=True)
    with pytest.raises(ConfigError, match="four images"):
        dynamic(network(), lambda: [Batch((images(2),), torch.zeros(2), torch.arange(2))])


def test_a_filter_without_input_is_its_bias():
    conv = nn.Conv2d(2, 3, 3, padding=1)
    layer = DynamicConv2d(conv)
    nn.init.ones_(layer.predictor.bias)
    nn.init.zeros_(layer.predictor.weight)
    layer.mode = "skip"
    torch.testing.assert_close(layer(torch.zeros(1, 2, 4, 4)), conv(torch.zeros(1, 2, 4, 4)))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="no convolution of one group"):
        dynamic(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), batches)
    with pytest.raises(ConfigError, match="first=true"):
        dynamic(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), batches)
    with pytest.raises(ConfigError, match="batches is empty"):
        dynamic(network(), lambda: iter([]))
    with pytest.raises(ConfigError, match="no dynamic layer"):
        filter_cost(network(), [images()])
    stored = dynamic(network(), batches, mass=0.6, epochs=0)
    with pytest.raises(CheckpointError, match="no convolution"):
        stored.build(nn.Sequential(nn.Linear(3, 2)))
