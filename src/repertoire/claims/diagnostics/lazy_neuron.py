"""The claim of *The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers* (2022)."""

from __future__ import annotations

import torch

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.digits import digit_rows, fitted_perceptron
from repertoire.diagnostics import activation_sparsity


@claim(
    "lazy-neuron",
    statement="Training makes units silent: fewer are active for an image, by a tenth of all units, than before it.",
    metric="share of active units behind the last ReLU",
    method="trained network",
    baseline="the same network before training",
    data="digits",
    threshold=0.1,
    higher_is_better=False,
)
def lazy_neurons(budget: Budget, seed: int) -> Measured:
    """Li et al., *The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers* (2022)."""
    (x, y), (u, _) = digit_rows(seed, budget.device)
    epochs, width = budget.pick(smoke=1, small=60, full=300), budget.pick(smoke=64, small=512, full=2048)
    before = activation_sparsity(fitted_perceptron(seed, x, y, width, 0), u)[-1].active
    after = activation_sparsity(fitted_perceptron(seed, x, y, width, epochs), u)[-1].active
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)]
    random = activation_sparsity(fitted_perceptron(seed, x, shuffled, width, epochs), u)[-1].active
    narrow = activation_sparsity(fitted_perceptron(seed, x, y, width // 8, epochs), u)[-1].active
    return Measured(after, before, {"random labels": random, "an eighth of the width": narrow})
