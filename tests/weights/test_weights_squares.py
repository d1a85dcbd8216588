"""Squared gradients of linear layers by a product of matrices, and which layers that would be wrong of."""

from __future__ import annotations

import pytest
import torch
from test_weights_fisher import slowly
from torch import Tensor, nn

from repertoire.weights import fisher_diagonal
from repertoire.weights._squares import Squares


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


class Twice(nn.Module):
    """One layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).tanh())


class ReadElsewhere(nn.Module):
    """A layer whose weight is read once more, past it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x).tanh() * self.layer.weight.sum(1))


class Tokens(nn.Module):
    """A layer that looks at several vectors of a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(2, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x.view(len(x), 2, 2)).tanh().sum(1))


class Attending(nn.Module):
    """A layer inside of another, which reads its weight without it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(2, 1, batch_first=True), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.view(len(x), 2, 2)
        return self.last(self.attention(tokens, tokens, tokens)[0].sum(1))


def computed() -> nn.Module:
    return nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 3))


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3, bias=False))


CASES = {
    "plain": (plain, {"0", "3"}),
    "tied": (Tied, set()),
    "twice": (Twice, set()),
    "read elsewhere": (ReadElsewhere, {"last"}),
    "tokens": (Tokens, {"last"}),
    "attention": (Attending, {"last"}),
    "computed weight": (computed, {"2"}),
}


@pytest.mark.parametrize("case", CASES)
def test_only_layers_that_it_is_right_for(case):
    make, layers = CASES[case]
    torch.manual_seed(0)
    net, x = make().double().eval(), torch.randn(7, 4, dtype=torch.float64)
    squares = Squares(net, dict(net.named_parameters()), dict(net.named_buffers()), x[:1])
    assert set(squares.layers) == layers
    torch.testing.assert_close(fisher_diagonal(net, [x[:4], x[4:]]), slowly(net, x))
    assert not any(module._forward_hooks for module in net.modules())


def test_weights_that_are_frozen_count_as_well():
    net, x = plain().double().eval(), torch.randn(5, 4, dtype=torch.float64)
    wanted = slowly(net, x)
    torch.testing.assert_close(fisher_diagonal(net.requires_grad_(False), [x]), wanted)


def test_of_a_layer_it_keeps_inputs_and_not_gradients():
    net, x = plain().eval(), torch.randn(5, 4)
    squares = Squares(net, dict(net.named_parameters()), dict(net.named_buffers()), x[:1])
    norm = 2 * 5
    assert squares.numbers == norm + (4 + 5) + (5 + 3)
