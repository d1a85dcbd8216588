"""The claims of *Decoding-based Regression* (2025)."""

from __future__ import annotations

import math

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.frozen import Rows, body, epochs_for, fitted, patches, predictor
from repertoire.claims.beds.raw import raw_patches
from repertoire.heads import DigitDecoder

RATE = 1e-3
RANGE = 4.0
"""Numbers have a deviation of 1; digits tell those of this size at most."""


class Digits(nn.Module):
    """A network and the decoder on its features; called with the inputs, it gives the features."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.body = body(inputs)
        self.decoder = DigitDecoder(128, length=8, low=-RANGE, high=RANGE)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs)


@arm
def written(budget: Budget, seed: int, *, rate: float) -> dict[str, float]:
    """Numbers of patches of ground, written digit by digit."""
    rows = patches(budget, seed)
    torch.manual_seed(seed)
    network = Digits(rows.x.shape[1])
    fitted(rows, network.decoder.loss, network, epochs=epochs_for(budget, len(rows.x)), rate=rate)
    with torch.no_grad():
        chosen, found = (network.decoder.mean(network(x)) for x in (rows.val_x, rows.test_x))
        density = network.decoder.log_density(network(rows.test_x), rows.test_y).mean()
    return _told(rows, chosen, found, float(density))


@arm
def pointwise(budget: Budget, seed: int, *, rate: float) -> dict[str, float]:
    """The same numbers by least squares; a density is normal, with the deviation of the validation rows' residuals."""
    rows = patches(budget, seed)
    network = predictor(rows, _squared, 1, seed, epochs_for(budget, len(rows.x)), rate)
    with torch.no_grad():
        chosen, found = (network(x)[:, 0] for x in (rows.val_x, rows.test_x))
    normal = torch.distributions.Normal(found, (chosen - rows.val_y).square().mean().sqrt())
    return _told(rows, chosen, found, float(normal.log_prob(rows.test_y).mean()))


def _squared(found: Tensor, numbers: Tensor) -> Tensor:
    return F.mse_loss(found[:, 0], numbers)


def _told(rows: Rows, chosen: Tensor, found: Tensor, density: float) -> dict[str, float]:
    return {
        "tau": _tau(found, rows.test_y),
        "validation": _tau(chosen, rows.val_y),
        "log density": density,
        "squared error": float((found - rows.test_y).square().mean()),
    }


def _tau(numbers: Tensor, truth: Tensor) -> float:
    return float(kendalltau(numbers.cpu().numpy(), truth.cpu().numpy()).statistic)


def _ranked(budget: Budget, seed: int) -> float:
    """Rank correlation of what needs no training."""
    rows = patches(budget, seed)
    return max(_tau(found, rows.test_y) for found in raw_patches(rows)[1:])


def _density(budget: Budget, seed: int) -> float:
    """Log density of a normal distribution round the same, with the deviation that makes it largest."""
    rows = patches(budget, seed)
    least = min(float((found - rows.test_y).square().mean()) for found in raw_patches(rows))
    return -0.5 * (math.log(2 * math.pi * least) + 1)


@claim(
    "decoding-based-regression",
    statement=(
        "A network that writes a number digit by digit ranks test samples about as well as one trained by least "
        "squares: its rank correlation is no more than 0.01 lower."
    ),
    metric="Kendall's rank correlation on test patches",
    method="eight binary digits, the mean of their distribution",
    baseline="one output, squared error",
    data="Landsat, 6,435 patches: the middle pixel from those round it",
    bed="landsat",
    threshold=-0.01,
    strict=False,
    learned=0.0,
    floor=_ranked,
    guard="the better of the five nearest neighbours and the mean of the four pixels beside the middle one",
)
def decoding(budget: Budget, seed: int) -> Measured:
    """Song and Bahri, *Decoding-based Regression* (2025), whose first claim is to lose nothing. `extra` has the mean
    squared errors: that of the digits is a third larger."""
    ours, plain = written(budget, seed, rate=RATE), pointwise(budget, seed, rate=RATE)
    extra = {"digits: squared error": ours["squared error"], "one output: squared error": plain["squared error"]}
    return Measured(ours["tau"], plain["tau"], extra)


@claim(
    "decoding-based-regression",
    part="density",
    statement=(
        "A network that writes a number digit by digit gives test samples a larger density than a normal distribution "
        "round the answer of one trained by least squares."
    ),
    metric="mean log density of test patches",
    method="eight binary digits",
    baseline="one output, a normal distribution with one deviation",
    data="Landsat, 6,435 patches: the middle pixel from those round it",
    bed="landsat",
    threshold=0.05,
    learned=0.05,
    floor=_density,
    guard="a normal distribution round the five nearest neighbours, or the mean of the four pixels beside it",
)
def decoding_density(budget: Budget, seed: int) -> Measured:
    """Song and Bahri (2025), whose second claim is to describe any distribution."""
    return Measured(written(budget, seed, rate=RATE)["log density"], pointwise(budget, seed, rate=RATE)["log density"])
