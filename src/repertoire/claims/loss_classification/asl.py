"""The claim of *Asymmetric Loss For Multi-Label Classification* (2020)."""

from __future__ import annotations

import torch
from sklearn.metrics import average_precision_score

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron
from repertoire.claims.beds.digits import several_digits
from repertoire.data import load


@claim(
    "asl",
    statement="The asymmetric loss ranks the images of each label better than binary cross-entropy.",
    metric="mean average precision over labels",
    method="asymmetric loss",
    baseline="binary cross-entropy",
    data="scenes of one to four digits",
    threshold=0.0,
)
def asl(budget: Budget, seed: int) -> Measured:
    """Ridnik et al., *Asymmetric Loss For Multi-Label Classification* (2021)."""
    splits = load("digits", seed=seed)
    count = budget.pick(smoke=300, small=3000, full=30_000)
    inputs, targets = several_digits(splits.train, count, seed)
    test_inputs, test_targets = several_digits(splits.test, 1000, seed + 1)

    def precision(loss: losses.Asymmetric) -> float:
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 10)
        fit_tensors(network, inputs, targets, loss, epochs=budget.pick(smoke=1, small=30, full=60))
        with torch.no_grad():
            return float(average_precision_score(test_targets.numpy(), network(test_inputs).numpy(), average="macro"))

    plain = losses.Asymmetric(gamma_negative=0.0, margin=0.0)  # binary cross-entropy, with the same sum over labels
    return Measured(precision(losses.Asymmetric()), precision(plain))
