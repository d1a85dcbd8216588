"""The claim of *Data-Efficient Learning via Clustering-Based Sensitivity Sampling: Foundation Models and Beyond*
(2024).
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.digits import digit_rows, fitted_perceptron, hidden_features
from repertoire.select import sensitivity_sample


@claim(
    "cluster-sensitivity-sampling",
    statement=(
        "The mean loss over all data is estimated with a smaller error from a sensitivity sample, which asks for 40 "
        "losses beforehand, than from a uniform sample as large as both together."
    ),
    metric="root mean squared error of the estimate, relative to the mean loss",
    method="sensitivity sampling, 40 clusters and 60 samples",
    baseline="100 samples drawn evenly",
    data="digits",
    threshold=0.0,
    higher_is_better=False,
)
def sensitivity(budget: Budget, seed: int) -> Measured:
    """Axiotis et al., *Data-Efficient Learning via Clustering-Based Sensitivity Sampling: Foundation Models and Beyond*
    (2024)."""
    (x, y), _ = digit_rows(seed, budget.device)
    network = fitted_perceptron(seed, x, y, 128, budget.pick(smoke=1, small=3, full=10))
    with torch.no_grad():
        losses = F.cross_entropy(network(x), y, reduction="none").double()
    h = hidden_features(network, x)
    generator = torch.Generator().manual_seed(seed)
    truth, ours, even = float(losses.mean()), [], []
    # How much the loss changes with the distance, so that both parts of the probability are of one size.
    smoothness = truth / float((h - h.mean(0)).square().sum(1).mean())
    for _ in range(budget.pick(smoke=5, small=200, full=2000)):
        found = sensitivity_sample(
            h, lambda index: losses[index], 60, clusters=40, smoothness=smoothness, generator=generator
        )
        ours.append(float((found.weight * losses[found.index]).sum()))
        even.append(float(losses[torch.randint(len(x), (100,), generator=generator).to(x.device)].mean()))
    method, baseline = (float(np.sqrt(np.mean((np.array(values) - truth) ** 2))) / truth for values in (ours, even))
    return Measured(method, baseline)
