"""Mixed samples: what is done to the pixels is done to the targets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from repertoire import backbones, heads, losses
from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.methods import Classifier, Normalize, Supervised, cutmix, mixup
from repertoire.rules import SAM, GradCache

C = 4


def batch_of(count: int = 6, side: int = 8, views: int = 1, seed: int = 0) -> Batch:
    """Every image is constant, and its number says whose pixels these are."""
    numbers = torch.arange(count, dtype=torch.float32)
    images = numbers.view(-1, 1, 1, 1).expand(count, 1, side, side + 2)
    return Batch((images,) * views, torch.arange(count) % C, torch.arange(count))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.1, 1.0, 5.0]), st.integers(0, 999))
def test_cutmix_exchanges_a_rectangle_and_its_share_of_the_target(count, side, alpha, seed):
    torch.manual_seed(seed)
    batch = batch_of(count, side, views=2)
    mixed = cutmix(batch, C, alpha)
    assert torch.equal(mixed.views[0], mixed.views[1])
    one_hot = F.one_hot(batch.targets, C).double()
    for i, image in enumerate(mixed.images):
        owners = image.flatten().long()
        expected = one_hot[owners].mean(0)
        torch.testing.assert_close(mixed.targets[i].double(), expected, rtol=1e-5, atol=1e-6)
        foreign = (image[0] != i).nonzero()
        assert len(owners.unique()) <= 2
        if len(foreign):
            height, width = (foreign.amax(0) - foreign.amin(0) + 1).tolist()
            assert height * width == len(foreign), "a rectangle"
    assert mixed.targets.shape == (count, C)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.sampled_from([0.2, 1.0, 8.0]), st.integers(0, 999))
def test_mixup_is_its_formula(count, alpha, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=generator)
    batch = Batch((x, 2 * x), torch.arange(count) % C, torch.arange(count))
    torch.manual_seed(seed)
    mixed = mixup(batch, C, alpha)
    torch.manual_seed(seed)
    share = float(torch.distributions.Beta(torch.tensor(alpha), torch.tensor(alpha)).sample())
    order = torch.randperm(count).tolist()
    one_hot = torch.eye(C)[batch.targets]
    for i, j in enumerate(order):
        torch.testing.assert_close(mixed.views[0][i], share * x[i] + (1 - share) * x[j])
        torch.testing.assert_close(mixed.views[1][i], 2 * (share * x[i] + (1 - share) * x[j]))
        torch.testing.assert_close(mixed.targets[i], share * one_hot[i] + (1 - share) * one_hot[j])


def test_soft_targets_are_mixed_again():
    batch = mixup(batch_of(), C)
    torch.testing.assert_close(cutmix(batch, C).targets.sum(1), torch.ones(6))


def classifier() -> Classifier:
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    return Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, C))


@pytest.mark.parametrize(("mix", "function"), [("mixup", mixup), ("cutmix", cutmix)])
def test_supervised_trains_on_mixed_samples_and_evaluates_plain_ones(mix, function):
    method = Supervised(classifier(), losses.CrossEntropy(), mix=mix, alpha=0.7)
    batch = replace(batch_of(), views=(torch.rand(6, 1, 8, 8),))
    torch.manual_seed(1)
    found = method.step(batch)
    torch.manual_seed(1)
    mixed = function(batch, C, 0.7)
    expected = -(mixed.targets * method.model(mixed.images).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(found.loss, expected)
    method.eval()
    torch.testing.assert_close(method.step(batch).loss, F.cross_entropy(method.model(batch.images), batch.targets))


def test_rules_mix_once_a_step():
    """A batch is mixed before a rule cuts the network, and the second pass of SAM sees the same mixture."""
    batch = replace(batch_of(), views=(torch.rand(6, 1, 8, 8),))
    for rule in (GradCache(chunk=64), SAM(rho=1e-9)):
        method = Supervised(classifier(), losses.CrossEntropy(), mix="mixup")
        rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1))
        torch.manual_seed(3)
        found = rule.step(method, batch)["loss"]
        plain = Supervised(classifier(), losses.CrossEntropy(), mix="mixup")
        torch.manual_seed(3)
        step = plain.step(batch)
        torch.testing.assert_close(found, step.loss.detach())
        step.loss.backward()
        for trained, start in zip(method.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(trained, start - 0.1 * start.grad, rtol=1e-3, atol=1e-5)


def test_what_is_refused():
    with pytest.raises(ConfigError, match="mix must be 'none', 'mixup' or 'cutmix', found 'blend'"):
        Supervised(classifier(), losses.CrossEntropy(), mix="blend")
    with pytest.raises(ConfigError, match="alpha must be positive"):
        mixup(batch_of(), C, alpha=0.0)
    soft = next(loss for loss in (losses.LDAM, losses.SoftTopK) if not loss.soft)
    built = soft(torch.ones(C)) if soft is losses.LDAM else soft()
    with pytest.raises(ConfigError, match=f"makes soft targets, which loss {soft.__name__} does not take"):
        Supervised(classifier(), built, mix="mixup")
    with pytest.raises(ShapeError, match="cutmix needs images"):
        cutmix(Batch((torch.rand(3, 5),), torch.arange(3), torch.arange(3)), C)
    with pytest.raises(ShapeError, match="targets of one class each"):
        mixup(replace(batch_of(), targets=torch.zeros(6, 2, dtype=torch.long)), C)
