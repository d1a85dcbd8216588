from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from repertoire import backbones, heads
from repertoire.data import Batch
from repertoire.losses import DecoupledMixup, cross_entropy, decoupled_mixup_loss
from repertoire.methods import Classifier, Normalize, Supervised


def reference(logits: list[float], targets: list[float], eta: float) -> float:
    """Class by class, with the classes that are mixed in written out."""
    total = sum(math.exp(value) for value in logits)
    loss = -sum(t * math.log(math.exp(z) / total) for z, t in zip(logits, targets, strict=True))
    mixed = [c for c, t in enumerate(targets) if t > 0.001]
    if len(mixed) > 1:
        for c in mixed:
            rivals = sum(math.exp(z) for k, z in enumerate(logits) if k == c or k not in mixed)
            loss -= eta * math.log(math.exp(logits[c]) / rivals)
    return loss


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(2, 6), st.sampled_from([0.0, 0.1, 1.0]), st.integers(1, 3), st.integers(0, 999))
def test_agrees_with_the_formula(count, classes, eta, mixed, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    owners = torch.randint(classes, (mixed, count), generator=generator)
    shares = torch.rand(mixed, count, generator=generator, dtype=torch.float64).softmax(0)
    targets = (F.one_hot(owners, classes) * shares[:, :, None]).sum(0)
    expected = [reference(f, t, eta) for f, t in zip(logits.tolist(), targets.tolist(), strict=True)]
    found = DecoupledMixup(eta, reduction="none")(logits, targets)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_the_partner_gets_no_gradient_from_the_term_of_a_class():
    """With one share all but gone, cross-entropy says nothing of it; the terms still do, each of its own class."""
    logits = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[0.6, 0.0, 0.4, 0.0, 0.0]], dtype=torch.float64)
    terms = decoupled_mixup_loss(logits, targets, eta=1.0) - cross_entropy(logits, targets)
    (found,) = torch.autograd.grad(terms, logits)
    rest = logits.detach()[0, [1, 3, 4]].exp().sum()
    for c in (0, 2):
        own = logits.detach()[0, c].exp()
        # Of its own softmax alone: the partner's term would add the probability of c in it.
        torch.testing.assert_close(found[0, c], own / (own + rest) - 1)


def test_both_classes_may_be_certain_whatever_the_shares():
    both = torch.tensor([[40.0, 40.0, 0.0]], dtype=torch.float64)
    for share in (0.01, 0.5, 0.9):
        targets = torch.tensor([[share, 1 - share, 0.0]], dtype=torch.float64)
        terms = decoupled_mixup_loss(both, targets, eta=1.0) - cross_entropy(both, targets)
        assert float(terms) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("logits", [[0.3, -0.2], [50.0, -50.0], [1e4, -1e4]])
def test_of_two_classes_nothing_is_added(logits: list[float]):
    scores = torch.tensor([logits], requires_grad=True)
    targets = torch.tensor([[0.4, 0.6]])
    loss = decoupled_mixup_loss(scores, targets, eta=1.0)
    torch.testing.assert_close(loss, cross_entropy(scores, targets))
    (found,) = torch.autograd.grad(loss, scores)
    (plain,) = torch.autograd.grad(cross_entropy(scores, targets), scores)
    torch.testing.assert_close(found, plain)


def test_a_class_mixed_with_itself_is_not_mixed():
    logits = torch.randn(3, 4)
    hard = torch.tensor([1, 3, 0])
    for targets in (hard, F.one_hot(hard, 4).float(), torch.tensor([[0.0005, 0.9995, 0, 0]] * 3)):
        torch.testing.assert_close(decoupled_mixup_loss(logits, targets, eta=5.0), cross_entropy(logits, targets))


def test_supervised_training_mixes_for_it():
    torch.manual_seed(0)
    net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 4)).eval()
    batch = Batch((torch.rand(6, 1, 8, 8),), torch.arange(6) % 4, torch.arange(6))
    for mix in ("mixup", "cutmix"):
        method = Supervised(model, DecoupledMixup(0.5), mix=mix)
        torch.manual_seed(3)
        mixed = method.transform(batch)
        expected = decoupled_mixup_loss(model(mixed.images), mixed.targets, eta=0.5)
        torch.manual_seed(3)
        method.train()
        model.eval()
        torch.testing.assert_close(method.step(batch).loss, expected)


def test_gradcheck():
    targets = torch.tensor([[0.3, 0.7, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: decoupled_mixup_loss(z, targets, eta=0.3), logits)
