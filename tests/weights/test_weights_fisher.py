"""Fisher information against its closed form and loops over samples and classes, and the mean that it weighs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import fisher, fisher_average, fisher_diagonal, uniform_soup


def slowly(net: nn.Module, inputs: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
    """Sample by sample and class by class, with plain backward passes."""
    total = {name: torch.zeros_like(value) for name, value in net.named_parameters()}
    for i, x in enumerate(inputs):
        log_p = net(x[None]).log_softmax(1)[0]
        for c in range(len(log_p)):
            share = log_p[c].exp().detach() if labels is None else float(c == labels[i])
            gradients = torch.autograd.grad(log_p[c], list(net.parameters()), retain_graph=True)
            for (name, _), gradient in zip(net.named_parameters(), gradients, strict=True):
                total[name] += share * gradient.square()
    return {name: value / len(inputs) for name, value in total.items()}


def test_of_logistic_regression_it_is_the_closed_form():
    layer = nn.Linear(3, 2).double()
    with torch.no_grad():  # the second class has the logit 0
        layer.weight[1] = layer.bias[1] = 0
    x = torch.randn(50, 3, dtype=torch.float64)
    p = (x @ layer.weight[0] + layer.bias[0]).sigmoid().detach()
    found = fisher_diagonal(layer, [x])
    torch.testing.assert_close(found["weight"][0], (x.T @ torch.diag(p * (1 - p)) @ x).diagonal() / 50)
    torch.testing.assert_close(found["bias"], (p * (1 - p)).mean().expand(2))


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3))
    net.double()(torch.randn(20, 1, 3, 3, dtype=torch.float64))  # statistics that are not 0 and 1
    return net


@pytest.mark.parametrize("pieces", [False, True])
def test_agrees_with_a_loop_over_samples_and_classes(pieces, monkeypatch):
    if pieces:
        monkeypatch.setattr("repertoire.weights._fisher.LARGEST", 200)
    net = network().train()
    x, y = torch.randn(9, 1, 3, 3, dtype=torch.float64), torch.arange(9) % 3
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = fisher_diagonal(net, [x[:5], x[5:]])
    given = fisher_diagonal(net, [Batch((x[:5],), y[:5], y[:5]), Batch((x[5:],), y[5:], y[5:])], labels="given")
    some = fisher_diagonal(net, [(x[:5], y[:5]), (x[5:], y[5:])], samples=7)
    assert net.training
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    net.eval()
    torch.testing.assert_close(found, slowly(net, x))
    torch.testing.assert_close(given, slowly(net, x, y))
    torch.testing.assert_close(some, slowly(net, x[:7]))
    assert not torch.allclose(given["5.weight"], found["5.weight"])


def test_of_many_classes_labels_are_drawn(monkeypatch):
    net = network().eval()
    x = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    exact = fisher_diagonal(net, [x])
    monkeypatch.setattr("repertoire.weights._fisher.EXACT", 2)
    drawn = fisher_diagonal(net, [x.repeat(500, 1, 1, 1)], seed=1)
    torch.testing.assert_close(drawn["5.weight"], exact["5.weight"], rtol=0.2, atol=1e-3)
    torch.testing.assert_close(fisher_diagonal(net, [x], seed=1), fisher_diagonal(net, [x], seed=1), rtol=0, atol=0)


def states() -> list[dict[str, Tensor]]:
    return [
        {"w": torch.tensor([1.0, 2.0]), "mean": torch.tensor([4.0]), "steps": torch.tensor(3)},
        {"w": torch.tensor([5.0, 6.0]), "mean": torch.tensor([8.0]), "steps": torch.tensor(4)},
    ]


def test_equal_information_is_averaging():
    same = [{"w": torch.tensor([0.3, 2.0])}] * 2
    for normalise in (False, True):
        found = fisher_average(states(), same, normalise=normalise)
        torch.testing.assert_close(found, uniform_soup(states()), rtol=1e-6, atol=0)


def test_what_one_model_does_not_know_is_the_others():
    known = [{"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 0.0])}]
    found = fisher_average(states(), known)["w"]
    torch.testing.assert_close(found, torch.tensor([5.0, 2.0]), rtol=0, atol=1e-4)
    none = fisher_average(states(), [{"w": torch.zeros(2)}] * 2, weights=(3.0, 1.0), floor=0.0)["w"]
    torch.testing.assert_close(none, torch.tensor([2.0, 3.0]))


def test_weights_and_norms_count():
    known = [{"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([0.6, 0.8])}]  # norms of 5 and 1
    plain = fisher_average(states(), known, weights=(1.0, 3.0), floor=0.0, normalise=False)
    torch.testing.assert_close(plain["w"], torch.tensor([(3 + 1.8 * 5) / 4.8, (8 + 2.4 * 6) / 6.4]))
    torch.testing.assert_close(plain["mean"], torch.tensor([7.0]))
    even = fisher_average(states(), known, weights=(1.0, 3.0))
    torch.testing.assert_close(even["w"], torch.tensor([4.0, 5.0]), rtol=1e-5, atol=0)


def test_the_operator_measures_each_model_on_its_own_data():
    def network(state, of=0):
        layer = nn.Linear(2, 2, bias=False)
        layer.load_state_dict(dict(state))
        return layer

    given = [{"weight": torch.tensor([[1.0, -1.0], [0.5, 2.0]])}, {"weight": torch.tensor([[0.0, 1.0], [2.0, 1.0]])}]
    rows = [torch.tensor([[1.0, 0.2]]), torch.tensor([[0.3, 2.0]])]
    found = fisher(given, network, lambda of: iter([rows[of]]), weights=(1.0, 2.0))
    information = [fisher_diagonal(network(s), [x]) for s, x in zip(given, rows, strict=True)]
    torch.testing.assert_close(found, fisher_average(given, information, weights=(1.0, 2.0)), rtol=0, atol=0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="one mapping for each of the 2 states, found 1"):
        fisher_average(states(), [{"w": torch.ones(2)}])
    with pytest.raises(CheckpointError, match="the information is not of the architecture"):
        fisher_average(states(), [{"w": torch.ones(2)}, {"w": torch.ones(3)}])
    with pytest.raises(ConfigError, match="batches is empty"):
        fisher_diagonal(nn.Linear(2, 2), [])
    with pytest.raises(ConfigError, match="needs the targets"):
        fisher_diagonal(nn.Linear(2, 2), [torch.ones(1, 2)], labels="given")
