"""The claim of *Selectivity Drives Productivity: Efficient Dataset Pruning for Enhanced Transfer Learning* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import pixels, probe
from repertoire.claims.beds.digits import fitted_perceptron, hidden_features, rotated_digits
from repertoire.data import load
from repertoire.select import label_mapping


@claim(
    "dp4tl",
    statement=(
        "Pretraining on the quarter of the source classes that label mapping chooses gives features that a linear "
        "probe of the target makes more of than a quarter chosen at random does."
    ),
    metric="target accuracy of a linear probe fitted to 50 images",
    method="classes by label mapping",
    baseline="classes at random",
    data="digits in four rotations as 40 source classes; other digits, upright, as target",
    threshold=0.0,
)
def source_classes(budget: Budget, seed: int) -> Measured:
    """Zhang et al., *Selectivity Drives Productivity: Efficient Dataset Pruning for Enhanced Transfer Learning* "
    "(2023)."""
    splits = load("digits", seed=seed)
    rows, digit, turn = (part.to(budget.device) for part in rotated_digits(splits.train))
    source = digit * 4 + turn
    u, v = (part.to(budget.device) for part in pixels(splits.test))
    few, rest = slice(0, 50), slice(50, None)
    epochs = budget.pick(smoke=1, small=8, full=50)
    surrogate = fitted_perceptron(seed, rows, source, 64, max(1, epochs // 2), 40)
    with torch.no_grad():
        chosen = label_mapping(surrogate(u[few])).keep(0.25)
    random = torch.randperm(40, generator=torch.Generator().manual_seed(seed))[: len(chosen)].to(chosen.device)

    def score(classes: Tensor) -> float:
        kept = torch.isin(source, classes)
        _, targets = source[kept].unique(return_inverse=True)
        # As many steps however many classes are kept.
        network = fitted_perceptron(
            seed, rows[kept], targets, 128, max(1, round(epochs * len(rows) / max(1, int(kept.sum())))), 40
        )
        features, target = hidden_features(network, u).cpu().numpy(), v.cpu().numpy()
        return probe(features[few], target[few], features[rest], target[rest])

    return Measured(score(chosen), score(random), {"all classes": score(torch.arange(40, device=chosen.device))})
