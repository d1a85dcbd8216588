"""Learned factors of task vectors: their gradients, what they start as, and when learning without labels stops."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.weights import Anisotropic, TaskVector, anisotropic, task_arithmetic


def network(state=None, of=0):
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    if state is not None:
        net.load_state_dict(dict(state))
    return net


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: value.clone() for name, value in network().state_dict().items()}


X, Y = torch.randn(30, 4, generator=torch.Generator().manual_seed(9)).double(), torch.arange(30) % 3
BASE, STATES = weights(0), [weights(1), weights(2)]
VECTORS = [TaskVector(state, BASE) for state in STATES]


@pytest.mark.parametrize("partition", ["tensor", "module", "whole", 3])
def test_gradients_are_inner_products(partition):
    net = Anisotropic(network(), VECTORS, BASE, partition, seed=1)
    with torch.no_grad():
        net.coefficients.copy_(torch.rand(net.coefficients.shape, generator=torch.Generator().manual_seed(1)))
    F.cross_entropy(net(X), Y).backward()
    at = {name: value.detach().requires_grad_() for name, value in net.weights().items()}
    loss = F.cross_entropy(functional_call(network(), at, (X,)), Y)
    gradients = dict(zip(at, torch.autograd.grad(loss, list(at.values())), strict=True))
    expected = torch.zeros_like(net.coefficients, dtype=torch.float64)
    for task, vector in enumerate(VECTORS):
        for number, name in enumerate(net.names):
            product = gradients[name] * vector[name]
            if partition == 3:
                for share in range(3):
                    expected[task, 3 * number + share] = product[net._shares[name] == share].sum()
            else:
                block = {"tensor": number, "module": number // 2, "whole": 0}[partition]
                expected[task, block] += product.sum()
    torch.testing.assert_close(net.coefficients.grad.double(), expected, rtol=1e-5, atol=1e-6)


def test_ones_are_task_arithmetic_and_zeros_are_the_base():
    net = Anisotropic(network(), VECTORS, BASE)
    torch.testing.assert_close(net(X), network(BASE)(X))
    with torch.no_grad():
        net.coefficients.fill_(1)
    torch.testing.assert_close(net.weights(), task_arithmetic(STATES, BASE, scale=1.0))


def test_only_coefficients_learn():
    inner = network(BASE)
    net = Anisotropic(inner, VECTORS, BASE)
    assert [name for name, _ in net.named_parameters()] == ["coefficients"]
    told = net.train().fit(lambda: [(X[:15], Y[:15]), (X[15:], Y[15:])], steps=60, rate=0.1)
    assert len(told) == 60
    assert sum(told[-2:]) < sum(told[:2])
    assert not inner.training
    torch.testing.assert_close(dict(inner.state_dict()), BASE, rtol=0, atol=0)


def test_entropy_stops_before_everything_has_one_class():
    base = {"weight": torch.zeros(2, 1), "bias": torch.zeros(2)}
    # The only thing that can change is that the first class is named for everything.
    vector = TaskVector({"weight": torch.zeros(2, 1), "bias": torch.tensor([1.0, -1.0])}, base)

    def run(least):
        net = Anisotropic(nn.Linear(1, 2), [vector], base, "whole")
        with torch.no_grad():
            net.coefficients.fill_(0.1)
        told = net.fit(
            lambda: [(torch.ones(4, 1), torch.zeros(4))], objective="entropy", steps=200, rate=0.1, least=least
        )
        return told, net(torch.ones(1, 1)).softmax(1)[0, 0].item()

    told, sure = run(0.5)
    assert len(told) < 200
    assert 0.8 < sure < 0.9  # an entropy of half of log 2 is at 0.89
    assert run(0.0)[1] > 0.99


def test_the_operator_learns_from_all_runs_with_their_own_heads():
    base = {"0.weight": torch.eye(2)}
    states = [
        {"0.weight": torch.tensor([[2.0, 0.0], [0.0, 1.0]])},
        {"0.weight": torch.tensor([[1.0, 0.0], [0.0, 3.0]])},
    ]
    heads = [torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0]])]

    def network(state, of=0):
        net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        net.load_state_dict({**state, "1.weight": heads[of]})
        return net

    def batches(of):
        yield torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)

    found = anisotropic(states, base, network, batches, steps=40, rate=0.1)
    # Each head asks for more of its own direction.
    assert found["0.weight"][0, 0] > 1.5
    assert found["0.weight"][1, 1] > 2.0
    assert found["0.weight"][0, 1] == 0


def test_batch_statistics_are_those_of_the_network_in_between():
    """Both runs have statistics of other samples; the network between them is to be learned with those of its own."""
    seen = []

    class Watched(nn.BatchNorm1d):
        def forward(self, x):
            if not self.training:
                seen.append(self.running_mean.clone())
            return super().forward(x)

    def network(state, of=0):
        net = nn.Sequential(nn.Linear(2, 2, bias=False), Watched(2), nn.Linear(2, 2))
        net.load_state_dict(dict(state))
        return net.eval()

    def batches(of):
        yield torch.tensor([[1.0, 2.0], [3.0, 6.0]]), torch.tensor([0, 1])

    torch.manual_seed(0)
    base = dict(
        network(
            nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 2)).state_dict()
        ).state_dict()
    )
    fine = [
        base | {"0.weight": base["0.weight"] + k, "1.running_mean": torch.full((2,), 100.0 * k)} for k in (1.0, 2.0)
    ]
    anisotropic(fine, base, network, batches, steps=4, start=0.5, rate=1e-6)
    weight = base["0.weight"] + 0.5 * 1.0 + 0.5 * 2.0
    expected = (next(batches(None))[0] @ weight.T).mean(0)
    assert len(seen) == 4
    for mean in seen:
        torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-4)


def test_a_step_looks_at_so_many_images_and_a_long_time_is_foretold(monkeypatch):
    seen, told = [], []

    class Watched(nn.Linear):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    def network(state, of=0):
        net = Watched(1, 2, bias=False)
        net.load_state_dict(dict(state))
        return net

    def batches(of):
        yield torch.ones(10, 1), torch.zeros(10, dtype=torch.int64)

    base, fine = {"weight": torch.zeros(2, 1)}, {"weight": torch.ones(2, 1)}
    anisotropic([fine, fine], base, network, batches, steps=6, images=4, report=told.append)
    assert seen == [4, 4, 4, 4, 2, 2]  # the two runs take turns
    assert told == []
    times = iter([0.0, 2.0])
    monkeypatch.setattr("repertoire.weights._pace.time.monotonic", lambda: next(times))
    anisotropic([fine, fine], base, network, batches, steps=102, images=4, report=told.append)
    assert told == ["factors are learned in 102 steps of 4 images: about 3 minutes; fewer: steps=..., or images=..."]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="vectors is empty"):
        Anisotropic(network(), [], BASE)
    with pytest.raises(ConfigError, match="no tensor that is a parameter"):
        Anisotropic(network(), [TaskVector({"other": torch.ones(1)})], BASE)
    with pytest.raises(ConfigError, match="batches is empty"):
        Anisotropic(network(), VECTORS, BASE).fit(list)
