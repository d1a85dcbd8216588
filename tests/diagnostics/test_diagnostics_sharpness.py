"""Sharpness and gradient noise, beside what can be computed by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.backbones import ConvNet
from repertoire.diagnostics import gradient_noise_scale, landscape_convergence, sharpness
from repertoire.errors import ConfigError, DataError, NonFiniteLoss, ShapeError
from repertoire.heads import Linear
from repertoire.methods import Classifier, Normalize, SimSiam


class Quadratic(nn.Module):
    """Half of w' A w, whatever the inputs."""

    def __init__(self, curvature: list[float], at: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(at, dtype=torch.float64))
        self.curvature = torch.tensor(curvature, dtype=torch.float64)

    def forward(self, inputs: Tensor) -> Tensor:
        return 0.5 * (self.curvature * self.weight.square()).sum().expand(len(inputs))


def mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean()


ANY = [(torch.ones(3, 1), torch.ones(3)), (torch.ones(2, 1), torch.ones(2))]


def test_the_worst_in_a_ball_is_found():
    found = sharpness(Quadratic([5.0, 1.0], [1e-4, 1e-3]), ANY, mean, rho=0.3, steps=20)
    assert found.rise == pytest.approx(0.5 * 5 * 0.3**2, rel=1e-2)
    assert found.relative == pytest.approx(100 * found.rise / (1 + found.loss))
    one = sharpness(Quadratic([5.0, 1.0], [0.0, 1.0]), ANY, mean, rho=0.3, steps=1)
    assert one.worst == pytest.approx(0.5 * 1.3**2)


def test_a_ball_relative_to_the_weights_does_not_see_rescaling():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    data = [(torch.randn(30, 4, dtype=torch.float64), torch.randint(0, 3, (30,)))]
    before = {kind: sharpness(model, data, rho=0.2, adaptive=kind, steps=1).rise for kind in (True, False)}
    with torch.no_grad():
        model[0].weight.mul_(4)
        model[2].weight.div_(4)
    after = {kind: sharpness(model, data, rho=0.2, adaptive=kind, steps=1).rise for kind in (True, False)}
    assert after[True] == pytest.approx(before[True], rel=1e-6)
    assert after[False] > 1.5 * before[False]


def test_at_a_minimum_and_where_the_loss_overflows():
    assert sharpness(Quadratic([1.0], [0.0]), ANY, mean).rise == 0
    steep = sharpness(Quadratic([1.0], [1.0]), ANY, lambda a, b: (a * 1e200).mean(), rho=1e100, steps=3)
    assert steep.worst == math.inf
    with pytest.raises(NonFiniteLoss):
        sharpness(Quadratic([math.inf], [1.0]), ANY, mean)


@pytest.mark.parametrize("options", [{"rho": 0.0}, {"rho": math.nan}, {"steps": 0}])
def test_options_out_of_range(options):
    with pytest.raises(ConfigError):
        sharpness(Quadratic([1.0], [1.0]), ANY, mean, **options)


