"""The claim of *Acknowledging the Unknown for Multi-label Learning with Single Positive Labels* (2022)."""

from __future__ import annotations

import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron
from repertoire.claims.beds.digits import several_digits
from repertoire.data import load


def _one_of(targets: Tensor, seed: int) -> Tensor:
    """Multi-hot targets of which one label a sample is kept, drawn at random."""
    draw = torch.rand(targets.shape, generator=torch.Generator().manual_seed(seed))
    return torch.zeros_like(targets).scatter(1, (draw * targets).argmax(1, keepdim=True), 1.0)


@claim(
    "em-apl",
    statement=(
        "Where one label of each image is known, entropy maximisation with asymmetric pseudo-labels ranks images "
        "better than taking all other labels to be absent."
    ),
    metric="mean average precision over labels",
    method="entropy maximisation and pseudo-labels",
    baseline="binary cross-entropy, unknown as absent",
    data="scenes of one to four digits, one of them labelled",
    threshold=0.0,
)
def em_apl(budget: Budget, seed: int) -> Measured:
    """Zhou et al., *Acknowledging the Unknown for Multi-label Learning with Single Positive Labels* (2022).

    `extra` has what all labels would give.
    """
    splits = load("digits", seed=seed)
    inputs, every = several_digits(splits.train, budget.pick(smoke=300, small=3000, full=30_000), seed)
    test_inputs, test_targets = several_digits(splits.test, 1000, seed + 1)
    known = _one_of(every, seed)
    warm_up, epochs = budget.pick(smoke=(1, 2), small=(15, 30), full=(30, 60))

    def fresh() -> nn.Module:
        torch.manual_seed(seed)
        return perceptron(inputs.shape[1], 10)

    def precision(network: nn.Module) -> float:
        with torch.no_grad():
            return float(average_precision_score(test_targets.numpy(), network(test_inputs).numpy(), average="macro"))

    network, targets, loss = fresh(), known, losses.SinglePositive()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    fit_tensors(network, inputs, targets, loss, epochs=warm_up, optimizer=optimizer)
    for _ in range(epochs - warm_up):
        with torch.no_grad():
            targets = losses.asymmetric_pseudo_labels(network(inputs), targets, share=0.9 / (epochs - warm_up))
        fit_tensors(network, inputs, targets, loss, epochs=1, optimizer=optimizer)
    binary = nn.BCEWithLogitsLoss()
    absent = precision(fit_tensors(fresh(), inputs, known, binary, epochs=epochs))
    full = precision(fit_tensors(fresh(), inputs, every, binary, epochs=epochs))
    return Measured(precision(network), absent, {"all labels known": full})
