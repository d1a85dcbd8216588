"""The helpers of the claims on optimisation, on cases whose answer is known."""

from __future__ import annotations

import pytest
import torch

from repertoire.claims._training import perceptron
from repertoire.claims.diagnostics import loss_landscape as claims


def test_a_rescaled_network_computes_the_same():
    network, x = perceptron(6, 4, 8), torch.randn(9, 6)
    torch.testing.assert_close(claims._rescaled(network)(x), network(x))
    assert not torch.equal(claims._rescaled(network)[0].weight, network[0].weight)


def test_rank_correlation():
    assert claims._rank_correlation([1, 2, 30], [0.1, 0.2, 0.3]) == pytest.approx(1)
    assert claims._rank_correlation([3, 2, 1], [0.1, 0.2, 0.3]) == pytest.approx(-1)
    assert claims._rank_correlation([1, 1], [0.1, 0.2]) == 0
