"""The claim of *EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification* (2024)."""

from __future__ import annotations

import torch

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import Classifier, epochs_for, fitted, photographs, shares

CAT, DOG = 3, 5

RATE = 3e-4


def told_apart(budget: Budget, seed: int, loss: losses.LogitsLoss, rate: float) -> tuple[float, float, float]:
    """Accuracy on training, validation and test photographs of a network trained with a loss."""
    rows = photographs(budget, seed, 100, (CAT, DOG))
    torch.manual_seed(seed)
    network = Classifier(rows.x.shape[1], "linear", int(rows.y.max()) + 1)
    fitted(rows, loss, network, epochs=epochs_for(budget, len(rows.x)), rate=rate)
    with torch.no_grad():
        seen, chosen, unseen = (
            shares(network(x), y)["accuracy"]
            for x, y in ((rows.x, rows.y), (rows.val_x, rows.val_y), (rows.test_x, rows.test_y))
        )
    return seen, chosen, unseen


@claim(
    "ensloss",
    statement="A network that can overfit is more accurate on test images with EnsLoss than with the logistic loss.",
    metric="test accuracy",
    method="EnsLoss",
    baseline="logistic loss",
    data="CIFAR-10, frozen features of a pretrained network: cats and dogs, 100 of each",
    bed="cifar10-lite0",
    threshold=0.005,
    learned=0.1,
    trivial=0.5,
    draws=5,
)
def ensloss(budget: Budget, seed: int) -> Measured:
    """Dai, *EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in Classification* (2025), on
    pairs of classes of CIFAR-10 as in the paper. `extra` has the accuracies on the training images, which say whether
    there was something to prevent."""
    ours = told_apart(budget, seed, losses.EnsLoss(), RATE)
    plain = told_apart(budget, seed, losses.CrossEntropy(), RATE)
    return Measured(ours[2], plain[2], {"EnsLoss: training": ours[0], "logistic: training": plain[0]})
