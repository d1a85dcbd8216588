"""The claim of *EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification* (2024)."""

from __future__ import annotations

import torch

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron, pixels
from repertoire.data import load


@claim(
    "ensloss",
    statement="A network that can overfit is more accurate on test images with EnsLoss than with the logistic loss.",
    metric="test accuracy",
    method="EnsLoss",
    baseline="logistic loss",
    data="digits, odd against even, a quarter of the training images",
    threshold=0.0,
)
def ensloss(budget: Budget, seed: int) -> Measured:
    """Dai, *EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification* (2025)."""
    splits = load("digits", seed=seed)
    inputs, labels = pixels(splits.train)
    inputs, odd = inputs[::4], labels[::4] % 2
    test_inputs, test_labels = pixels(splits.test)

    def found(loss: losses.LogitsLoss) -> float:
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 2)
        fit_tensors(network, inputs, odd, loss, epochs=budget.pick(smoke=2, small=200, full=1000))
        with torch.no_grad():
            return float((network(test_inputs).argmax(1) == test_labels % 2).float().mean())

    return Measured(found(losses.EnsLoss()), found(losses.CrossEntropy()))
