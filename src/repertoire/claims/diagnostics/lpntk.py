"""The claim of *Sample Relationship from Learning Dynamics Matters for Generalisation* (2024)."""

from __future__ import annotations

import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.digits import fitted_perceptron
from repertoire.claims.beds.handwriting import DIGITS, drawn_rows
from repertoire.diagnostics import lpntk


@claim(
    "lpntk",
    statement=(
        "Early in training, the labelled pseudo neural tangent kernel ranks how a step on one image changes the loss "
        "of another: the rank correlation is more than 0.1."
    ),
    metric="rank correlation with the fall of the loss",
    method="labelled pseudo neural tangent kernel",
    baseline="no relation",
    bed="mnist5k",
    data=DIGITS,
    threshold=0.1,
    draws=25,
    guard="none: no relation is the rival, and the network is early in its training because the claim is of that",
)
def sample_relations(budget: Budget, seed: int) -> Measured:
    """Guo et al., *Sample Relationship from Learning Dynamics Matters for Generalisation* (2024). `extra` has the same
    kernel without labels, which the paper says is not enough, and whose correlation is the larger one here, with the
    other sign."""
    (x, y), _ = drawn_rows(budget, seed, 1500)
    network = fitted_perceptron(seed, x, y, 64, 1)
    count = budget.pick(smoke=12, small=80, full=400)
    x, y = x[:count], y[:count]
    labelled = lpntk(network, x, y)
    # A class of its own whose logit is constant: all signs of the others are then alike.
    padded = nn.Sequential(network, nn.ConstantPad1d((0, 1), 0.0))
    plain = lpntk(padded, x, torch.full_like(y, 10))
    start = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        before = F.cross_entropy(network(x), y, reduction="none")
    fall = torch.zeros(count, count)
    for j in range(count):
        gradients = torch.autograd.grad(
            F.cross_entropy(network(x[j : j + 1]), y[j : j + 1]), list(network.parameters())
        )
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.sub_(0.01 * gradient)
            fall[:, j] = before - F.cross_entropy(network(x), y, reduction="none")
        network.load_state_dict(start)
    other = ~torch.eye(count, dtype=torch.bool)
    method, baseline = (
        float(spearmanr(kernel.cpu()[other].numpy(), fall.cpu()[other].numpy()).statistic)
        for kernel in (labelled, plain)
    )
    return Measured(method, 0.0, {"without labels": baseline})
