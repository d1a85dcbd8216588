"""Target projection in recurrent networks, against the formula written out with loops."""

from __future__ import annotations

import copy
import gc
import math
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, NonFiniteLoss, ShapeError
from repertoire.local import RecurrentTargetProjection


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def sequences(count: int = 5, steps: int = 4, width: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, steps, width, generator=generator, dtype=torch.float64), torch.arange(count) % 3


NETWORKS = {
    "tanh": lambda: nn.RNN(3, 4, num_layers=2),
    "relu": lambda: nn.RNN(3, 4, num_layers=2, nonlinearity="relu", batch_first=True),
    "gru": lambda: nn.GRU(3, 4, num_layers=2, bias=False),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2),
}


def as_cells(network: nn.RNNBase) -> list[nn.RNNCellBase]:
    """Cells with the weights of a fused network."""
    kind = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell}.get(network.mode, nn.RNNCell)
    cells = []
    for number in range(network.num_layers):
        extra = {"nonlinearity": network.nonlinearity} if kind is nn.RNNCell else {}
        cell = kind(3 if number == 0 else 4, 4, bias=network.bias, **extra).double()
        names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if network.bias else [])]
        cell.load_state_dict({name: getattr(network, f"{name}_l{number}").detach().clone() for name in names})
        cells.append(cell)
    return cells


def by_hand(cells: list, head: nn.Module, projections: list[Tensor], x: Tensor, y: Tensor, lengths: list[int]) -> list:
    """Gradients of all parameters, from the loss of the docstring, sequence by sequence and step by step."""
    total = 0.0
    steps = sum(lengths)
    for n in range(len(x)):
        states = [None] * len(cells)
        for t in range(lengths[n]):
            inp = x[n : n + 1, t]
            for index, cell in enumerate(cells):
                state = cell(inp, states[index])
                h = state[0] if isinstance(cell, nn.LSTMCell) else state
                act = torch.relu if getattr(cell, "nonlinearity", "tanh") == "relu" else torch.tanh
                total = total + 0.5 * (h - act(projections[index][y[n]])).square().sum() / steps
                states[index] = tuple(s.detach() for s in state) if isinstance(cell, nn.LSTMCell) else h.detach()
                inp = h.detach()
        total = total + F.cross_entropy(head(inp), y[n : n + 1]) / len(x)
    parameters = [p for cell in cells for p in cell.parameters()] + list(head.parameters())
    return list(torch.autograd.grad(total, parameters))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("padded", [False, True])
def test_a_step_is_what_the_formula_says(kind, padded):
    torch.manual_seed(0)
    network, head = NETWORKS[kind]().double(), nn.Linear(4, 3).double()
    x, y = sequences()
    lengths = [4, 1, 3, 2, 4] if padded else [4] * 5
    cells, reference = as_cells(network), copy.deepcopy(head)
    learner = RecurrentTargetProjection(network, head, sgd)
    expected = by_hand(cells, reference, learner.projections, x, y, lengths)
    before = [p.detach().clone() for p in (*network.parameters(), *head.parameters())]
    learner.step(x, y, torch.tensor(lengths) if padded else None)
    for a, b, gradient in zip(before, (*network.parameters(), *head.parameters()), expected, strict=True):
        torch.testing.assert_close(b.detach(), a - 0.1 * gradient)
    assert all(p.grad is None for p in (*network.parameters(), *head.parameters()))


@pytest.mark.parametrize("kind", NETWORKS)
def test_cells_and_fused_networks_are_trained_alike(kind):
    torch.manual_seed(0)
    network, head = NETWORKS[kind]().double(), nn.Linear(4, 3).double()
    cells, other_head = as_cells(network), copy.deepcopy(head)
    x, y = sequences()
    first, second = RecurrentTargetProjection(network, head, sgd), RecurrentTargetProjection(cells, other_head, sgd)
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        one, two = first.step(x, y), second.step(x, y)
    assert one.keys() == two.keys() == {"loss", "accuracy", "layer1_loss", "layer2_loss"}
    for a, b in zip(network.parameters(), (p for cell in cells for p in cell.parameters()), strict=True):
        torch.testing.assert_close(a, b)
    native = network(x if network.batch_first else x.transpose(0, 1))[0]
    last = native[:, -1] if network.batch_first else native[-1]
    torch.testing.assert_close(first.predict(x), head(last))


def test_labels_for_every_time_step():
    torch.manual_seed(0)
    x, _ = sequences()
    y = torch.arange(20).view(5, 4) % 3
    cell, head = nn.RNNCell(3, 4).double(), nn.Linear(4, 3).double()
    learner = RecurrentTargetProjection([cell], head, sgd)
    weight, hidden = head.weight.detach().clone(), []
    state = torch.zeros(5, 4, dtype=torch.float64)
    with torch.no_grad():
        for t in range(4):
            state = cell(x[:, t], state)
            hidden.append(state)
        h = torch.stack(hidden, 1).flatten(0, 1)
        error = (torch.eye(3, dtype=torch.float64)[y.flatten()] - head(h).softmax(1)) / 20
        mean = 0.5 * (h - learner.projections[0][y.flatten()].tanh()).square().sum() / 20
    logs = learner.step(x, y)
    torch.testing.assert_close(head.weight.detach(), weight + 0.1 * error.T @ h)
    torch.testing.assert_close(logs["layer1_loss"], mean)


