"""What is read off a network: sparsity of activations, feature complexity, rotation probe, lpNTK."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repertoire.diagnostics import (
    activation_sparsity,
    feature_complexity,
    last_layer_lpntk,
    lpntk,
    merge_features,
    network_complexity,
    rotation_probe,
)
from repertoire.errors import ConfigError, ShapeError


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.linear = nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Linear(3, 4)

    def forward(self, x):
        y = self.relu(self.relu(self.conv(x)))
        return torch.relu(F.gelu(self.linear(y.mean((2, 3)))))


def test_sparsity_counts_positive_outputs_of_modules_and_of_functions():
    torch.manual_seed(0)
    model, x = Mixed().train(), torch.randn(6, 1, 5, 5)
    found = activation_sparsity(model, [x[:2], x[2:]])
    assert [(row.name, row.kind, row.units) for row in found] == [
        ("relu", "relu", 3), ("relu#2", "relu", 3), ("model", "gelu", 4), ("model#2", "relu", 4),
    ]  # fmt: skip
    with torch.no_grad():
        maps = model.conv(x)
        last = model.linear(maps.relu().mean((2, 3)))
    assert found[0].active == pytest.approx(float((maps > 0).float().mean()))
    assert found[3].active == pytest.approx(float((last > 0).float().mean()))
    assert found[3].dead == pytest.approx(float((last <= 0).all(0).float().mean()))
    assert model.training
    assert not model.conv._forward_hooks
    assert not model.conv._forward_pre_hooks


def test_sparsity_needs_a_batch_and_cleans_up_after_an_error():
    with pytest.raises(ConfigError, match="at least one batch"):
        activation_sparsity(Mixed(), [])
    model = Mixed()
    with pytest.raises(RuntimeError):
        activation_sparsity(model, torch.zeros(1, 2, 5, 5))
    assert not model.conv._forward_hooks


def test_equal_channels_are_one_feature():
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    repeated = weight[[0, 1, 2, 3, 1, 1, 0]]
    found = feature_complexity(repeated, threshold=1e-9)
    assert found.distinct == 4
    assert found.groups.tolist() == [0, 1, 2, 3, 1, 1, 0]
    assert found.share == pytest.approx(4 / 7)
    assert feature_complexity(weight, threshold=0.0).distinct == 4
    assert feature_complexity(weight, threshold=99.0).distinct == 1
    assert feature_complexity(weight, torch.tensor([0.0, 0, 0, 0]), keep=2).distinct == 2
    assert (
        feature_complexity(100 * weight, threshold=0.5).distinct == feature_complexity(weight, threshold=0.5).distinct
    )


def test_a_merged_channel_is_the_mean_of_its_members():
    """0 and 1 are merged first; their mean, 0.5, is then nearer to 1.6 than 1.6 is to 3."""
    weight = torch.tensor([[0.0], [1.0], [1.6], [3.0]])
    assert feature_complexity(weight, keep=2).groups.tolist() == [0, 0, 0, 1] or feature_complexity(
        weight, keep=3
    ).groups.tolist() == [0, 1, 1, 2]


def test_merging_equal_channels_changes_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 6), nn.GELU(), nn.Linear(6, 2)
    )
    with torch.no_grad():
        model[0].weight[3], model[0].bias[3] = model[0].weight[1], model[0].bias[1]
        model[4].weight[5], model[4].bias[5] = model[4].weight[0], model[4].bias[0]
    x = torch.randn(3, 1, 8, 8)
    smaller = merge_features(model, threshold=1e-6)
    torch.testing.assert_close(smaller(x), model(x))
    assert (smaller[0].out_channels, smaller[4].in_features, smaller[4].out_features) == (3, 27, 5)
    assert [row.distinct for row in network_complexity(model, threshold=1e-6)] == [3, 5, 2]
    assert len(model[0].weight) == 4


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)), {}, "module 1 .* BatchNorm1d"),
        (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(2, 2, 1)), {}, "grouped"),
        (nn.Sequential(nn.Linear(2, 2)), {"share": 0.0}, "share"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), {"threshold": -1.0}, "threshold"),
    ],
)
def test_what_cannot_be_merged(model, options, message):
    with pytest.raises(ConfigError, match=message):
        merge_features(model, **options)
    with pytest.raises(ConfigError, match="keep"):
        feature_complexity(torch.zeros(2, 2), keep=3)
    with pytest.raises(ShapeError, match="bias"):
        feature_complexity(torch.zeros(2, 2), torch.zeros(3))


def test_rotation_can_be_told_from_pixels_but_not_from_their_mean():
    images = torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    images[:, :, 0] += 1
    assert rotation_probe(lambda x: x.flatten(1), images) == 1.0
    assert rotation_probe(lambda x: x.mean((2, 3)), images) < 0.5
    with pytest.raises(ShapeError, match="square"):
        rotation_probe(lambda x: x, torch.zeros(9, 1, 4, 5))
    with pytest.raises(ValueError, match="held_out"):
        rotation_probe(lambda x: x.flatten(1), images, held_out=1.0)


class _Scaled(nn.Module):
    """A parameter without dimensions, such as the scale of a cosine head."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x


def test_lpntk_of_a_parameter_without_dimensions():
    x, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    signed = x.sum(1) - 2 * x.gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(lpntk(_Scaled(), x, labels), signed[:, None] * signed)


def test_lpntk_is_the_signed_sum_over_classes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, labels = torch.randn(5, 3).double(), torch.tensor([0, 1, 2, 1, 0])
    rows = []
    for i in range(5):
        logits = model(x[i : i + 1])[0]
        rows.append([
            torch.cat([g.flatten() for g in torch.autograd.grad(z, list(model.parameters()), retain_graph=True)])
            for z in logits
        ])  # fmt: skip
    expected = torch.zeros(5, 5).double()
    for i in range(5):
        for j in range(5):
            for k in range(3):
                for l in range(3):  # noqa: E741
                    sign = (-1 if k == labels[i] else 1) * (-1 if l == labels[j] else 1)
                    expected[i, j] += sign * float(rows[i][k] @ rows[j][l])
    torch.testing.assert_close(lpntk(model, x, labels, batch_size=2), expected)
    torch.testing.assert_close(lpntk(model, x, labels, x[:3], labels[:3], batch_size=2), expected[:, :3])
    head, h = model[2], model[:2](x).detach()
    torch.testing.assert_close(last_layer_lpntk(h, labels, 3), lpntk(head, h, labels))
    with pytest.raises(ShapeError, match="one length"):
        lpntk(model, x, labels[:3])
    with pytest.raises(ShapeError, match=r"0\.\.2"):
        lpntk(model, x, labels + 1)
    with pytest.raises(ShapeError, match="both"):
        last_layer_lpntk(h, labels, 3, h)
