"""AdaMixUp: its loss against a loop, and the gradient of the shares against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import AdaMixUp, Classifier, Normalize

K = 3


def method_of(**options: float) -> AdaMixUp:
    torch.manual_seed(0)
    net = backbones.MLP(in_channels=1, image_size=4, hidden=12)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, K))
    return AdaMixUp(model, losses.CrossEntropy(), **options).double().eval()


def batch_of(count: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 1, 4, 4, generator=generator, dtype=torch.float64)
    return Batch((images,), torch.arange(count) % K, torch.arange(count))


def step(method: AdaMixUp, batch: Batch) -> Tensor:
    torch.manual_seed(7)
    return method.step(batch).loss


def log_softmax(row: Tensor) -> list[float]:
    total = math.log(sum(math.exp(value) for value in row.tolist()))
    return [value - total for value in row.tolist()]


def test_is_its_formula():
    method, batch = method_of(intrusion=0.6, mixed=0.4), batch_of()
    model = method.model
    torch.manual_seed(7)
    order = torch.randperm(5).tolist()
    drawn = torch.rand(5).tolist()
    features = model.embed(batch.images)
    total = 0.0
    for i, j in enumerate(order):
        y, other = int(batch.targets[i]), int(batch.targets[j])
        three = [math.exp(value) for value in log_softmax(method.policy(torch.cat([features[i], features[j]])))]
        share = three[0] + drawn[i] * three[1]
        assert 0 < share < 1
        made = model.embed((share * batch.images[i] + (1 - share) * batch.images[j])[None])
        plain, soft = log_softmax(model.head(features[i][None])[0]), log_softmax(model.head(made)[0])
        total -= plain[y] + 0.4 * (share * soft[y] + (1 - share) * soft[other])
        real, unreal = float(method.real(features[i]).detach()), float(method.real(made).detach())
        total += 0.6 * (math.log1p(math.exp(-real)) + math.log1p(math.exp(unreal)))
    assert float(step(method, batch).detach()) == pytest.approx(total / 5)


@pytest.mark.parametrize("mixed", [0.0, 1.0])
def test_the_gradient_reaches_the_policy_through_the_share(mixed: float):
    """Of telling mixtures from real samples alone, and with what mixtures are of."""
    method, batch = method_of(mixed=mixed), batch_of()
    (last,) = (layer for layer in [method.policy[-1]] if isinstance(layer, nn.Linear))
    bias = last.bias
    (found,) = torch.autograd.grad(step(method, batch), bias)
    for k in range(3):
        with torch.no_grad():
            bias[k] += 1e-6
            above = float(step(method, batch))
            bias[k] -= 2e-6
            below = float(step(method, batch))
            bias[k] += 1e-6
        assert float(found[k]) == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-7)
    assert found.abs().max() > 1e-5


def test_shares_lie_in_the_interval_and_the_interval_in_zero_to_one():
    method = method_of()
    z = 20 * torch.randn(50, method.model.backbone.out_features, dtype=torch.float64)
    low, high = method.interval(z, z.flip(0))
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (high > low).all()


def test_statistics_follow_one_pass_of_real_samples_and_mixtures_together():
    method, batch = method_of().train(), batch_of(8)
    before = [int(m.num_batches_tracked) for m in method.model.modules() if isinstance(m, nn.BatchNorm1d)]
    step(method, batch)
    after = [int(m.num_batches_tracked) for m in method.model.modules() if isinstance(m, nn.BatchNorm1d)]
    assert before
    assert after == [count + 1 for count in before]


def test_the_policy_learns_to_avoid_mixtures_that_look_real():
    """Points at 0 and 2 of two classes, and a third class at 1 between them: half and half is real."""
    torch.manual_seed(0)
    points = torch.tensor([[0.0], [2.0], [1.0]]).repeat(40, 1) + 0.02 * torch.randn(120, 1)
    targets = torch.tensor([0, 1, 2]).repeat(40)
    net = backbones.MLP(in_channels=1, image_size=1, hidden=32)
    model = Classifier(Normalize([1.0], [1.0]), net, heads.Linear(net.out_features, 3))
    method = AdaMixUp(model, losses.CrossEntropy()).train()
    batch = Batch((points.view(-1, 1, 1, 1),), targets, torch.arange(120))
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        method.step(batch).loss.backward()
        optimizer.step()
    method.eval()
    with torch.no_grad():
        ends = model.embed(torch.tensor([0.0, 2.0]).view(2, 1, 1, 1))
        low, high = method.interval(ends[:1], ends[1:])
    assert not float(low) < 0.5 < float(high), (float(low), float(high))
    assert (model(batch.images).argmax(1) == targets).float().mean() > 0.95


def test_what_does_not_fit_is_refused():
    net = backbones.MLP(in_channels=1, image_size=4, hidden=12)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, K))
    with pytest.raises(ConfigError, match="soft targets, which loss Focal does not take: use cross-entropy"):
        AdaMixUp(model, losses.Focal())
    with pytest.raises(ConfigError, match="intrusion must be 0 or more"):
        AdaMixUp(model, losses.CrossEntropy(), intrusion=-1)
