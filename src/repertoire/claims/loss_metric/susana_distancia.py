"""The claim of *SuSana Distancia is all you need: Enforcing class separability in metric learning via two novel
distance-based loss functions for few-shot image classification* (2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import UNSEEN, Episode, drawings, episodic, few_shot, prototypical
from repertoire.estimators import NearestCentroid

TRIPLET, ICNN = losses.ProtoTriplet(), losses.ICNN(neighbours=5)


def both(x: Tensor, y: Tensor, support: Tensor, support_y: Tensor) -> Tensor:
    """The mean of the two losses."""
    return (TRIPLET(x, y, support, support_y) + ICNN(x, y, support, support_y)) / 2


@claim(
    "susana-distancia",
    statement=(
        "Trained episode by episode, Proto-Triplet and ICNN together give an embedding in which unseen classes are "
        "told apart from one example each better than the cross-entropy over distances to prototypes does."
    ),
    metric="20-way 1-shot accuracy on unseen characters",
    method="mean of Proto-Triplet and ICNN",
    baseline="prototypical network",
    data=UNSEEN,
    bed="omniglot-all",
    threshold=0.01,
    learned=0.01,
    guard="nearest class means in the features as they come",
)
def susana_distancia(budget: Budget, seed: int) -> Measured:
    """Mendez-Ruiz et al., *SuSana Distancia is all you need* (2023): the losses alone, in episodes of 20 classes with
    five examples and five queries each. `extra` has either loss alone, and five shots."""
    rows = drawings(budget, seed, "characters")

    def shots(objective: Episode, rate: float) -> tuple[float, float]:
        steps = budget.pick(smoke=5, small=400, full=4000)
        network = episodic(rows, objective, seed=seed, steps=steps, rate=rate)
        with torch.no_grad():
            return told(network(rows.test_x))

    def told(z: Tensor) -> tuple[float, float]:
        estimator = NearestCentroid(normalize=False)
        one, five = (few_shot(budget, z, rows.test_y, estimator, seed, shots=count) for count in (1, 5))
        return one, five

    (found, five), (plain, plain_five) = shots(both, 1e-3), shots(prototypical, 1e-3)
    extra = {
        "Proto-Triplet alone": shots(TRIPLET, 1e-3)[0],
        "ICNN alone": shots(ICNN, 1e-3)[0],
        "5 shots: both": five,
        "5 shots: prototypical network": plain_five,
    }
    return Measured(found, plain, extra, trivial=told(rows.test_x)[0])
