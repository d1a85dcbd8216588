"""The claim of *Learning to Reject with a Fixed Predictor: Application to Decontextualization* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron, pixels
from repertoire.data import load


@claim(
    "reject-fixed-predictor",
    statement=(
        "A rejector trained with the surrogate costs less than a threshold on the probability of a fixed predictor, "
        "where a wrong answer costs 1 and a rejected one c."
    ),
    metric="mean cost on test images, c = 0.1",
    method="trained rejector",
    baseline="threshold 1 - c on the largest probability",
    data="digits, of which one half is noisy",
    threshold=0.0,
    higher_is_better=False,
)
def reject(budget: Budget, seed: int) -> Measured:
    """Mohri et al., *Learning to Reject with a Fixed Predictor* (2024).

    The predictor sees clean digits only, so its probabilities mislead on noisy ones; the rejector learns from noisy and
    clean digits whether it was right.
    """
    cost = 0.1
    splits = load("digits", seed=seed)
    generator = torch.Generator().manual_seed(seed)

    def half_noisy(inputs: Tensor) -> Tensor:
        noise = 0.5 * torch.randn(inputs.shape, generator=generator)
        return inputs + noise * (torch.rand(len(inputs), 1, generator=generator) < 0.5)

    inputs, targets = pixels(splits.train)
    half = len(inputs) // 2
    epochs = budget.pick(smoke=2, small=60, full=200)
    predictor = perceptron(inputs.shape[1], 10)
    fit_tensors(predictor, inputs[:half], targets[:half], losses.CrossEntropy(), epochs=epochs)
    rest = half_noisy(inputs[half:].repeat(4, 1))
    test_inputs, test_targets = pixels(splits.test)
    test_inputs = half_noisy(test_inputs)
    with torch.no_grad():
        right = (predictor(rest).argmax(1) == targets[half:].repeat(4)).float()[:, None]
        probabilities = predictor(test_inputs).softmax(1)
    rejector = perceptron(inputs.shape[1], 1)
    fit_tensors(rejector, rest, right, losses.Reject(cost), epochs=epochs)
    with torch.no_grad():
        accepted = rejector(test_inputs)[:, 0] > 0
    wrong = probabilities.argmax(1) != test_targets

    def price(accepted: Tensor) -> float:
        return float(torch.where(accepted, wrong.float(), cost).mean())

    sure = probabilities.amax(1) > 1 - cost
    extra = {"rejector: coverage": float(accepted.float().mean()), "threshold: coverage": float(sure.float().mean())}
    return Measured(price(accepted), price(sure), extra)
