"""Diagnostics that run a model leave the caller's batches alone, whatever the model does to its input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.diagnostics import (
    Hessian,
    activation_sparsity,
    gradient_noise_scale,
    hessian_trace,
    landscape_convergence,
    loss_landscape,
    lpntk,
    random_directions,
    sharpness,
)


class Net(nn.Module):
    """Normalises its input, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.in_place = in_place
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            x.sub_(0.5).mul_(2.0)
        else:
            x = (x - 0.5) * 2.0
        return self.layers(x)


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(8, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)) for _ in range(3)]


def spread(model: nn.Module, given: list[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.tensor([layer.active for layer in activation_sparsity(model, [x for x, _ in given])])


def landscape(model: nn.Module, given: list[tuple[Tensor, Tensor]]) -> Tensor:
    return loss_landscape(model, given, random_directions(model, 1), x=5).loss


MEASURES = {
    "sparsity": spread,
    "landscape": landscape,
    "trace": lambda model, given: torch.tensor(hessian_trace(Hessian(model, given), 3).value),
    "sharpness": lambda model, given: torch.tensor(sharpness(model, given).worst),
    "gradient noise": lambda model, given: torch.tensor(gradient_noise_scale(model, given).noise),
    "convergence": lambda model, given: landscape_convergence(model, *given[0], F.cross_entropy).change,
    "lpntk": lambda model, given: lpntk(model, *given[0]),
}


@pytest.mark.parametrize("name", list(MEASURES))
def test_a_model_that_overwrites_its_input_is_measured_as_its_twin(name):
    expected, given = MEASURES[name](Net(False), batches()), batches()
    found = MEASURES[name](Net(True), given)
    torch.testing.assert_close(found, expected)
    for (x, _), (before, _) in zip(given, batches(), strict=True):
        torch.testing.assert_close(x, before, rtol=0, atol=0)
