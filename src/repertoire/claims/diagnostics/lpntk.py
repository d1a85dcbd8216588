"""The claim of *Sample Relationship from Learning Dynamics Matters for Generalisation* (2024)."""

from __future__ import annotations

import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.digits import digit_rows, fitted_perceptron
from repertoire.diagnostics import lpntk


@claim(
    "lpntk",
    statement=(
        "The labelled pseudo neural tangent kernel ranks how a step on one image changes the loss of another better, "
        "by 0.1, than the kernel without labels does."
    ),
    metric="rank correlation with the fall of the loss",
    method="labelled pseudo neural tangent kernel",
    baseline="pseudo neural tangent kernel without labels",
    data="digits",
    threshold=0.1,
)
def sample_relations(budget: Budget, seed: int) -> Measured:
    """Guo et al., *Sample Relationship from Learning Dynamics Matters for Generalisation* (2024)."""
    (x, y), _ = digit_rows(seed, budget.device)
    network = fitted_perceptron(seed, x, y, 64, budget.pick(smoke=1, small=2, full=2))
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
    return Measured(method, baseline)