def test_padding_changes_nothing():
    x, y = sequences()
    lengths = torch.tensor([2, 4, 1, 3, 4])
    weights = []
    for junk in (0.0, 7.0):
        torch.manual_seed(0)
        network, head = nn.GRU(3, 4).double(), nn.Linear(4, 3).double()
        learner = RecurrentTargetProjection(network, head, sgd)
        padded = torch.where(torch.arange(4)[:, None] < lengths[:, None, None], x, junk)
        learner.step(padded, y, lengths)
        per_step = torch.where(torch.arange(4) < lengths[:, None], y[:, None], -1)
        learner.step(padded, per_step, lengths)
        weights.append([*network.parameters(), *head.parameters(), learner.predict(padded, lengths)])
    for a, b in zip(*weights, strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_is_kept_of_earlier_time_steps():
    """When a time step begins, all that earlier ones had saved for their backward passes is gone."""

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    held: weakref.WeakSet[Saved] = weakref.WeakSet()
    counts: list[int] = []

    def pack(tensor: Tensor) -> Saved:
        saved = Saved(tensor)
        held.add(saved)
        return saved

    torch.manual_seed(0)
    cell = nn.GRUCell(3, 4)

    def count(*_: object) -> None:
        gc.collect()
        counts.append(len(held))

    cell.register_forward_pre_hook(count)
    cell.register_forward_hook(count)
    x, y = sequences()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        RecurrentTargetProjection([cell], nn.Linear(4, 3), sgd).step(x.float(), y)
    assert counts[0::2] == [0] * 4
    assert min(counts[1::2]) > 0


def test_it_learns_which_signal_a_sequence_began_with():
    torch.manual_seed(0)
    y = torch.arange(48) % 3
    x = 0.1 * torch.randn(48, 6, 3)
    x[torch.arange(48), 0, y] += 2
    network, head = nn.GRU(3, 24, batch_first=True), nn.Linear(24, 3)
    learner = RecurrentTargetProjection(network, head, lambda m: torch.optim.Adam(m.parameters(), lr=0.02), clip=5.0)
    for _ in range(120):
        logs = learner.step(x, y)
    assert logs["accuracy"] > 0.9
    assert (learner.predict(x).argmax(1) == y).float().mean() > 0.9


def test_the_state_comes_back():
    x, y = sequences()
    torch.manual_seed(0)
    network, head = nn.GRU(3, 4).double(), nn.Linear(4, 3).double()
    adam = lambda m: torch.optim.Adam(m.parameters(), lr=0.01)  # noqa: E731
    learner = RecurrentTargetProjection(network, head, adam)
    learner.step(x, y)
    other_network, other_head = copy.deepcopy(network), copy.deepcopy(head)
    other = RecurrentTargetProjection(other_network, other_head, adam)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    learner.step(x, y)
    other.step(x, y)
    for a, b in zip(network.parameters(), other_network.parameters(), strict=True):
        assert torch.equal(a, b)
    wider = RecurrentTargetProjection(nn.GRU(3, 5), nn.Linear(5, 3), adam)
    with pytest.raises(ConfigError, match="random matrices"):
        wider.load_state_dict(learner.state_dict())


def test_what_cannot_be_is_refused():
    head = nn.Linear(4, 3)
    for wrong, text in (
        (nn.GRU(3, 4, bidirectional=True), "one direction"),
        (nn.LSTM(3, 4, proj_size=2), "without projections"),
        (nn.GRU(3, 4, num_layers=2, dropout=0.1), "without dropout"),
        ([nn.GRUCell(3, 4), nn.GRUCell(3, 4)], "cell 2 takes 3 numbers"),
        ([nn.Linear(3, 4)], "cannot train a Linear"),
        ([], "no cells"),
    ):
        with pytest.raises(ConfigError, match=text):
            RecurrentTargetProjection(wrong, head, sgd)
    with pytest.raises(ConfigError, match="scale"):
        RecurrentTargetProjection(nn.GRU(3, 4), head, sgd, scale=0.0)
    network = nn.GRU(3, 4)
    learner = RecurrentTargetProjection(network, head, sgd)
    x, y = sequences()
    x = x.float()
    before = [p.detach().clone() for p in network.parameters()]
    for inputs, labels, lengths, text in (
        (x[0], y, None, r"inputs must be sequences \[N, T, F\]"),
        (x, y[:2], None, "labels must be integers"),
        (x, y.float(), None, "labels must be integers"),
        (x, y + 1, None, "labels must be 0 to 2"),
        (x, y, torch.zeros(5, dtype=torch.int64), "from 1 to 4"),
    ):
        with pytest.raises(ShapeError, match=text):
            learner.step(inputs, labels, lengths)
    with pytest.raises(NonFiniteLoss, match="no weight was changed"):
        learner.step(x * math.inf, y)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(p.grad is None for p in network.parameters())
