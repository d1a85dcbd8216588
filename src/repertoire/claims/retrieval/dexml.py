"""The claim of *Dual-Encoders for Extreme Multi-Label Classification* (2023)."""

from __future__ import annotations

import torch
from sklearn.metrics import label_ranking_average_precision_score
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron
from repertoire.claims.beds.digits import several_digits
from repertoire.data import load


def _shared_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    """One softmax over all labels, in which those of a sample compete with each other."""
    return -(targets * logits.log_softmax(1)).sum(1).mean()


@claim(
    "dexml",
    statement=(
        "A network trained with the decoupled softmax ranks the labels of an image further above the others than one "
        "trained with a single softmax over all labels."
    ),
    metric="label ranking average precision on test images",
    method="decoupled softmax",
    baseline="one softmax",
    data="scenes of one to four digits",
    threshold=0.0,
)
def dexml(budget: Budget, seed: int) -> Measured:
    """Gupta et al., *Dual-Encoders for Extreme Multi-Label Classification* (2024): the loss, on a small classifier."""
    splits = load("digits", seed=seed)
    inputs, targets = several_digits(splits.train, budget.pick(smoke=300, small=3000, full=30_000), seed)
    test_inputs, test_targets = several_digits(splits.test, 1000, seed + 1)
    found = []
    for loss in (losses.DecoupledSoftmax(), _shared_softmax):
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 10)
        fit_tensors(network, inputs, targets, loss, epochs=budget.pick(smoke=1, small=30, full=60))
        with torch.no_grad():
            scores = network(test_inputs).numpy()
        found.append(float(label_ranking_average_precision_score(test_targets.numpy(), scores)))
    decoupled, shared = found
    return Measured(decoupled, shared)
