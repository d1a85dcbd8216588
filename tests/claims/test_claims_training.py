"""What the claims are measured with, where it can be wrong without a claim failing."""

from __future__ import annotations

import torch

from repertoire.claims._training import fit_tensors, perceptron, pixels
from repertoire.claims.beds.digits import several_digits, top_k_accuracy, two_digits
from repertoire.claims.weak_supervision.em_apl import _one_of
from repertoire.data import load


def test_scenes_show_the_digits_that_they_are_labelled_with():
    images = load("digits", seed=0).test
    rows, labels = pixels(images)
    scenes, present = several_digits(images, 50, seed=0)
    assert scenes.shape == (50, 4 * rows.shape[1])
    assert present.sum(1).unique().tolist() == [1, 2, 3, 4]
    for scene, hot in zip(scenes.view(50, 4, -1), present, strict=True):
        shown = [quarter for quarter in scene if quarter.any()]
        found = {int(labels[(rows == quarter).all(1)][0]) for quarter in shown}
        assert found == set(hot.nonzero().flatten().tolist())
    again, _ = several_digits(images, 50, seed=0)
    torch.testing.assert_close(again, scenes, rtol=0, atol=0)


def test_pairs_of_digits_are_numbers():
    images = load("digits", seed=0).test
    rows, labels = pixels(images)
    pairs, numbers = two_digits(images, 20, seed=0)
    for pair, number in zip(pairs.view(20, 2, -1), numbers.tolist(), strict=True):
        left, right = (int(labels[(rows == digit).all(1)][0]) for digit in pair)
        assert number == 10 * left + right


def test_one_label_is_kept():
    _, present = several_digits(load("digits", seed=0).test, 50, seed=0)
    known = _one_of(present, seed=0)
    assert (known.sum(1) == 1).all()
    assert (known <= present).all()
    assert not torch.equal(known, _one_of(present, seed=1))


def test_top_k():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    targets = torch.tensor([1, 2])
    assert [top_k_accuracy(logits, targets, k) for k in (1, 2, 3)] == [0.0, 0.5, 1.0]


def test_fitting_lowers_the_loss_and_goes_on_with_a_given_optimizer():
    torch.manual_seed(0)
    inputs, targets = torch.randn(64, 4), torch.arange(64) % 2
    inputs[:, 0] = targets * 2.0 - 1
    network = perceptron(4, 2, width=8)
    loss = torch.nn.CrossEntropyLoss()
    before = loss(network(inputs), targets).item()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    fit_tensors(network, inputs, targets, loss, epochs=30, optimizer=optimizer)
    assert not network.training
    assert loss(network(inputs), targets).item() < before / 2
    assert optimizer.state
