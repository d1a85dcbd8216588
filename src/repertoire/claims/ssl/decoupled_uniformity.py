"""The claim of *Integrating Prior Knowledge in Contrastive Learning with Kernel* (2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_digits import (
    DISTURBED,
    PROBE,
    disturbed_digits,
    epochs_of,
    pretrained,
    probed_accuracy,
)

#: Digits with a closed loop, round at the top, with a straight stroke, round at the bottom.
ATTRIBUTES = ((0, 6, 8, 9), (0, 2, 3, 8, 9), (1, 4, 5, 7), (0, 3, 5, 6, 8))


def _weak_attributes(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Four attributes of each digit, 1 or -1, a tenth of them wrong: float `[N, 4]`."""
    true = torch.stack([torch.isin(labels, torch.tensor(digits)) for digits in ATTRIBUTES], 1)
    wrong = torch.rand(true.shape, generator=generator) < 0.1
    return 2.0 * (true ^ wrong) - 1.0


@claim(
    "decoupled-uniformity",
    statement=(
        "Weak attributes, a tenth of them wrong, smooth the mean views of decoupled uniformity so that a linear probe "
        "of the features is more accurate than without them."
    ),
    metric=PROBE,
    method="decoupled uniformity with a kernel on weak attributes",
    baseline="decoupled uniformity",
    data=DISTURBED,
    threshold=0.0,
)
def decoupled_uniformity(budget: Budget, seed: int) -> Measured:
    """Dufumier et al., *Integrating Prior Knowledge in Contrastive Learning with Kernel* (2023)."""
    data = disturbed_digits(budget, seed)
    generator = torch.Generator().manual_seed(seed)
    attributes = _weak_attributes(data.labels, generator)
    shuffled = attributes[torch.randperm(len(attributes), generator=generator)]
    options = {"epochs": epochs_of(budget), "seed": seed}
    scores = [
        probed_accuracy(pretrained(losses.DecoupledUniformity(), data.images, prior=prior, **options), data)  # type: ignore[arg-type]
        for prior in (attributes, None, shuffled)
    ]
    return Measured(scores[0], scores[1], {"attributes of other images": scores[2]})
