"""The virtual adversarial loss against closed forms, Hessians by autograd, and what its passes may not leave behind."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.losses import virtual_adversarial_loss
from repertoire.ops import adversarial_direction, rewinding


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def softmax(row: Tensor) -> list[float]:
    total = sum(math.exp(value) for value in row.tolist())
    return [math.exp(value) / total for value in row.tolist()]


def test_is_the_divergence_along_the_direction_that_was_found():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    torch.manual_seed(1)
    found = virtual_adversarial_loss(network, x, epsilon=0.7, steps=2, reduction="none")
    torch.manual_seed(1)
    start = torch.randn(6, 5)
    direction = adversarial_direction(network, x, start=start, steps=2)
    expected = [
        divergence(softmax(a), softmax(b)) for a, b in zip(network(x), network(x + 0.7 * direction), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_of_a_linear_model_of_two_classes_it_has_a_closed_form():
    """The worst change of length epsilon moves the difference of the logits by epsilon times its gradient's length."""
    torch.manual_seed(0)
    weight = torch.randn(2, 9, dtype=torch.float64)
    x = 0.2 * torch.randn(5, 9, dtype=torch.float64)
    epsilon = 0.3
    slope = float((weight[0] - weight[1]).norm())
    found = virtual_adversarial_loss(lambda z: z @ weight.T, x, epsilon=epsilon, steps=3, reduction="none")
    for value, z in zip(found.tolist(), (x @ (weight[0] - weight[1])).tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        moved = [1 / (1 + math.exp(-(z + sign * epsilon * slope))) for sign in (-1, 1)]
        either = [divergence([p, 1 - p], [q, 1 - q]) for q in moved]
        assert any(value == pytest.approx(one, rel=1e-4) for one in either)


def test_of_small_changes_it_is_half_the_first_eigenvalue():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(4, 4, dtype=torch.float64)
    epsilon = 1e-3
    found = virtual_adversarial_loss(network, x, epsilon=epsilon, steps=50, reduction="none")
    for value, one in zip(found.tolist(), x, strict=True):
        p = network(one[None]).softmax(1).detach()
        hessian = torch.autograd.functional.hessian(
            lambda r, p=p, one=one: -(p * network((one + r)[None]).log_softmax(1)).sum(), torch.zeros_like(one)
        )
        largest = float(torch.linalg.eigvalsh(hessian)[-1])
        assert value == pytest.approx(0.5 * epsilon**2 * largest, rel=0.01)


def test_found_directions_are_worse_than_random_ones():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(50, 32), nn.ReLU(), nn.Linear(32, 5))
    x = torch.randn(64, 50)
    found, drawn = (float(virtual_adversarial_loss(network, x, epsilon=1.0, steps=s).detach()) for s in (1, 0))
    assert found > 3 * drawn > 0


class Noisy(nn.Module):
    """Batch normalisation and dropout; notes what its dropout let through in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.norm = nn.BatchNorm1d(16)
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Linear(16, 3)
        self.masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        self.masks.append(self.dropout(torch.ones_like(x)))
        return self.last(x * self.masks[-1])


@pytest.mark.parametrize("known", [False, True])
def test_passes_share_their_dropout_masks_and_leave_statistics_alone(known: bool):
    torch.manual_seed(0)
    network, x = Noisy().train(), torch.randn(8, 6)
    options = {}
    if known:
        options["rewind"] = rewinding(x.device)
        options["logits"] = network(x)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    virtual_adversarial_loss(network, x, **options).backward()
    assert len(network.masks) == 3
    assert all(torch.equal(mask, network.masks[0]) for mask in network.masks)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("known", [False, True])
def test_what_is_drawn_next_is_drawn_anew(known: bool):
    network, x = nn.Linear(6, 3), torch.randn(4, 6)
    starts = []

    def watched(z: Tensor) -> Tensor:
        if not torch.equal(z, x):
            starts.append(z.detach())
        return network(z)

    for _ in range(2):
        options = {"rewind": rewinding(x.device), "logits": network(x)} if known else {}
        virtual_adversarial_loss(watched, x, **options)
    assert not torch.allclose(starts[0], starts[2])


def test_gradients_flow_through_the_changed_inputs_alone():
    torch.manual_seed(0)
    network = nn.Linear(4, 3).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    logits = network(x)
    torch.manual_seed(2)
    virtual_adversarial_loss(network, x, logits=logits, epsilon=0.5).backward()
    assert x.grad is None
    torch.manual_seed(2)
    start = torch.randn(5, 4)
    moved = x.detach() + 0.5 * adversarial_direction(network, x, start=start)
    p, q = logits.detach().softmax(1), network(moved).softmax(1)
    torch.testing.assert_close(network.weight.grad, ((q - p).T @ moved / 5).detach())


def test_corners():
    network = nn.Linear(4, 3)
    assert virtual_adversarial_loss(network, torch.randn(0, 4)) == 0
    assert float(virtual_adversarial_loss(network, torch.randn(3, 4), epsilon=0.0).detach()) == pytest.approx(
        0, abs=1e-6
    )
    logits = virtual_adversarial_loss(lambda z: 1e4 * z @ torch.eye(4), torch.randn(3, 4))
    assert logits.isfinite()
    half = virtual_adversarial_loss(nn.Linear(4, 3).bfloat16(), torch.randn(3, 4).bfloat16())
    assert half.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert virtual_adversarial_loss(network, torch.randn(3, 4)).isfinite()
    with pytest.raises(ConfigError, match="epsilon must be 0 or more"):
        virtual_adversarial_loss(network, torch.randn(3, 4), epsilon=-1.0)


def test_mixed_precision_finds_the_direction_of_full_precision():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(50, 32), nn.ReLU(), nn.Linear(32, 5))
    x = torch.randn(32, 50)
    values = []
    for enabled in (False, True):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = network(x)
            values.append(float(virtual_adversarial_loss(network, x, logits=logits, rewind=lambda: None).detach()))
    assert values[1] == pytest.approx(values[0], rel=0.05)
    assert F.cross_entropy(network(x), torch.zeros(32, dtype=torch.int64)).isfinite()
