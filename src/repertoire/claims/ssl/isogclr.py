"""The claim of *Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic Temperature
Individualization* (2023).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_digits import PROBE, disturbed_digits, epochs_of, pretrained, probed_accuracy


def _long_tail(labels: Tensor, seed: int) -> Tensor:
    """Which images to keep so that, in a random order, each digit is two thirds as frequent as the one before."""
    generator = torch.Generator().manual_seed(seed)
    kept = []
    for rank, digit in enumerate(torch.randperm(10, generator=generator).tolist()):
        members = (labels == digit).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        kept.append(members[: max(3, round(len(members) * (2 / 3) ** rank))])
    return torch.cat(kept)


@claim(
    "isogclr",
    statement=(
        "On a long tail of classes, a linear probe of features learned with a temperature for every sample is more "
        "accurate than one of features learned with NT-Xent at the best of three temperatures."
    ),
    metric=PROBE,
    method="individual temperatures, batches of 64",
    baseline="NT-Xent at 0.1, 0.2 or 0.5, whichever is best",
    data="digits as a long tail, shifted, unevenly lit and noisy; probe and test of all digits",
    threshold=0.0,
)
def isogclr(budget: Budget, seed: int) -> Measured:
    """Qiu et al., *Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic Temperature
    Individualization* (2023)."""
    data = disturbed_digits(budget, seed)
    kept = _long_tail(data.labels, seed)
    options: dict[str, Any] = {"epochs": epochs_of(budget, small=60), "seed": seed, "batch_size": 64}
    individual = losses.IndividualTemperatures(len(kept), temperature=0.2)
    ours = probed_accuracy(pretrained(individual, data.images[kept], **options), data)
    theirs = [
        probed_accuracy(pretrained(losses.NTXent(t), data.images[kept], **options), data) for t in (0.1, 0.2, 0.5)
    ]
    frequency = data.labels[kept].bincount(minlength=10)[data.labels[kept]].double().log()
    correlation = np.corrcoef(frequency.numpy(), individual.temperatures.double().numpy())[0, 1]
    # Without a step taken all temperatures are the same, and nothing correlates with them.
    extra = {"correlation of temperature and log frequency": float(np.nan_to_num(correlation))}
    extra.update({f"NT-Xent at {t}": score for t, score in zip((0.1, 0.2, 0.5), theirs, strict=True)})
    return Measured(ours, max(theirs), extra)
