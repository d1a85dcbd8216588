"""The claim of *A step towards understanding why classification helps regression* (2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron

BINS = 20


def _waves(numbers: Tensor, generator: torch.Generator) -> Tensor:
    """Sixteen noisy measurements of each number in [0, 1], float `[N, 16]`: sines and cosines of growing frequency."""
    angles = numbers[:, None] * (math.pi * torch.arange(1, 9) / 2)
    clean = torch.cat([angles.sin(), angles.cos()], 1)
    return clean + 0.5 * torch.randn(clean.shape, generator=generator)


@claim(
    "classification-helps-regression",
    statement=(
        "Where some numbers are rare in training and not in the test, cross-entropy on bins beside the squared error "
        "makes the error smaller."
    ),
    metric="mean squared error on test samples in which all numbers are equally common",
    method="squared error and cross-entropy on 20 bins, its weight chosen on validation samples",
    baseline="squared error",
    data="numbers from 16 noisy measurements; density of the numbers falls twentyfold over their range",
    threshold=0.0,
    higher_is_better=False,
)
def classification_helps_regression(budget: Budget, seed: int) -> Measured:
    """Pintea et al., *A step towards understanding why classification helps regression* (2023).

    `extra` has the same with training numbers that are equally common, where the paper expects little.
    """
    generator = torch.Generator().manual_seed(seed)
    count = budget.pick(smoke=200, small=1000, full=20_000)
    uniform = torch.rand(count, generator=generator)
    # The density of these falls exponentially, from 1 to 1/20 of it.
    skewed = -torch.log1p(-uniform * (1 - 1 / 20)) / math.log(20)
    validation, test = torch.rand(2, 1000, generator=generator)
    validation_inputs, test_inputs = _waves(validation, generator), _waves(test, generator)
    epochs = budget.pick(smoke=1, small=40, full=100)

    def errors(numbers: Tensor) -> tuple[float, float]:
        """Test errors with and without the classification."""
        inputs = _waves(numbers, generator)
        mean, deviation = numbers.mean(), numbers.std()
        targets = (numbers - mean) / deviation
        edges = losses.bin_edges(targets, BINS)

        def fit(scale: float) -> tuple[float, float]:
            torch.manual_seed(seed)
            network = perceptron(inputs.shape[1], 1 + BINS, width=64)
            fit_tensors(network, inputs, targets, losses.RegressionWithClasses(edges, scale), epochs=epochs)

            def error(x: Tensor, y: Tensor) -> float:
                with torch.no_grad():
                    return float((network(x)[:, 0] * deviation + mean - y).square().mean())

            return error(validation_inputs, validation), error(test_inputs, test)

        tried = [fit(scale) for scale in budget.pick(smoke=(1.0,), small=(0.1, 1.0, 10.0), full=(0.1, 1.0, 10.0))]
        return min(tried)[1], fit(0.0)[1]

    ours, plain = errors(skewed)
    common = dict(zip(("all equally common: with", "all equally common: without"), errors(uniform), strict=True))
    return Measured(ours, plain, common)
