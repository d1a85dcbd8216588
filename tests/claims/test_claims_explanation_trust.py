"""The construction and the adversary behind the claim on input gradients."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from repertoire.claims._training import perceptron
from repertoire.claims.explanation.diffroar import _blocks, _gradients, _Robust
from repertoire.data import load, plain


def test_blocks_hold_the_digit_in_one_half_and_the_same_in_the_other():
    digits = load("digits").test
    images, labels, masks = _blocks(digits, 0, "cpu")
    assert images.shape == (len(digits), 1, 16, 8)
    assert labels.tolist() == digits.labels.tolist()
    assert masks.sum((1, 2)).unique().tolist() == [64]
    inside = images[:, 0][masks].view(-1, 1, 8, 8)
    torch.testing.assert_close(inside, plain(torch.from_numpy(digits.pixels(slice(None)))))
    assert len(images[:, 0][~masks].view(-1, 64).unique(dim=0)) == 1
    assert 0.4 < masks[:, 0, 0].float().mean() < 0.6
    assert _blocks(digits, 0, "cpu", fixed=True)[2][:, 0, 0].all()


def test_the_adversary_stays_near_and_does_harm():
    torch.manual_seed(0)
    network, rows, labels = perceptron(12, 4, 16), torch.rand(20, 12), torch.arange(20) % 4
    worst = _Robust(network, 0.3).worst(rows, labels)
    assert ((worst - rows).norm(dim=1) <= 0.3 + 1e-5).all()
    assert worst.min() >= 0
    assert worst.max() <= 1
    harm = [F.cross_entropy(network(x), labels, reduction="none") for x in (worst, rows)]
    assert (harm[0] > harm[1]).all()


def test_gradients_are_those_of_the_predicted_class():
    network = torch.nn.Linear(6, 2, bias=False)
    images = torch.rand(5, 1, 2, 3)
    chosen = network(images.flatten(1)).argmax(1)
    torch.testing.assert_close(_gradients(network, images), network.weight[chosen].abs().view(5, 2, 3))
