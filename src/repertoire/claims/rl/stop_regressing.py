"""The claim of *Stop Regressing: Training Value Functions via Classification for Scalable Deep RL* (2024)."""

from __future__ import annotations

import torch

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron, pixels
from repertoire.data import load


@claim(
    "stop-regressing",
    statement="From noisy targets, HL-Gauss learns to predict a number with a smaller error than squared error does.",
    metric="mean squared error on test images, without noise",
    method="HL-Gauss, 51 bins",
    baseline="squared error",
    data="the number that a digit shows, with noise of standard deviation 3",
    threshold=0.0,
    higher_is_better=False,
)
def stop_regressing(budget: Budget, seed: int) -> Measured:
    """Farebrother et al., *Stop Regressing* (2024), which finds that tolerance of noise explains most of the gain."""
    splits = load("digits", seed=seed)
    inputs, labels = pixels(splits.train)
    test_inputs, test_labels = pixels(splits.test)
    noisy = labels + 3.0 * torch.randn(len(labels), generator=torch.Generator().manual_seed(seed))
    epochs = budget.pick(smoke=2, small=60, full=200)
    bins = losses.HLGauss(low=-6.0, high=15.0)

    torch.manual_seed(seed)
    network = fit_tensors(perceptron(inputs.shape[1], 51), inputs, noisy, bins, epochs=epochs)
    torch.manual_seed(seed)
    plain = fit_tensors(
        perceptron(inputs.shape[1], 1), inputs, noisy, lambda found, y: (found[:, 0] - y).square().mean(), epochs=epochs
    )
    with torch.no_grad():
        by_bins = (bins.values(network(test_inputs)) - test_labels).square().mean()
        by_square = (plain(test_inputs)[:, 0] - test_labels).square().mean()
    return Measured(float(by_bins), float(by_square))