def regression(count: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return x, x.sum(1, keepdim=True) + noise * torch.randn(count, 1, generator=generator, dtype=torch.float64)


def single(model: nn.Linear, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of each sample by itself, [N, P]: that of (x w - y) ** 2."""
    return 2 * (x @ model.weight.detach().T - y) * x


def test_signal_and_noise_have_no_bias_for_batches_of_any_size():
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.constant_(model.weight, 0.5)
    gradients = single(model, *regression(20_000, 1.0, 999))
    signal, noise = float(gradients.mean(0).square().sum()), float(gradients.var(0).sum())
    found = []
    for seed in range(150):
        x, y = regression(42, 1.0, seed)
        found.append(gradient_noise_scale(model, zip(x.split([8, 4, 20, 10]), y.split([8, 4, 20, 10]), strict=True),
                                          F.mse_loss))  # fmt: skip
    values = torch.tensor(found, dtype=torch.float64)[:, 1:]
    error = values.std(0) / len(values) ** 0.5
    assert bool(((values.mean(0) - torch.tensor([signal, noise])).abs() < 4 * error + 0.02 * noise).all())


def test_equal_batches_are_the_pair_of_the_paper():
    model = nn.Linear(3, 1, bias=False).double()
    x, y = regression(64, 1.0, 0)
    found = gradient_noise_scale(model, list(zip(x.split(16), y.split(16), strict=True)), F.mse_loss)
    every = single(model, x, y)
    small, big = every.view(4, 16, -1).mean(1).square().sum(1).mean(), every.mean(0).square().sum()
    signal = (64 * big - 16 * small) / (64 - 16)
    noise = (small - big) / (1 / 16 - 1 / 64)
    assert found.signal == pytest.approx(float(signal))
    assert found.noise == pytest.approx(float(noise))
    assert found.scale == pytest.approx(float(noise / signal))


def test_noise_without_signal_and_one_batch():
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)
    x = torch.eye(2)
    opposed = [(x, model(x).detach() + 1), (x, model(x).detach() - 1)]
    assert gradient_noise_scale(model, opposed, F.mse_loss).scale == math.inf
    with pytest.raises(DataError, match="at least two batches"):
        gradient_noise_scale(model, opposed[:1], F.mse_loss)
    with pytest.raises(DataError, match="empty"):
        gradient_noise_scale(model, [], F.mse_loss)
    net = ConvNet(in_channels=1, image_size=4, width=4, depth=1)
    method = SimSiam(Classifier(Normalize([0.5], [0.25]), net, Linear(net.out_features, 2)))
    with pytest.raises(ConfigError, match="compares the samples"):
        gradient_noise_scale(method, [])


def test_the_change_of_the_landscape_is_that_of_the_definition():
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4).double(), torch.randn(12, 3).double(), torch.randint(0, 4, (12,))
    found = landscape_convergence(model, x, y, orders=3, seed=5)
    generator = torch.Generator().manual_seed(5)
    total = torch.zeros(11, dtype=torch.float64)
    for _ in range(3):
        order = torch.randperm(12, generator=generator)
        means = [F.cross_entropy(model(x[order[:k]]), y[order[:k]]).item() for k in range(1, 13)]
        total += torch.tensor([(b - a) ** 2 for a, b in itertools.pairwise(means)], dtype=torch.float64)
    torch.testing.assert_close(found.change, total / 3)
    assert found.sizes.tolist() == list(range(1, 12))


def test_the_landscape_converges_like_one_over_the_number_of_samples():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 1), torch.randn(2000, 3)
    before = {n: p.clone() for n, p in model.named_parameters()}
    found = landscape_convergence(model.train(), x, x[:, :1], F.mse_loss, sigma=0.5, points=8)
    predicted = (found.scale / (found.sizes + 1)).square()
    assert float((found.change / predicted)[1000:].mean()) == pytest.approx(1.0, abs=0.2)
    assert found.scale / (found.samples_for(1e-3) + 1) <= 1e-3
    assert model.training
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_convergence_refuses_bad_input():
    model, x, y = nn.Linear(3, 4), torch.randn(6, 3), torch.zeros(6, dtype=torch.int64)
    with pytest.raises(DataError, match="at least two"):
        landscape_convergence(model, x[:1], y[:1])
    with pytest.raises(ShapeError, match="6 inputs and 5"):
        landscape_convergence(model, x, y[:5])
    with pytest.raises(ShapeError, match="one value a sample"):
        landscape_convergence(model, x, y, lambda a, b, reduction: a.mean())
    with pytest.raises(NonFiniteLoss):
        landscape_convergence(model, x * math.nan, y)
    for options in ({"sigma": -1.0}, {"points": 0}, {"orders": 0}):
        with pytest.raises(ConfigError):
            landscape_convergence(model, x, y, **options)
    with pytest.raises(ConfigError, match="tolerance"):
        landscape_convergence(model, x, y).samples_for(0)
