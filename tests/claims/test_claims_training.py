"""What the claims are measured with, where it can be wrong without a claim failing."""

from __future__ import annotations

import torch

from repertoire.claims._training import fit_tensors, perceptron
from repertoire.claims.weak_supervision.em_apl import _one_of


def test_one_label_is_kept():
    present = (torch.rand(50, 10, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    present[:, 3] = 1
    known = _one_of(present, seed=0)
    assert (known.sum(1) == 1).all()
    assert (known <= present).all()
    assert not torch.equal(known, _one_of(present, seed=1))


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
